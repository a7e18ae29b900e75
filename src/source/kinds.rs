//! The table of watched kinds.

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::ApiResource;
use serde_json::Value;

use super::protobuf::{core, discovery, networking};
use super::read::{ReadError, Unknown, typed};
use super::unrouted;
use crate::crd::rate_limit_policy::RateLimitPolicy;
use crate::crd::unreadable::Unreadable;
use crate::crd::virtual_service::VirtualService;
use crate::store::Object;
use crate::values::Kind;

/// Makes an object of its protobuf message.
pub(super) type OfMessage = fn(&[u8]) -> Result<Object, ReadError>;

/// A kind that is read, and how.
#[derive(Debug)]
pub struct Watched {
    /// The kind.
    pub kind: Kind,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The versions that are read, all of one schema, the preferred one first.
    pub versions: &'static [&'static str],
    /// The plural by which an API server serves it.
    pub plural: &'static str,
    /// Whether an API server may lack it: its definition is installed apart.
    pub optional: bool,
    /// Which objects an API server is asked for, as a field selector; empty for all.
    pub field_selector: &'static str,
    /// The top-level fields that are dropped before it is kept.
    pub(super) dropped: &'static [&'static str],
    pub(super) typed: fn(&Value, Option<&mut Unknown>) -> Result<Object, ReadError>,
    /// How its protobuf message is read, where an API server has that form of it: built-in kinds.
    pub(super) protobuf: Option<OfMessage>,
}

/// The types of Secrets that can hold no certificate.
const SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
                       type!=kubernetes.io/dockercfg,type!=kubernetes.io/dockerconfigjson,\
                       type!=kubernetes.io/ssh-auth,type!=bootstrap.kubernetes.io/token";

/// What most kinds have in common.
const COMMON: Watched = Watched {
    kind: Kind::Ingress,
    group: "",
    versions: &["v1"],
    plural: "",
    optional: false,
    field_selector: "",
    dropped: &["status"],
    typed: |value, unknown| typed::<Box<Ingress>>(value, unknown).map(Object::Ingress),
    protobuf: None,
};

/// Every kind that is read.
pub static WATCHED: [Watched; 8] = [
    Watched {
        kind: Kind::Ingress,
        group: "networking.k8s.io",
        plural: "ingresses",
        protobuf: Some(networking::ingress),
        ..COMMON
    },
    Watched {
        kind: Kind::VirtualService,
        group: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        plural: "virtualservices",
        optional: true,
        typed: |value, unknown| typed::<Box<VirtualService>>(value, unknown).map(Object::VirtualService),
        ..COMMON
    },
    Watched {
        kind: Kind::RateLimitPolicy,
        group: "chancery.dev",
        versions: &["v1alpha1"],
        plural: "ratelimitpolicies",
        optional: true,
        // Without it its target would be open.
        typed: |value, unknown| {
            let policy = typed::<Box<RateLimitPolicy>>(value, unknown).unwrap_or_else(|error| {
                let why = Unreadable::new(&error.field, &error.message);
                Box::new(RateLimitPolicy::unreadable(value, why))
            });
            Ok(Object::RateLimitPolicy(policy))
        },
        ..COMMON
    },
    Watched {
        kind: Kind::IngressClass,
        group: "networking.k8s.io",
        plural: "ingressclasses",
        typed: |value, unknown| typed::<Box<IngressClass>>(value, unknown).map(Object::IngressClass),
        protobuf: Some(networking::ingress_class),
        ..COMMON
    },
    Watched {
        kind: Kind::Service,
        plural: "services",
        // A Service's status is kept: it says under which address a load balancer serves it.
        dropped: &[],
        typed: |value, unknown| typed::<Box<Service>>(value, unknown).map(Object::Service),
        protobuf: Some(core::service),
        ..COMMON
    },
    Watched {
        kind: Kind::EndpointSlice,
        group: "discovery.k8s.io",
        plural: "endpointslices",
        typed: |value, unknown| typed::<Box<EndpointSlice>>(value, unknown).map(Object::EndpointSlice),
        protobuf: Some(discovery::endpoint_slice),
        ..COMMON
    },
    Watched {
        kind: Kind::Secret,
        plural: "secrets",
        field_selector: SECRETS,
        typed: |value, unknown| typed::<Box<Secret>>(value, unknown).map(Object::Secret),
        protobuf: Some(core::secret),
        ..COMMON
    },
    Watched {
        kind: Kind::ConfigMap,
        plural: "configmaps",
        // Of the one that is read, the settings know the name.
        typed: |value, unknown| typed::<Box<ConfigMap>>(value, unknown).map(Object::ConfigMap),
        protobuf: Some(core::config_map),
        ..COMMON
    },
];

