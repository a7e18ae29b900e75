//! Indexes over objects: who names a host, who describes a Service, who targets a routing object.

use std::collections::BTreeSet;
use std::hash::Hash;

use hashbrown::HashMap;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::{Object, Read, Stored};
use crate::values::host::full_name;
use crate::values::{Age, HostName, Kind, ObjectKey};

/// Objects' keys, ordered by age, oldest first. Mostly one or two, so they are kept in as little as they need.
#[derive(Debug, Default)]
pub(super) struct ByAge(Vec<(Age, ObjectKey)>);

impl ByAge {
    fn insert(&mut self, entry: (Age, ObjectKey)) {
        if let Err(place) = self.0.binary_search(&entry) {
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(place, entry);
        }
    }

    fn remove(&mut self, entry: &(Age, ObjectKey)) {
        if let Ok(place) = self.0.binary_search(entry) {
            self.0.remove(place);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys, oldest first.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.iter().map(|(_, key)| key)
    }
}

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Debug, Default)]
pub(super) struct Indexes {
    /// Routing objects by the host they name.
    pub(super) routing: HashMap<HostName, ByAge>,
    /// What short hosts of VirtualServices end in.
    pub(super) cluster_domain: Box<str>,
    /// EndpointSlices by the Service they belong to.
    pub(super) slices: HashMap<ObjectKey, ByAge>,
    /// RateLimitPolicies by the object they target.
    pub(super) policies: HashMap<ObjectKey, ByAge>,
    /// Objects of the few kinds that are read as a list.
    pub(super) listed: HashMap<Kind, ByAge>,
    /// How many ready endpoints a Service has over all its slices; absent means none.
    pub(super) ready: HashMap<ObjectKey, usize>,
}

impl Indexes {
    /// Moves an object from its old form's places to those of its new form.
    pub(super) fn replace(
        &mut self,
        key: &ObjectKey,
        old: Option<&Stored>,
        new: Option<&Stored>,
    ) -> Vec<Read> {
        let mut touched = Vec::new();
        let domain = &*self.cluster_domain;
        let entry = |stored: &Stored| (stored.age.clone(), key.clone());
        move_entry(
            &mut self.routing,
            old,
            new,
            |stored| hosts(stored, domain),
            entry,
            |host| touched.push(Read::Routing(host)),
        );
        move_entry(&mut self.slices, old, new, service_of, entry, |service| {
            touched.push(Read::Slices(service));
        });
        move_entry(&mut self.policies, old, new, targets, entry, |target| {
            touched.push(Read::Policies(target))
        });
        move_entry(&mut self.listed, old, new, listed_kind, entry, |kind| touched.push(Read::Listed(kind)));
        self.count_ready(old, new, &mut touched);
        touched
    }

    fn count_ready(&mut self, old: Option<&Stored>, new: Option<&Stored>, touched: &mut Vec<Read>) {
        let count = |stored: Option<&Stored>| {
            stored.and_then(|stored| {
                let service = service_of(stored).pop()?;
                let Object::EndpointSlice(slice) = &stored.object else { return None };
                Some((service, ready_endpoints(slice)))
            })
        };
        let (old, new) = (count(old), count(new));
        let services: BTreeSet<_> = old.iter().chain(&new).map(|(service, _)| service.clone()).collect();
        for service in services {
            let of = |side: &Option<(ObjectKey, usize)>| {
                side.iter().filter(|(of, _)| *of == service).map(|(_, count)| count).sum::<usize>()
            };
            let before = self.ready.get(&service).copied().unwrap_or_default();
            let after = before + of(&new) - of(&old);
            if after == 0 {
                self.ready.remove(&service);
            } else {
                self.ready.insert(service.clone(), after);
            }
            if (before == 0) != (after == 0) {
                touched.push(Read::HasEndpoints(service));
            }
        }
    }
}

