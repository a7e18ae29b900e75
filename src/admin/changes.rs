//! The latest changes: which object, when it was seen to change, when Envoys were sent what follows and had it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State as Extract;
use serde::Serialize;

use super::State;
use super::metrics::Metrics;
use crate::compile::Event;
use crate::fleet::{Fleet, Timing};
use crate::values::ObjectKey;

/// How many changes are remembered.
const REMEMBERED: usize = 1_000;

/// The latest changes. A clone is another handle to the same.
#[derive(Clone)]
pub struct Changes(Arc<Inner>);

struct Inner {
    fleet: Fleet,
    metrics: Metrics,
    latest: Mutex<VecDeque<Record>>,
}

struct Record {
    object: ObjectKey,
    event: Event,
    at: SystemTime,
    published: SystemTime,
    /// The snapshot that has what follows; none if nothing did.
    sequence: Option<u64>,
    /// Whether its latencies are in the metrics.
    measured: bool,
}

impl Changes {
    /// Without any change. Latencies go to `metrics`; when Envoys had what follows comes from `fleet`.
    pub fn new(fleet: Fleet, metrics: Metrics) -> Self {
        Self(Arc::new(Inner { fleet, metrics, latest: Mutex::default() }))
    }

    /// Notes changes that were compiled together. `at` is when the first of them was seen, `published` when the
    /// snapshot was that has what follows, `sequence` the number of that snapshot; none if it is the one before.
    pub fn record(
        &self,
        changes: impl IntoIterator<Item = (ObjectKey, Event)>,
        at: SystemTime,
        published: SystemTime,
        sequence: Option<u64>,
    ) {
        let mut latest = self.latest();
        for (object, event) in changes {
            self.0.metrics.count_change(object.kind, event);
            if latest.len() >= REMEMBERED
                && let Some(mut oldest) = latest.pop_front()
            {
                self.measure(&mut oldest);
            }
            latest.push_back(Record { object, event, at, published, sequence, measured: false });
        }
    }

    /// Puts into the metrics what Envoys have acknowledged since the last call.
    pub(super) fn measure_all(&self) {
        let mut latest = self.latest();
        latest.iter_mut().for_each(|record| self.measure(record));
    }

    /// A change is measured once, when every Envoy that was there has acknowledged what follows: the slowest counts.
    fn measure(&self, record: &mut Record) {
        let Some(sequence) = record.sequence.filter(|_| !record.measured) else { return };
        if let Some((sent, acked)) = self.0.fleet.slowest(sequence) {
            self.0.metrics.observe_change(since(record.at, sent), since(record.at, acked));
            record.measured = true;
        }
    }

    fn latest(&self) -> MutexGuard<'_, VecDeque<Record>> {
        // Records are whole whatever happened to another holder of the lock.
        self.0.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) -> Vec<Change> {
        let mut timings: HashMap<u64, Vec<Timing>> = HashMap::new();
        let report = |record: &Record| {
            let envoys = record.sequence.map(|sequence| {
                timings.entry(sequence).or_insert_with(|| self.0.fleet.timings(sequence)).clone()
            });
            Change::new(record, envoys.unwrap_or_default())
        };
        self.latest().iter().rev().map(report).collect()
    }
}

/// A clock that was set back makes no negative latency.
fn since(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

/// One change as it is shown.
#[derive(Serialize)]
struct Change {
    object: String,
    event: Event,
    at: String,
    /// Milliseconds until the snapshot was published.
    published_ms: f64,
    sequence: Option<u64>,
    envoys: Vec<Reached>,
}

/// When an Envoy had what follows, in milliseconds after the event.
#[derive(Serialize)]
struct Reached {
    stream: u64,
    id: String,
    sent_ms: Option<f64>,
    acked_ms: Option<f64>,
}

impl Change {
    fn new(record: &Record, timings: Vec<Timing>) -> Self {
        // To the microsecond.
        let after = |time: SystemTime| (since(record.at, time).as_secs_f64() * 1_000_000.0).round() / 1_000.0;
        let reached = |timing: Timing| Reached {
            stream: timing.stream,
            id: timing.id,
            sent_ms: timing.sent.map(after),
            acked_ms: timing.acked.map(after),
        };
        Self {
            object: record.object.to_string(),
            event: record.event,
            at: jiff::Timestamp::try_from(record.at).map(|at| at.to_string()).unwrap_or_default(),
            published_ms: after(record.published),
            sequence: record.sequence,
            envoys: timings.into_iter().map(reached).collect(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Latest {
    changes: Vec<Change>,
}

/// The latest changes, the last first.
pub(super) async fn changes(Extract(state): Extract<State>) -> Json<Latest> {
    Json(Latest { changes: state.changes.report() })
}
