//! What hosts refer to, counted: it exists while somebody does.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::features::Effects;
use crate::model::limit::Limit;
use crate::model::{Backend, EndpointSetKey};

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
}

impl References {
    /// Equal effects that some host has already, or these.
    pub(crate) fn share(&mut self, effects: &Arc<Effects>) -> Arc<Effects> {
        self.effects.add(effects.clone(), || ());
        self.effects.key(effects).cloned().unwrap_or_else(|| effects.clone())
    }

    /// A route that shared these is gone.
    pub(crate) fn unshare(&mut self, effects: &Arc<Effects>) {
        self.effects.remove(effects);
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

    /// The key as it was given first.
    pub(crate) fn key(&self, key: &K) -> Option<&K> {
        self.0.get_key_value(key).map(|(key, _)| key)
    }

    /// The value of a key that is referred to.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key).map(|(_, value)| value)
    }
}
