//! Watch events of a kind to changes. Pure.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use kube::runtime::watcher::Event;

use super::raw::Raw;
use crate::source::kinds::Watched;
use crate::store::{Change, Stored};
use crate::values::{Age, Finding, Findings, ObjectKey};

/// What has to be remembered of a kind between events.
#[derive(Debug)]
pub(super) struct Changes {
    watched: &'static Watched,
    /// What the list that is under way has named.
    listing: Vec<ObjectKey>,
    /// Objects that cannot be read, of which a finding was told.
    broken: BTreeSet<ObjectKey>,
    /// What there is, where this watch sees only a part of the kind's objects.
    part: Option<HashSet<ObjectKey>>,
    listed: Listed,
}

#[derive(Debug, PartialEq, Eq)]
enum Listed {
    Never,
    JustNow,
    Before,
}

impl Changes {
    /// For all objects of a kind, or for a part of them.
    pub(super) fn new(watched: &'static Watched, part: bool) -> Self {
        let part = part.then(HashSet::new);
        Self { watched, listing: Vec::new(), broken: BTreeSet::new(), part, listed: Listed::Never }
    }

    /// Whether there was a whole list.
    pub(super) fn is_listed(&self) -> bool {
        self.listed != Listed::Never
    }

    /// Whether there is a whole list for the first time. True once.
    pub(super) fn listed_first(&mut self) -> bool {
        let first = self.listed == Listed::JustNow;
        if first {
            self.listed = Listed::Before;
        }
        first
    }

    /// Takes an event in.
    pub(super) fn event(&mut self, event: Event<Raw>, changes: &mut Vec<Change>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(raw) => {
                self.listing.push(self.key(&raw));
                self.apply(raw, changes);
            }
            Event::InitDone => self.listed(changes),
            Event::Apply(raw) => self.apply(raw, changes),
            Event::Delete(raw) => {
                let key = self.key(&raw);
                self.delete(key, changes);
            }
        }
    }

    fn listed(&mut self, changes: &mut Vec<Change>) {
        let listing = std::mem::take(&mut self.listing);
        if let Some(part) = &self.part {
            // What others see is not gone because it is not in this list.
            let here: HashSet<_> = listing.iter().collect();
            let gone: Vec<_> = part.iter().filter(|key| !here.contains(key)).cloned().collect();
            gone.into_iter().for_each(|key| self.delete(key, changes));
        } else {
            let gone: Vec<_> = self.broken.iter().filter(|key| !listing.contains(key)).cloned().collect();
            gone.iter().for_each(|key| self.mend(key, changes));
            changes.push(Change::Listed(self.watched.kind, listing));
        }
        if self.listed == Listed::Never {
            self.listed = Listed::JustNow;
        }
    }

    fn delete(&mut self, key: ObjectKey, changes: &mut Vec<Change>) {
        self.mend(&key, changes);
        if let Some(part) = &mut self.part {
            part.remove(&key);
        }
        changes.push(Change::Deleted(key));
    }

    fn key(&self, raw: &Raw) -> ObjectKey {
        ObjectKey::new(self.watched.kind, raw.namespace(), raw.name())
    }

    fn apply(&mut self, raw: Raw, changes: &mut Vec<Change>) {
        let key = self.key(&raw);
        if let Some(part) = &mut self.part {
            part.insert(key.clone());
        }
        match raw.read(self.watched) {
            Ok(object) => {
                self.mend(&key, changes);
                let created = object.metadata().creation_timestamp.as_ref().map(|time| time.0.as_second());
                let age = Age { created, position: Arc::default() };
                changes.push(Change::Applied(Arc::new(Stored::new(object, age, Vec::new()))));
            }
            Err(error) => {
                let mut findings = Findings::default();
                let message = format!("{}; what was read of it before stays in force", error.message);
                findings.error(&key, error.field, "Malformed", message);
                changes.push(told(&key, findings.into_vec()));
                self.broken.insert(key);
            }
        }
    }

    /// Takes back what was said of an object.
    fn mend(&mut self, key: &ObjectKey, changes: &mut Vec<Change>) {
        if self.broken.remove(key) {
            changes.push(told(key, Vec::new()));
        }
    }
}

fn told(key: &ObjectKey, findings: Vec<Finding>) -> Change {
    Change::Findings { place: key.to_string().into(), findings }
}
