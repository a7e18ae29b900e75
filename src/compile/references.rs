//! What hosts refer to, counted: it exists while somebody does.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::features::Effects;
use crate::model::limit::Limit;
use crate::model::{Backend, EndpointSetKey, Route, SecretRef};
use crate::translate;
use crate::values::certificate::Checked;
use crate::xds::Resource;

/// References by kind.
#[derive(Debug, Default)]
pub(crate) struct References {
    /// Clusters by name, each with its backend, which hosts share.
    pub(crate) backends: Counted<Arc<str>, Arc<Backend>>,
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

    /// What routes have in common with those of other hosts becomes one in memory.
    pub(crate) fn share(&mut self, routes: &mut [Route]) {
        self.effects.share_runs(routes.iter_mut().map(|route| &mut route.effects));
        self.fields.share_runs(routes.iter_mut().map(|route| &mut route.origin.field));
    }

    /// Routes that were shared are gone.
    pub(crate) fn unshare(&mut self, routes: &[Route]) {
        self.effects.unshare_runs(routes.iter().map(|route| &route.effects));
        self.fields.unshare_runs(routes.iter().map(|route| &route.origin.field));
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
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).map(|(_, value)| value)
    }

    /// The value of a key that is referred to.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key).map(|(_, value)| value)
    }
}

/// Neighbours that are one in memory count once: a host's routes mostly have the effects of one Ingress.
impl<T: Eq + Hash + ?Sized> Counted<Arc<T>, ()> {
    fn share_runs<'r>(&mut self, values: impl Iterator<Item = &'r mut Arc<T>>)
    where
        T: 'r,
    {
        let mut last: Option<(Arc<T>, Arc<T>)> = None;
        for value in values {
            if let Some((_, shared)) = last.as_ref().filter(|(given, _)| Arc::ptr_eq(given, value)) {
                *value = shared.clone();
                continue;
            }
            let shared = self.share(value);
            if last.as_ref().is_some_and(|(_, last)| Arc::ptr_eq(last, &shared)) {
                self.remove(&shared);
            }
            let given = std::mem::replace(value, shared.clone());
            last = Some((given, shared));
        }
    }

    fn unshare_runs<'r>(&mut self, values: impl Iterator<Item = &'r Arc<T>>)
    where
        T: 'r,
    {
        let mut last: Option<&Arc<T>> = None;
        for value in values {
            if last.is_none_or(|last| !Arc::ptr_eq(last, value)) {
                self.remove(value);
            }
            last = Some(value);
        }
    }

    /// One reference more; the equal key that was given first.
    fn share(&mut self, key: &Arc<T>) -> Arc<T> {
        self.add(key.clone(), || ());
        self.0.get_key_value(key).map_or_else(|| key.clone(), |(first, _)| first.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shared is given back in full, whichever neighbours were one in memory to begin with.
    #[test]
    fn what_is_shared_is_given_back() {
        let one: Arc<str> = "one".into();
        let mut given: Vec<Arc<str>> =
            vec![one.clone(), one, "one".into(), "two".into(), "one".into(), "one".into(), "two".into()];
        let mut counted = Counted::default();
        for _ in 0..2 {
            counted.share_runs(given.iter_mut());
        }
        for value in &given {
            assert!(given.iter().all(|other| Arc::ptr_eq(value, other) == (value == other)));
        }
        counted.unshare_runs(given.iter());
        assert!(!counted.is_empty());
        counted.unshare_runs(given.iter());
        assert!(counted.is_empty());
    }
}
