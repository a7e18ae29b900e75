//! The store as pure functions see it: every look-up is noted, those that found nothing too.

use std::cell::RefCell;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::index::ByAge;
use super::{Object, Store, Stored, secret};
use crate::crd::rate_limit_policy::RateLimitPolicy;
use crate::values::certificate::Checked;
use crate::values::key_set::KeySet;
use crate::values::{HostName, Kind, ObjectKey};

/// One thing that was looked up. The look-ups of an output's last run are its dependencies.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Read {
    /// An object, or that there is none.
    Object(ObjectKey),
    /// Which routing objects name a host.
    Routing(HostName),
    /// Which EndpointSlices a Service has.
    Slices(ObjectKey),
    /// Whether a Service has any ready endpoint.
    HasEndpoints(ObjectKey),
    /// Which RateLimitPolicies target an object.
    Policies(ObjectKey),
    /// Which objects of a kind there are.
    Listed(Kind),
}

/// Reads a store and notes what was read.
#[derive(Debug)]
pub struct View<'a> {
    store: &'a Store,
    reads: RefCell<Vec<Read>>,
}

impl<'a> View<'a> {
    /// A view that has read nothing yet.
    pub fn new(store: &'a Store) -> Self {
        Self { store, reads: RefCell::default() }
    }

    /// What was read, each once.
    pub fn into_reads(self) -> Vec<Read> {
        let mut reads = self.reads.into_inner();
        reads.sort_unstable();
        reads.dedup();
        reads
    }

    fn note(&self, read: Read) {
        self.reads.borrow_mut().push(read);
    }

    /// An object.
    pub fn object(&self, key: &ObjectKey) -> Option<&'a Arc<Stored>> {
        self.note(Read::Object(key.clone()));
        self.store.objects.get(key)
    }

    /// The routing objects that name a host, oldest first.
    pub fn routing(&self, host: &HostName) -> impl Iterator<Item = &'a ObjectKey> + use<'a> {
        self.note(Read::Routing(host.clone()));
        keys(self.store.indexes.routing.get(host))
    }

    /// An Ingress.
    pub fn ingress(&self, key: &ObjectKey) -> Option<&'a Ingress> {
        match &self.object(key)?.object {
            Object::Ingress(ingress) => Some(ingress),
            _ => None,
        }
    }

    /// A Service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&'a Service> {
        match &self.object(&ObjectKey::new(Kind::Service, namespace, name))?.object {
            Object::Service(service) => Some(service),
            _ => None,
        }
    }

    /// The certificate in a Secret, or what is wrong with it; none if there is no such Secret.
    pub fn certificate(&self, namespace: &str, name: &str) -> Option<&'a Result<Arc<Checked>, String>> {
        Some(self.object(&ObjectKey::new(Kind::Secret, namespace, name))?.certificate())
    }

    /// The keys in a Secret (see [`secret::keys`]), or what is wrong with it; none if there is no such Secret.
    pub fn keys(&self, namespace: &str, name: &str, entry: Option<&str>) -> Option<Result<KeySet, String>> {
        match &self.object(&ObjectKey::new(Kind::Secret, namespace, name))?.object {
            Object::Secret(secret) => Some(secret::keys(secret, entry)),
            _ => None,
        }
    }

    /// The JWK Set in a Secret (see [`secret::jwks`]), or what is wrong with it; none if there is no such Secret.
    pub fn jwks(&self, namespace: &str, name: &str, entry: &str) -> Option<Result<&'a str, String>> {
        match &self.object(&ObjectKey::new(Kind::Secret, namespace, name))?.object {
            Object::Secret(secret) => Some(secret::jwks(secret, entry)),
            _ => None,
        }
    }

    /// A ConfigMap.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&'a ConfigMap> {
        match &self.object(&ObjectKey::new(Kind::ConfigMap, namespace, name))?.object {
            Object::ConfigMap(config_map) => Some(config_map),
            _ => None,
        }
    }

    /// An IngressClass.
    pub fn ingress_class(&self, name: &str) -> Option<&'a IngressClass> {
        match &self.object(&ObjectKey::new(Kind::IngressClass, "", name))?.object {
            Object::IngressClass(class) => Some(class),
            _ => None,
        }
    }

    /// All IngressClasses, oldest first.
    pub fn ingress_classes(&self) -> impl Iterator<Item = &'a IngressClass> + use<'a, '_> {
        self.note(Read::Listed(Kind::IngressClass));
        keys(self.store.indexes.listed.get(&Kind::IngressClass))
            .filter_map(|key| self.ingress_class(&key.name))
    }

    /// The EndpointSlices of a Service, oldest first.
    pub fn slices(&self, service: &ObjectKey) -> impl Iterator<Item = &'a EndpointSlice> + use<'a, '_> {
        self.note(Read::Slices(service.clone()));
        keys(self.store.indexes.slices.get(service)).filter_map(|key| match &self.object(key)?.object {
            Object::EndpointSlice(slice) => Some(&**slice),
            _ => None,
        })
    }

    /// Whether a Service has any ready endpoint. Cheaper to depend on than its slices: it seldom changes.
    pub fn has_endpoints(&self, service: &ObjectKey) -> bool {
        self.note(Read::HasEndpoints(service.clone()));
        self.store.indexes.ready.contains_key(service)
    }

    /// The RateLimitPolicies that target an object, oldest first.
    pub fn rate_limit_policies(
        &self,
        target: &ObjectKey,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a RateLimitPolicy)> + use<'a, '_> {
        self.note(Read::Policies(target.clone()));
        keys(self.store.indexes.policies.get(target)).filter_map(|key| match &self.object(key)?.object {
            Object::RateLimitPolicy(policy) => Some((key, &**policy)),
            _ => None,
        })
    }
}

fn keys(members: Option<&ByAge>) -> impl Iterator<Item = &ObjectKey> {
    members.into_iter().flat_map(ByAge::keys)
}
