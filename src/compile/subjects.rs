//! The objects that something is written back about.

use std::sync::Arc;

use super::Compiler;
use crate::store::Stored;
use crate::values::{Kind, ObjectKey};

/// An object that has a status, or of which there is something to say.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The object as it is now.
    pub stored: Arc<Stored>,
    /// Whether it is ours to serve: an Ingress may be another controller's.
    pub ours: bool,
}

/// Unchanged ones are one in memory.
impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        self.ours == other.ours && (Arc::ptr_eq(&self.stored, &other.stored) || self.stored == other.stored)
    }
}

/// Whether objects of this kind are subjects though nothing is said of them.
pub(super) fn is_always(kind: Kind) -> bool {
    matches!(kind, Kind::Ingress | Kind::VirtualService | Kind::RateLimitPolicy)
}

impl Compiler {
    /// Publishes what there is to say, and the objects that it is said of.
    pub(super) fn publish_findings(&mut self) {
        let (findings, mut changed) = self.compiled.ledger.publish();
        changed.extend(self.events.iter().map(|(key, _)| key.clone()));
        for key in changed.into_iter().filter(|key| !is_always(key.kind)) {
            self.set_subject(key, &findings);
        }
        self.compiled.published.findings = findings;
    }

    fn set_subject<T>(&mut self, key: ObjectKey, findings: &imbl::OrdMap<ObjectKey, T>) {
        match self.store.get(&key).filter(|_| findings.contains_key(&key)) {
            Some(stored) => {
                let subject = Subject { stored: stored.clone(), ours: true };
                self.compiled.published.subjects.insert(key, subject);
            }
            None => {
                self.compiled.published.subjects.remove(&key);
            }
        }
    }
}
