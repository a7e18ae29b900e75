//! The resource types that are served.

use std::fmt;

use super::Audience;

/// A type of resource.
///
/// The order of declaration is the order of sending: endpoints go before all else, then clusters before what refers to
/// them, certificates and filters before the listeners that name them, route configurations before the scopes that
/// name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum TypeUrl {
    /// Endpoints of a cluster (EDS).
    ClusterLoadAssignment,
    /// Clusters (CDS).
    Cluster,
    /// Certificates and keys (SDS).
    Secret,
    /// HTTP filters that change without their listener (ECDS).
    TypedExtensionConfig,
    /// Listeners (LDS).
    Listener,
    /// Route configurations (RDS).
    RouteConfiguration,
    /// Which route configuration serves which scope key (SRDS).
    ScopedRouteConfiguration,
    /// Limits, for a rate limit service of ours.
    LimitSet,
    /// Limits, for that of envoyproxy/ratelimit.
    RateLimitConfig,
}

impl TypeUrl {
    /// How many types there are.
    pub const COUNT: usize = 9;

    /// Every type, in the order of sending.
    pub const ALL: [TypeUrl; Self::COUNT] = [
        TypeUrl::ClusterLoadAssignment,
        TypeUrl::Cluster,
        TypeUrl::Secret,
        TypeUrl::TypedExtensionConfig,
        TypeUrl::Listener,
        TypeUrl::RouteConfiguration,
        TypeUrl::ScopedRouteConfiguration,
        TypeUrl::LimitSet,
        TypeUrl::RateLimitConfig,
    ];

    /// The URL that stands in requests, responses and every `Any`.
    pub const fn as_str(self) -> &'static str {
        match self {
            TypeUrl::ClusterLoadAssignment => {
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
            }
            TypeUrl::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            TypeUrl::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            TypeUrl::TypedExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            TypeUrl::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            TypeUrl::RouteConfiguration => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            TypeUrl::ScopedRouteConfiguration => {
                "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
            }
            TypeUrl::LimitSet => "type.googleapis.com/chancery.ratelimit.v1.LimitSet",
            TypeUrl::RateLimitConfig => "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig",
        }
    }

    /// Who is sent resources of this type.
    pub const fn audience(self) -> Audience {
        match self {
            TypeUrl::LimitSet | TypeUrl::RateLimitConfig => Audience::RateLimit,
            _ => Audience::Envoy,
        }
    }

    /// The message's own name, without package: `Cluster`.
    pub fn short(self) -> &'static str {
        self.as_str().rsplit('.').next().unwrap_or_default()
    }

    /// The type with this URL, if it is one that is served.
    pub fn parse(url: &str) -> Option<TypeUrl> {
        Self::ALL.into_iter().find(|t| t.as_str() == url)
    }

    /// The type of what a resource of this type refers to by [`Resource::requires`](super::Resource::requires).
    pub const fn requires(self) -> TypeUrl {
        match self {
            TypeUrl::ScopedRouteConfiguration => TypeUrl::RouteConfiguration,
            _ => TypeUrl::Cluster,
        }
    }

    /// The type of those that refer to resources of this type, if a client is known to hold what they refer to only
    /// while every one of them is known.
    pub(super) const fn required_by(self) -> Option<TypeUrl> {
        match self {
            TypeUrl::Cluster => Some(TypeUrl::RouteConfiguration),
            TypeUrl::RouteConfiguration => Some(TypeUrl::ScopedRouteConfiguration),
            _ => None,
        }
    }

    /// Whether a client may subscribe to all resources of the type at once. Of the others it names each.
    ///
    /// In the state-of-the-world variant these are also the types whose responses hold the whole set, so that what a
    /// response lacks is gone.
    pub const fn has_wildcard(self) -> bool {
        matches!(
            self,
            TypeUrl::Cluster
                | TypeUrl::Listener
                | TypeUrl::ScopedRouteConfiguration
                | TypeUrl::LimitSet
                | TypeUrl::RateLimitConfig
        )
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::{config, extensions::transport_sockets::tls};
    use prost::Name;

    #[test]
    fn urls_are_those_of_the_messages() {
        let messages = [
            config::endpoint::v3::ClusterLoadAssignment::type_url(),
            config::cluster::v3::Cluster::type_url(),
            tls::v3::Secret::type_url(),
            config::core::v3::TypedExtensionConfig::type_url(),
            config::listener::v3::Listener::type_url(),
            config::route::v3::RouteConfiguration::type_url(),
            config::route::v3::ScopedRouteConfiguration::type_url(),
            "type.googleapis.com/chancery.ratelimit.v1.LimitSet".to_owned(),
            envoy_types::pb::ratelimit::config::ratelimit::v3::RateLimitConfig::type_url(),
        ];
        for (t, url) in TypeUrl::ALL.into_iter().zip(messages) {
            assert_eq!(t.as_str(), url);
            assert_eq!(TypeUrl::parse(&url), Some(t));
            assert_eq!(TypeUrl::ALL[t as usize], t);
        }
        assert_eq!(TypeUrl::parse("type.googleapis.com/envoy.service.runtime.v3.Runtime"), None);
        assert_eq!(TypeUrl::Cluster.to_string(), "Cluster");
    }
}
