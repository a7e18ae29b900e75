//! Findings as Events on their objects. Pure: what was published to Events, within bounds.
//!
//! A finding is told when it is there for the first time, and counted when it has been away and is there again. The name
//! of an Event follows from what it says, so that what an earlier leader told is not told anew.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use imbl::OrdMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::key;
use crate::compile::{Published, Subject};
use crate::source::kinds::WATCHED;
use crate::values::{Finding, ObjectKey, Severity, hash};

/// Who says so.
const COMPONENT: &str = "chancery";
/// The longest note that Kubernetes takes, in bytes.
const LONGEST: usize = 1024;
/// Events that one object may get at once, and how long one of them takes to come back: as Kubernetes' own recorder.
const OF_OBJECT: Rate = Rate { burst: 25.0, per_second: 1.0 / 300.0 };
/// The same for all objects together.
const OF_ALL: Rate = Rate { burst: 100.0, per_second: 50.0 };
/// How many findings that went away are remembered of an object.
const REMEMBERED: usize = 64;

/// One Event to write: a new one, or the next of a series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// What it is about, and says.
    pub(super) finding: Finding,
    /// `metadata.uid` of the object.
    uid: String,
    /// How often it was said; one is a new Event.
    pub(super) count: i32,
    first: Timestamp,
    last: Timestamp,
}

/// Remembers what was told.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    findings: OrdMap<ObjectKey, Arc<[Finding]>>,
    subjects: OrdMap<ObjectKey, Subject>,
    told: HashMap<ObjectKey, Told>,
    /// Objects with a finding that was not told yet.
    waiting: BTreeSet<ObjectKey>,
    bucket: Bucket,
}

/// What was told of one object.
#[derive(Debug, Default)]
struct Told {
    uid: String,
    said: HashMap<u64, Said>,
    bucket: Bucket,
}

#[derive(Clone, Debug)]
struct Said {
    count: i32,
    first: Timestamp,
    /// Whether the finding is still there.
    stands: bool,
}

impl Recorder {
    /// What to tell now.
    pub(super) fn plan(&mut self, published: &Published, now: Timestamp) -> Vec<Event> {
        let findings = self.findings.diff(&published.findings).map(|item| key(&item).clone());
        let subjects = self.subjects.diff(&published.subjects).map(|item| key(&item).clone());
        self.waiting.extend(findings.chain(subjects));
        self.findings = published.findings.clone();
        self.subjects = published.subjects.clone();
        let mut events = Vec::new();
        for key in std::mem::take(&mut self.waiting) {
            let Some(subject) = published.subjects.get(&key) else {
                self.told.remove(&key);
                continue;
            };
            let findings = published.findings.get(&key).map(|findings| &**findings).unwrap_or_default();
            if findings.is_empty() && !self.told.contains_key(&key) {
                continue;
            }
            let uid = subject.stored.object.metadata().uid.as_deref().unwrap_or_default();
            let told = self.told.entry(key.clone()).or_default();
            if told.uid != uid {
                *told = Told { uid: uid.to_owned(), ..Told::default() };
            }
            if !told.tell(findings, &mut self.bucket, now, &mut events) {
                self.waiting.insert(key);
            }
        }
        events
    }