/// What the `apiVersion` and `kind` of an object mean here.
#[derive(Clone, Copy, Debug)]
pub enum Meaning {
    /// It is read.
    Watched(&'static Watched),
    /// The kind is read, but not in this version.
    Version(&'static Watched),
    /// It is no concern of a proxy's, as is well known: a Deployment, say.
    WellKnown,
    /// It is not routed by Chancery, which may surprise.
    Unknown,
}

/// What an `apiVersion` (`group/version`, or `version` alone in the core group) and a `kind` mean.
pub fn meaning(api_version: &str, kind: &str) -> Meaning {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let same_kind = || WATCHED.iter().filter(|watched| watched.kind.as_str() == kind);
    if let Some(watched) = same_kind().find(|watched| watched.group == group) {
        return match watched.versions.contains(&version) {
            true => Meaning::Watched(watched),
            false => Meaning::Version(watched),
        };
    }
    // Ingress was served by another group until Kubernetes 1.22.
    match same_kind().find(|watched| watched.kind == Kind::Ingress && group == "extensions") {
        Some(watched) => Meaning::Version(watched),
        None if unrouted::is_well_known(group, kind) => Meaning::WellKnown,
        None => Meaning::Unknown,
    }
}

impl Watched {
    /// The `apiVersion` that manifests should bear.
    pub fn api_version(&self) -> String {
        self.resource(self.versions[0]).api_version
    }

    /// Where an API server serves it in a version.
    pub fn resource(&self, version: &str) -> ApiResource {
        let api_version = match self.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        ApiResource {
            group: self.group.into(),
            version: version.into(),
            api_version,
            kind: self.kind.as_str().into(),
            plural: self.plural.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_in_the_table_once_and_in_order() {
        assert_eq!(WATCHED.each_ref().map(|watched| watched.kind), Kind::ALL);
    }

    #[test]
    fn meanings() {
        let cases = [
            ("networking.k8s.io/v1", "Ingress", "read"),
            ("networking.k8s.io/v1beta1", "Ingress", "version"),
            ("extensions/v1beta1", "Ingress", "version"),
            ("networking.istio.io/v1", "VirtualService", "read"),
            ("networking.istio.io/v1alpha3", "VirtualService", "read"),
            ("networking.istio.io/v1beta1", "VirtualService", "read"),
            ("v1", "Secret", "read"),
            ("v2", "Secret", "version"),
            ("serving.knative.dev/v1", "Service", "well known"),
            ("apps/v1", "Deployment", "well known"),
            ("v1", "Pod", "well known"),
            ("v1", "Namespace", "well known"),
            ("networking.k8s.io/v1", "NetworkPolicy", "well known"),
            ("cert-manager.io/v1", "ClusterIssuer", "well known"),
            ("monitoring.coreos.com/v1", "ServiceMonitor", "well known"),
            ("traefik.containo.us/v1alpha1", "IngressRoute", "unknown"),
            ("networking.istio.io/v1", "Gateway", "unknown"),
            ("gateway.networking.k8s.io/v1", "HTTPRoute", "unknown"),
            ("", "", "unknown"),
        ];
        for (api_version, kind, expected) in cases {
            let found = match meaning(api_version, kind) {
                Meaning::Watched(watched) => {
                    assert_eq!(watched.kind.as_str(), kind);
                    "read"
                }
                Meaning::Version(_) => "version",
                Meaning::WellKnown => "well known",
                Meaning::Unknown => "unknown",
            };
            assert_eq!(found, expected, "{api_version} {kind}");
        }
    }
}
