//! The objects that are kept.

use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::crd::rate_limit_policy::RateLimitPolicy;
use crate::crd::virtual_service::VirtualService;
use crate::values::certificate::Checked;
use crate::values::{Age, Finding, Kind, ObjectKey};

/// One object of a kind that is read. Boxed, since a Service is several times the size of an EndpointSlice.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, reason = "each variant is the kind of its name")]
pub enum Object {
    Ingress(Box<Ingress>),
    VirtualService(Box<VirtualService>),
    RateLimitPolicy(Box<RateLimitPolicy>),
    IngressClass(Box<IngressClass>),
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Secret(Box<Secret>),
    ConfigMap(Box<ConfigMap>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Ingress(_) => Kind::Ingress,
            Self::VirtualService(_) => Kind::VirtualService,
            Self::RateLimitPolicy(_) => Kind::RateLimitPolicy,
            Self::IngressClass(_) => Kind::IngressClass,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Secret(_) => Kind::Secret,
            Self::ConfigMap(_) => Kind::ConfigMap,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Ingress(object) => &object.metadata,
            Self::VirtualService(object) => &object.metadata,
            Self::RateLimitPolicy(object) => &object.metadata,
            Self::IngressClass(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
            Self::ConfigMap(object) => &object.metadata,
        }
    }

    /// Its metadata, to be trimmed by a source before it is kept.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Ingress(object) => &mut object.metadata,
            Self::VirtualService(object) => &mut object.metadata,
            Self::RateLimitPolicy(object) => &mut object.metadata,
            Self::IngressClass(object) => &mut object.metadata,
            Self::Service(object) => &mut object.metadata,
            Self::EndpointSlice(object) => &mut object.metadata,
            Self::Secret(object) => &mut object.metadata,
            Self::ConfigMap(object) => &mut object.metadata,
        }
    }

    /// Its key. Sources set the namespace of namespaced kinds before an object gets here.
    fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey::new(
            self.kind(),
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

/// An object as a source read it and the store keeps it.
#[derive(Debug)]
pub struct Stored {
    /// The object's key, made once: whoever needs one clones it.
    pub key: ObjectKey,
    /// The object.
    pub object: Object,
    /// Its age.
    pub age: Age,
    /// What reading it found (unknown fields, say).
    pub findings: Vec<Finding>,
    /// The certificate in it, once somebody has asked; boxed, since few objects have one.
    certificate: OnceLock<Box<Reading>>,
}

/// A certificate, or what is wrong with it.
type Reading = Result<Arc<Checked>, String>;

impl Stored {
    /// What a source has read.
    pub fn new(object: Object, age: Age, findings: Vec<Finding>) -> Self {
        Self { key: object.key(), object, age, findings, certificate: OnceLock::new() }
    }

    /// The certificate in a Secret of type `kubernetes.io/tls`. It is read once, however many hosts it serves.
    ///
    /// # Errors
    /// What is wrong with it, to be put behind the Secret's name.
    pub fn certificate(&self) -> &Result<Arc<Checked>, String> {
        self.certificate.get_or_init(|| {
            let read = |key: &str| match &self.object {
                Object::Secret(secret) => data(secret, key).ok_or_else(|| format!("has no {key}")),
                _ => Err("is no Secret".to_owned()),
            };
            let pair = read("tls.crt").and_then(|chain| Ok((chain, read("tls.key")?)));
            Box::new(pair.and_then(|(chain, key)| Checked::read(chain, key)).map(Arc::new))
        })
    }
}

/// What was derived says nothing new.
impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        self.object == other.object && self.age == other.age && self.findings == other.findings
    }
}

fn data(secret: &Secret, key: &str) -> Option<Vec<u8>> {
    let binary = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
    binary.or_else(|| secret.string_data.as_ref()?.get(key).map(|text| text.clone().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_read_once() {
        let secret = || Stored::new(Object::Secret(Box::default()), Age::default(), Vec::new());
        let (read, unread) = (secret(), secret());
        assert!(std::ptr::eq(read.certificate(), read.certificate()));
        assert_eq!(read.certificate().as_ref().unwrap_err(), "has no tls.crt");
        assert_eq!(read, unread);
    }
}