/// Takes an object's entry out of its old places and puts it into its new ones; tells the places of both.
fn move_entry<K: Hash + Eq + Clone + Ord, E: Fn(&Stored) -> (Age, ObjectKey)>(
    index: &mut HashMap<K, ByAge>,
    old: Option<&Stored>,
    new: Option<&Stored>,
    places: impl Fn(&Stored) -> Vec<K>,
    entry: E,
    mut touched: impl FnMut(K),
) {
    let before: BTreeSet<K> = old.map(&places).unwrap_or_default().into_iter().collect();
    let after: BTreeSet<K> = new.map(&places).unwrap_or_default().into_iter().collect();
    let same_age = old.zip(new).is_some_and(|(old, new)| old.age == new.age);
    for place in &before {
        if same_age && after.contains(place) {
            continue;
        }
        if let (Some(members), Some(old)) = (index.get_mut(place), old) {
            members.remove(&entry(old));
            if members.is_empty() {
                index.remove(place);
            }
        }
        touched(place.clone());
    }
    for place in &after {
        if same_age && before.contains(place) {
            continue;
        }
        if let Some(new) = new {
            index.entry(place.clone()).or_default().insert(entry(new));
        }
        touched(place.clone());
    }
}

/// The scopes that a routing object has something to say about.
fn hosts(stored: &Stored, cluster_domain: &str) -> Vec<HostName> {
    match &stored.object {
        Object::Ingress(ingress) => {
            let Some(spec) = &ingress.spec else { return Vec::new() };
            let rules = spec.rules.iter().flatten();
            let mut hosts: Vec<_> = rules
                .filter_map(|rule| HostName::parse(rule.host.as_deref().unwrap_or_default()).ok())
                .collect();
            if hosts.is_empty() && spec.default_backend.is_some() {
                hosts.push(HostName::any());
            }
            hosts
        }
        Object::VirtualService(service) => {
            let full = |host: &String| full_name(host, &stored.key.namespace, cluster_domain).into_owned();
            let hosts = service.spec.hosts.iter().filter_map(|host| HostName::parse(&full(host)).ok());
            hosts.flat_map(|host| host.deep().into_iter().chain([host])).collect()
        }
        _ => Vec::new(),
    }
}

fn service_of(stored: &Stored) -> Vec<ObjectKey> {
    let Object::EndpointSlice(slice) = &stored.object else { return Vec::new() };
    let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    name.map(|name| ObjectKey::new(Kind::Service, namespace, name.as_str())).into_iter().collect()
}

fn targets(stored: &Stored) -> Vec<ObjectKey> {
    let Object::RateLimitPolicy(policy) = &stored.object else { return Vec::new() };
    let target = &policy.spec.target_ref;
    let kind = match target.kind.parse() {
        Ok(kind @ (Kind::Ingress | Kind::VirtualService)) => kind,
        _ => return Vec::new(),
    };
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    vec![ObjectKey::new(kind, namespace, target.name.as_str())]
}

fn listed_kind(stored: &Stored) -> Vec<Kind> {
    let kind = stored.object.kind();
    (kind == Kind::IngressClass).then_some(kind).into_iter().collect()
}

/// Whether new requests may go to an endpoint. Conditions that are not given are unknown, which the API says to read as
/// ready; one that is terminating is not, unless it says so.
pub(crate) fn is_ready(endpoint: &Endpoint) -> bool {
    let Some(conditions) = &endpoint.conditions else { return true };
    conditions.ready.unwrap_or(!conditions.terminating.unwrap_or(false))
}

fn ready_endpoints(slice: &EndpointSlice) -> usize {
    slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint)).count()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::EndpointConditions;

    use super::*;

    #[test]
    fn readiness() {
        for (ready, terminating, expected) in [
            (None, None, true),
            (None, Some(false), true),
            (None, Some(true), false),
            (Some(true), None, true),
            // `publishNotReadyAddresses` has it so.
            (Some(true), Some(true), true),
            (Some(false), None, false),
            (Some(false), Some(true), false),
        ] {
            let conditions = Some(EndpointConditions { ready, terminating, serving: None });
            let endpoint = Endpoint { conditions, ..Endpoint::default() };
            assert_eq!(is_ready(&endpoint), expected, "{ready:?} {terminating:?}");
        }
        assert!(is_ready(&Endpoint::default()));
    }
}