    /// Whether something is left to tell when the bounds allow it.
    pub(super) fn holds_back(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// An Event could not be written: it is told again.
    pub(super) fn failed(&mut self, event: &Event) {
        let object = &event.finding.object;
        let told = self.told.get_mut(object).filter(|told| told.uid == event.uid);
        if let Some(said) = told.and_then(|told| told.said.get_mut(&event.hash())) {
            said.count -= 1;
            said.stands = false;
            self.waiting.insert(object.clone());
        }
    }
}

impl Told {
    /// Tells what is new, as far as the bounds allow; whether that was all.
    fn tell(
        &mut self,
        findings: &[Finding],
        all: &mut Bucket,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> bool {
        let hashes: Vec<u64> = findings.iter().map(|finding| fingerprint(&self.uid, finding)).collect();
        for (hash, said) in &mut self.said {
            said.stands &= hashes.contains(hash);
        }
        if self.said.len() > findings.len() + REMEMBERED {
            self.said.retain(|_, said| said.stands);
        }
        for (finding, hash) in findings.iter().zip(hashes) {
            let said = self.said.get(&hash);
            if said.is_some_and(|said| said.stands) {
                continue;
            }
            if !self.bucket.has(&OF_OBJECT, now) || !all.has(&OF_ALL, now) {
                return false;
            }
            self.bucket.take();
            all.take();
            let before = said.map_or((0, now), |said| (said.count, said.first));
            let said = Said { count: before.0.saturating_add(1), first: before.1, stands: true };
            events.push(Event {
                finding: finding.clone(),
                uid: self.uid.clone(),
                count: said.count,
                first: said.first,
                last: now,
            });
            self.said.insert(hash, said);
        }
        true
    }
}

fn fingerprint(uid: &str, finding: &Finding) -> u64 {
    hash::stable(&(uid, finding.severity.to_string(), finding.reason, &finding.field, &finding.message))
}

impl Event {
    fn hash(&self) -> u64 {
        fingerprint(&self.uid, &self.finding)
    }

    /// Its namespace: the object's, or that of objects without one.
    pub(super) fn namespace(&self) -> &str {
        match &*self.finding.object.namespace {
            "" => "default",
            namespace => namespace,
        }
    }

    /// Its name: the object's, cut so that it fits, and a hash of what is said.
    pub(super) fn name(&self) -> String {
        let object = &*self.finding.object.name;
        let fitting = object.get(..object.len().min(230)).unwrap_or_default().trim_end_matches(['.', '-']);
        format!("{fitting}.{:016x}", self.hash())
    }

    /// The whole Event, of `v1`.
    pub(super) fn to_json(&self, instance: &str) -> Value {
        let Finding { severity, object, reason, .. } = &self.finding;
        let watched = WATCHED.iter().find(|watched| watched.kind == object.kind);
        let kind = match severity {
            Severity::Error | Severity::Warning => "Warning",
            Severity::Info => "Normal",
        };
        let mut about = json!({
            "apiVersion": watched.map(|watched| watched.api_version()),
            "kind": object.kind.as_str(),
            "name": object.name,
            "uid": self.uid,
        });
        if object.kind.is_namespaced() {
            about["namespace"] = json!(object.namespace);
        }
        let mut value = self.next_of_series();
        value["apiVersion"] = json!("v1");
        value["kind"] = json!("Event");
        value["metadata"] = json!({"name": self.name(), "namespace": self.namespace()});
        value["involvedObject"] = about;
        value["type"] = json!(kind);
        value["reason"] = json!(reason);
        value["message"] = json!(shortened(self.finding.text()));
        value["firstTimestamp"] = json!(seconds(self.first));
        value["source"] = json!({"component": COMPONENT});
        value["reportingComponent"] = json!(COMPONENT);
        value["reportingInstance"] = json!(instance);
        value
    }

    /// What changes in an Event when it is said again.
    pub(super) fn next_of_series(&self) -> Value {
        json!({"count": self.count, "lastTimestamp": seconds(self.last)})
    }
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST - 3).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

/// How fast tokens come back, and how many there are at most.
#[derive(Debug)]
struct Rate {
    burst: f64,
    per_second: f64,
}

/// A token bucket, full at first.
#[derive(Debug, Default)]
struct Bucket {
    taken: f64,
    seen: Option<Timestamp>,
}

impl Bucket {
    fn has(&mut self, rate: &Rate, now: Timestamp) -> bool {
        let passed = self.seen.map_or(0.0, |seen| now.duration_since(seen).as_secs_f64().max(0.0));
        self.seen = Some(now);
        self.taken = (self.taken - passed * rate.per_second).max(0.0);
        self.taken + 1.0 <= rate.burst
    }

    fn take(&mut self) {
        self.taken += 1.0;
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
