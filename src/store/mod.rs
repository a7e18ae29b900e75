//! Objects by key, a few indexes, and the recording view through which pure code reads them.

mod index;
mod object;
pub mod secret;
mod view;

pub(crate) use index::is_ready;
pub use object::{Object, Stored};
pub use view::{Read, View};

use std::sync::Arc;

use hashbrown::HashMap;
use index::Indexes;

use crate::values::{Finding, Kind, ObjectKey};

/// What a source says happened.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object was created or changed.
    Applied(Arc<Stored>),
    /// An object is gone.
    Deleted(ObjectKey),
    /// A kind was listed anew: objects of the kind that are not in the list are gone.
    Listed(Kind, Vec<ObjectKey>),
    /// What a source has to say about a place of its own (a file), replacing what it said of that place before.
    Findings {
        /// The place, such as a file's path.
        place: Arc<str>,
        /// Empty when there is nothing to say any more.
        findings: Vec<Finding>,
    },
    /// Every source has been read in full once: the first snapshot may be built.
    Ready,
}

/// All objects, and the indexes over them. One task owns and writes it.
#[derive(Debug)]
pub struct Store {
    objects: HashMap<ObjectKey, Arc<Stored>>,
    indexes: Indexes,
}

impl Store {
    /// An empty one. The cluster's DNS domain is what short hosts of VirtualServices end in.
    pub fn new(cluster_domain: &str) -> Self {
        let indexes = Indexes { cluster_domain: cluster_domain.into(), ..Indexes::default() };
        Self { objects: HashMap::new(), indexes }
    }

    /// Puts an object in; answers what readers may have seen differently: nothing if it was there in just this form.
    pub fn apply(&mut self, new: Arc<Stored>) -> Vec<Read> {
        let key = new.key.clone();
        let old = self.objects.get(&key);
        if old.is_some_and(|old| *old == new) {
            return Vec::new();
        }
        let old = self.objects.insert(key.clone(), new.clone());
        let mut touched = self.indexes.replace(&key, old.as_deref(), Some(&new));
        touched.push(Read::Object(key));
        touched
    }

    /// Takes an object out; answers what readers may have seen differently: nothing if it was not there.
    pub fn delete(&mut self, key: &ObjectKey) -> Vec<Read> {
        let Some(old) = self.objects.remove(key) else { return Vec::new() };
        let mut touched = self.indexes.replace(key, Some(&old), None);
        touched.push(Read::Object(key.clone()));
        touched
    }

    /// The keys of a kind that are not in the list, which a new listing has shown to be gone.
    pub fn missing_from(&self, kind: Kind, listed: &[ObjectKey]) -> Vec<ObjectKey> {
        let listed: std::collections::HashSet<_> = listed.iter().collect();
        self.objects.keys().filter(|key| key.kind == kind && !listed.contains(key)).cloned().collect()
    }

    /// An object, unrecorded: for shells, not for pure functions.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Stored>> {
        self.objects.get(key)
    }

    /// Whether any routing object names a host.
    pub fn names_host(&self, host: &crate::values::HostName) -> bool {
        self.indexes.routing.contains_key(host)
    }

    /// Every object, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Stored>)> {
        self.objects.iter()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}
