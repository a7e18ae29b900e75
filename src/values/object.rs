//! Names of Kubernetes objects, and their order by age.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kinds of objects that are read. The order is the order in which listings show them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// `networking.k8s.io/v1`
    Ingress,
    /// `networking.istio.io/v1`, `v1beta1`, `v1alpha3`
    VirtualService,
    /// `chancery.dev/v1alpha1`
    RateLimitPolicy,
    /// `networking.k8s.io/v1`, cluster-scoped
    IngressClass,
    /// `v1`
    Service,
    /// `discovery.k8s.io/v1`
    EndpointSlice,
    /// `v1`
    Secret,
    /// `v1`
    ConfigMap,
    /// No kind of Kubernetes: a document of a manifest that cannot be told to be any of the above. Its name is the
    /// file's, `#` and the document's number.
    Manifest,
}

impl Kind {
    /// Every kind that is read, in declaration order.
    pub const ALL: [Self; 8] = [
        Self::Ingress,
        Self::VirtualService,
        Self::RateLimitPolicy,
        Self::IngressClass,
        Self::Service,
        Self::EndpointSlice,
        Self::Secret,
        Self::ConfigMap,
    ];

    /// The kind as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::VirtualService => "VirtualService",
            Self::RateLimitPolicy => "RateLimitPolicy",
            Self::IngressClass => "IngressClass",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Manifest => "Manifest",
        }
    }

    /// Whether objects of this kind live in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::IngressClass | Self::Manifest)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// One object: kind, namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The kind, which stands for every served version of it.
    pub kind: Kind,
    /// The namespace, empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key from its parts.
    pub fn new(kind: Kind, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where something came from: an object and the field or annotation in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Origin {
    /// The object.
    pub object: ObjectKey,
    /// The field as a path (`spec.rules[0].http.paths[1]`), or an annotation's key.
    pub field: Arc<str>,
}

impl Origin {
    /// An origin from its parts.
    pub fn new(object: &ObjectKey, field: impl Into<Arc<str>>) -> Self {
        Self { object: object.clone(), field: field.into() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object, self.field)
    }
}

/// A value and where it came from.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// The object and field that said so.
    pub origin: Origin,
}

/// How old an object is. The smaller is the older.
///
/// Objects that the API server stamped are ordered by `metadata.creationTimestamp`; those of a folder of manifests
/// without one come after them, by the file's name in byte order and the position in the file.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Age {
    /// `metadata.creationTimestamp`, in seconds since 1970.
    pub created: Option<i64>,
    /// File name and position for objects from a folder, empty for those of an API server.
    pub position: Arc<str>,
}

impl Ord for Age {
    fn cmp(&self, other: &Self) -> Ordering {
        let created = match (self.created, other.created) {
            (Some(a), Some(b)) => a.cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        created.then_with(|| self.position.cmp(&other.position))
    }
}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
