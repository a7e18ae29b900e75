//! Which statuses are to be written. Pure: what was published, and what statuses hold, to writes.
//!
//! An object is looked at when it, what is said of it or the addresses have changed, and written when its status should
//! differ from what it holds. What others write later is not looked at, so that no two controllers overwrite each other
//! forever.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::address::Addresses;
use super::analysis::Analysis;
use super::policy;
use crate::compile::{Published, Subject};
use crate::crd::rate_limit_policy::RateLimitPolicyStatus;
use crate::values::{Finding, Kind, ObjectKey};

/// A status as far as it is ours to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Status {
    /// None of it.
    Nothing,
    /// Of an Ingress: where it is reached.
    Addresses(Addresses),
    /// Of a VirtualService: what was found.
    Analysis(Box<Analysis>),
    /// Of a RateLimitPolicy: whether it is accepted.
    Policy(Box<RateLimitPolicyStatus>),
}

impl Status {
    /// The value of `status` to apply: a field that is left out is taken away.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Nothing => json!({}),
            Self::Addresses(addresses) => json!({"loadBalancer": {"ingress": addresses}}),
            Self::Analysis(analysis) => json!(analysis),
            Self::Policy(status) => json!(status),
        }
    }
}

/// What is known of the status of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    /// `metadata.uid` of the object that has it.
    pub(super) uid: String,
    /// What it holds; none if a write has failed.
    pub(super) status: Option<Status>,
    /// Whether it was us who wrote it.
    pub(super) written: bool,
}

/// What is known of statuses.
pub(super) type KnownStatuses = HashMap<ObjectKey, Known>;

/// One status to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    /// The object.
    pub(super) key: ObjectKey,
    /// Its `metadata.uid`: another object of its name is not meant.
    pub(super) uid: String,
    /// What its status should hold.
    pub(super) status: Status,
}

/// Keeps what is known, and compares it with what should be.
#[derive(Debug)]
pub(super) struct Planner {
    known: KnownStatuses,
    subjects: OrdMap<ObjectKey, Subject>,
    findings: OrdMap<ObjectKey, Arc<[Finding]>>,
    addresses: Option<Addresses>,
    due: BTreeSet<ObjectKey>,
}

impl Planner {
    /// Begins with what statuses hold now.
    pub(super) fn new(known: KnownStatuses) -> Self {
        Self {
            known,
            subjects: OrdMap::new(),
            findings: OrdMap::new(),
            addresses: None,
            due: BTreeSet::new(),
        }
    }

    /// What to write now, each object once at most. Without addresses, which are not known yet, no Ingress is given any.
    pub(super) fn plan(
        &mut self,
        published: &Published,
        addresses: Option<&Addresses>,
        now: Timestamp,
    ) -> Vec<Write> {
        self.note(published, addresses);
        let due = std::mem::take(&mut self.due);
        due.into_iter().filter_map(|key| self.write(key, published, now)).collect()
    }

    /// A status could not be written: it is due again.
    pub(super) fn failed(&mut self, key: ObjectKey) {
        if let Some(known) = self.known.get_mut(&key) {
            known.status = None;
        }
        self.due.insert(key);
    }

    /// Notes whose status may have to change, at the cost of what has changed.
    fn note(&mut self, published: &Published, addresses: Option<&Addresses>) {
        let subjects = self.subjects.diff(&published.subjects).map(|item| key(&item).clone());
        let findings = self.findings.diff(&published.findings).map(|item| key(&item).clone());
        self.due.extend(subjects.chain(findings).filter(|key| has_status(key.kind)));
        if self.addresses.as_ref() != addresses {
            let keys = published.subjects.keys();
            self.due.extend(keys.filter(|key| key.kind == Kind::Ingress).cloned());
            self.addresses = addresses.cloned();
        }
        self.subjects = published.subjects.clone();
        self.findings = published.findings.clone();
    }

    fn write(&mut self, key: ObjectKey, published: &Published, now: Timestamp) -> Option<Write> {
        let Some(subject) = published.subjects.get(&key) else {
            self.known.remove(&key);
            return None;
        };
        let uid = subject.stored.object.metadata().uid.clone().unwrap_or_default();
        if self.known.get(&key).is_some_and(|known| known.uid != uid) {
            // Of an object that had the name before.
            self.known.remove(&key);
        }
        let known = self.known.get(&key);
        let status = self.status(&key, subject, published, known, now)?;
        let settled = match known {
            // What others wrote is theirs to take away.
            Some(known) if status == Status::Nothing && !known.written => true,
            Some(known) => known.status.as_ref() == Some(&status),
            None => status == Status::Nothing,
        };
        if settled {
            return None;
        }
        let known = Known { uid: uid.clone(), status: Some(status.clone()), written: true };
        self.known.insert(key.clone(), known);
        Some(Write { key, uid, status })
    }

    /// What the status should hold; none if that is not known yet.
    fn status(
        &self,
        key: &ObjectKey,
        subject: &Subject,
        published: &Published,
        known: Option<&Known>,
        now: Timestamp,
    ) -> Option<Status> {
        if !subject.ours {
            return Some(Status::Nothing);
        }
        if key.kind == Kind::Ingress {
            let addresses = self.addresses.clone()?;
            return Some(if addresses.is_empty() { Status::Nothing } else { Status::Addresses(addresses) });
        }
        let before = known.and_then(|known| known.status.as_ref());
        let findings = published.findings.get(key).map(|findings| &**findings).unwrap_or_default();
        let generation = subject.stored.object.metadata().generation.unwrap_or_default();
        if key.kind == Kind::RateLimitPolicy {
            let before = before.and_then(|before| match before {
                Status::Policy(status) => Some(&**status),
                _ => None,
            });
            return Some(Status::Policy(Box::new(policy::status(findings, generation, before, now))));
        }
        let before = before.and_then(|before| match before {
            Status::Analysis(analysis) => Some(&**analysis),
            _ => None,
        });
        Some(Status::Analysis(Box::new(Analysis::new(findings, generation, before, now))))
    }
}

/// Whether the status of objects of this kind is written.
pub(super) fn has_status(kind: Kind) -> bool {
    matches!(kind, Kind::Ingress | Kind::VirtualService | Kind::RateLimitPolicy)
}

/// What a difference of two maps is about.
pub(super) fn key<'a, V>(item: &DiffItem<'a, 'a, ObjectKey, V>) -> &'a ObjectKey {
    match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. } => key,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
