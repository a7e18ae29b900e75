//! What hosts refer to, counted: it exists while somebody does.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::features::Effects;
use crate::model::limit::Limit;
use crate::model::{Backend, EndpointSetKey, Route, SecretRef};
use crate::translate;
use crate::values::HostName;
use crate::values::certificate::Checked;
use crate::xds::Resource;

/// References by kind.
#[derive(Debug, Default)]
pub(crate) struct References {
    /// Clusters, each with its backend, which hosts share.
    pub(crate) backends: Backends,
    /// Certificates by the Secret that they are in, each as it is sent, but for the name.
    pub(crate) secrets: Counted<SecretRef, Option<(Arc<Checked>, Resource)>>,
    /// The clusters of each endpoint set.
    pub(crate) clusters: HashMap<EndpointSetKey, BTreeSet<Arc<str>>>,
    /// Limits by id.
    pub(crate) limits: Counted<Arc<str>, Limit>,
    /// What policies do to routes: most Ingresses ask for nothing, and share one.
    effects: Counted<Arc<Effects>, ()>,
    /// The fields that routes came from: most are `spec.rules[0].http.paths[…]`.
    fields: Counted<Arc<str>, ()>,
}

impl References {
    /// The certificate of a Secret that is referred to, under a host's name. Hosts share its bytes.
    pub(crate) fn secret(
        &mut self,
        secret: &SecretRef,
        certificate: &Arc<Checked>,
        name: &str,
    ) -> Option<Resource> {
        let shared = self.secrets.get_mut(secret)?;
        let (_, resource) = match shared.take() {
            Some(same) if Arc::ptr_eq(&same.0, certificate) || same.0 == *certificate => shared.insert(same),
            _ => {
                let resource = translate::secret::secret(name, &certificate.certificate);
                shared.insert((certificate.clone(), resource))
            }
        };
        Some(resource.secret_under(name))
    }

    /// What a route has in common with routes of other hosts becomes one in memory.
    pub(crate) fn share(&mut self, route: &mut Route) {
        route.effects = self.effects.share(&route.effects);
        route.origin.field = self.fields.share(&route.origin.field);
    }

    /// A route that was shared is gone.
    pub(crate) fn unshare(&mut self, route: &Route) {
        self.effects.remove(&route.effects);
        self.fields.remove(&route.origin.field);
    }
}

/// Counts how often each key is referred to, and keeps a value while it is.
#[derive(Debug)]
pub(crate) struct Counted<K, V>(HashMap<K, (usize, V)>);

impl<K, V> Default for Counted<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V> Counted<K, V> {
    /// One reference more; true for the first.
    pub(crate) fn add(&mut self, key: K, value: impl FnOnce() -> V) -> bool {
        let entry = self.0.entry(key).or_insert_with(|| (0, value()));
        entry.0 += 1;
        entry.0 == 1
    }

    /// One reference less; the value if it was the last.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.0.get_mut(key)?;
        entry.0 -= 1;
        if entry.0 > 0 { None } else { self.0.remove(key).map(|(_, value)| value) }
    }

    /// Whether nothing is referred to.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key that is referred to.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key).map(|(_, value)| value)
    }
}

/// Clusters by name, and the hosts that refer to each.
#[derive(Debug, Default)]
pub(crate) struct Backends(HashMap<Arc<str>, (Arc<Backend>, Users)>);

impl Backends {
    /// A host refers to a cluster; true if it is the first.
    pub(crate) fn add(&mut self, backend: &Arc<Backend>, host: &HostName) -> bool {
        match self.0.entry(backend.name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert((backend.clone(), Users::One(host.clone())));
                true
            }
            Entry::Occupied(mut entry) => {
                entry.get_mut().1.insert(host);
                false
            }
        }
    }

    /// A host refers to a cluster no more; the backend if it was the last.
    pub(crate) fn remove(&mut self, name: &str, host: &HostName) -> Option<Arc<Backend>> {
        let (_, users) = self.0.get_mut(name)?;
        match users {
            Users::One(one) if one != host => None,
            Users::One(_) => self.0.remove(name).map(|(backend, _)| backend),
            Users::Many(hosts) => {
                hosts.remove(host);
                if hosts.len() == 1
                    && let Some(last) = hosts.pop_last()
                {
                    *users = Users::One(last);
                }
                None
            }
        }
    }

    /// The backend of a cluster that is referred to.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Backend>> {
        self.0.get(name).map(|(backend, _)| backend)
    }

    /// The hosts that refer to a cluster.
    pub(crate) fn users(&self, name: &str) -> impl Iterator<Item = &HostName> {
        let (one, many) = match self.0.get(name) {
            None => (None, None),
            Some((_, Users::One(host))) => (Some(host), None),
            Some((_, Users::Many(hosts))) => (None, Some(hosts)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// Hosts of one cluster: mostly one.
#[derive(Debug)]
enum Users {
    One(HostName),
    Many(BTreeSet<HostName>),
}

impl Users {
    fn insert(&mut self, host: &HostName) {
        match self {
            Self::One(one) if one == host => {}
            Self::One(one) => *self = Self::Many(BTreeSet::from([one.clone(), host.clone()])),
            Self::Many(hosts) => drop(hosts.insert(host.clone())),
        }
    }
}

impl<K: Clone + Eq + Hash> Counted<K, ()> {
    /// One reference more; the equal key that was given first.
    fn share(&mut self, key: &K) -> K {
        self.add(key.clone(), || ());
        self.0.get_key_value(key).map_or_else(|| key.clone(), |(first, _)| first.clone())
    }
}
