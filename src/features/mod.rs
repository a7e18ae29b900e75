//! One policy, one file: its annotations, its value, its rules and what it does to a route.
//!
//! The table at the end is the one line to add for a new policy; the annotation reference, the finding for unknown
//! annotations and the laws that hold for every policy come from it.

pub mod auth_url;
pub mod backend_protocol;
pub mod body_size;
pub mod canary;
pub mod cors;
pub mod cost;
pub mod direct_response;
pub mod effects;
pub mod fault;
pub mod field;
pub mod headers;
pub mod jwt;
pub mod mirror;
pub mod protective;
pub mod reader;
pub mod redirect;
pub mod request_limits;
pub mod retries;
pub mod rewrite;
pub mod snippets;
pub mod ssl_redirect;
pub mod timeouts;
pub mod unsupported;
pub mod upstream_vhost;

pub use effects::Effects;
pub use field::Field;
pub use reader::{PREFIX, Reader};

/// One annotation, as the reference documents it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Annotation {
    /// The name behind [`PREFIX`].
    pub name: &'static str,
    /// The accepted form.
    pub value: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// A value that parses.
    pub example: &'static str,
    /// One sentence: what it does.
    pub text: &'static str,
    /// The key of the ingress-nginx ConfigMap that sets its default.
    pub config_map: Option<&'static str>,
}

impl Annotation {
    /// The whole key.
    pub fn key(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }
}

/// A policy that annotations express.
pub trait Feature: Sized {
    /// Its annotations.
    const ANNOTATIONS: &'static [Annotation];

    /// Reads it; none if the object does not ask for it and it has no default.
    fn read(reader: &mut Reader<'_>) -> Option<Self>;

    /// What it does to every route of the object.
    fn apply(&self, _effects: &mut Effects) {}
}

macro_rules! features {
    ($($(#[$doc:meta])* $field:ident: $feature:ty,)*) => {
        /// The policies of one Ingress.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct Policies {
            $($(#[$doc])* pub $field: Option<$feature>,)*
        }

        impl Policies {
            /// Reads every policy of an object.
            pub fn read(reader: &mut Reader<'_>) -> Self {
                Self { $($field: <$feature>::read(reader),)* }
            }

            /// What they do to every route of the object.
            pub fn effects(&self) -> Effects {
                let mut effects = Effects::default();
                $(if let Some(feature) = &self.$field { feature.apply(&mut effects); })*
                effects
            }
        }

        /// Every annotation that has an effect, by policy.
        pub const ANNOTATIONS: &[&[Annotation]] = &[$(<$feature>::ANNOTATIONS),*];
    };
}

features! {
    /// A share of another Ingress's requests.
    canary: canary::Canary,
    /// Paths as regular expressions, and what the upstream sees.
    rewrite: rewrite::Rewrite,
    /// Plain http to https.
    ssl_redirect: ssl_redirect::SslRedirect,
    /// How long to wait.
    timeouts: timeouts::Timeouts,
    /// How large a request may be.
    body_size: body_size::BodySize,
    /// Copies of requests.
    mirror: mirror::Mirror,
    /// The Host that the upstream sees.
    upstream_vhost: upstream_vhost::UpstreamVhost,
    /// How the upstream is spoken to.
    backend_protocol: backend_protocol::BackendProtocol,
    /// A service that is asked whether to let a request in.
    auth_url: auth_url::AuthUrl,
    /// Requests per client address.
    request_limits: request_limits::RequestLimits,
}

#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;
