//! What hosts refer to, counted: it exists while somebody does.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::features::Effects;
use crate::model::limit::Limit;
use crate::model::{Backend, EndpointSetKey, Route};

/// References by kind.
#[derive(Debug, Default)]
pub(crate) struct References {
    /// Clusters by name, each with its backend, which hosts share.
    pub(crate) backends: Counted<Arc<str>, Arc<Backend>>,
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

    /// The value of a key that is referred to.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).map(|(_, value)| value)
    }
}

impl<K: Clone + Eq + Hash> Counted<K, ()> {
    /// One reference more; the equal key that was given first.
    fn share(&mut self, key: &K) -> K {
        self.add(key.clone(), || ());
        self.0.get_key_value(key).map_or_else(|| key.clone(), |(first, _)| first.clone())
    }
}
