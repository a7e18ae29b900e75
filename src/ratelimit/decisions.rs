//! What has been decided so far, by limit and by key: for the debug endpoint and the metrics.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::counters::{Ask, Hits, Outcome, Role};
use super::top::TopKeys;
use crate::model::limit::{Algorithm, LimitSet};

/// Limits no longer in force whose counts may be kept; they go when there are more.
const SPARE: usize = 1_024;

/// Limits that metrics tell apart: the first so many by which something was decided.
pub(super) const LABELLED: usize = 100;

/// Counts of decisions since the service started.
#[derive(Debug)]
pub struct Decisions {
    limits: DashMap<Arc<str>, Arc<Tally>>,
    /// How many limits metrics tell apart.
    labelled: AtomicUsize,
    /// Those that they do not, together.
    others: Counts,
    allowed: AtomicU64,
    denied: AtomicU64,
    unknown: AtomicU64,
    failed: AtomicU64,
    pub(super) took: Histogram,
    pub(super) top: TopKeys,
}

impl Default for Decisions {
    fn default() -> Self {
        Self {
            limits: DashMap::new(),
            labelled: AtomicUsize::new(0),
            others: Counts::default(),
            allowed: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            // 2 µs to 65 ms.
            took: Histogram::new(exponential_buckets(0.000_002, 2.0, 16)),
            top: TopKeys::default(),
        }
    }
}

/// Decisions by one limit.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: Counts,
    /// Whether metrics tell it apart; known with its first decision.
    labelled: OnceLock<bool>,
}

#[derive(Debug, Default)]
struct Counts {
    allowed: AtomicU64,
    denied: AtomicU64,
    shadowed: AtomicU64,
}

/// How often a limit decided what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Decided {
    /// Descriptors whose hits were charged.
    pub allowed: u64,
    /// Descriptors that it refused.
    pub denied: u64,
    /// Descriptors that it would have refused, were it not in shadow.
    pub shadowed: u64,
}

/// Decisions of the whole service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Requests let through.
    pub allowed: u64,
    /// Requests refused.
    pub denied: u64,
    /// Descriptors that named no limit in force; they are let through.
    pub unknown: u64,
    /// Requests that could not be decided, since the counter store was not available.
    pub failed: u64,
}

impl Counts {
    fn add(&self, allowed: bool, role: Role) {
        let counter = match (allowed, role) {
            (true, _) => &self.allowed,
            (false, Role::Shadow) => &self.shadowed,
            (false, Role::Binding | Role::Quota(_)) => &self.denied,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Decided {
        let counters = [&self.allowed, &self.denied, &self.shadowed];
        let [allowed, denied, shadowed] = counters.map(|counter| counter.load(Ordering::Relaxed));
        Decided { allowed, denied, shadowed }
    }
}

impl Tally {
    pub(super) fn read(&self) -> Decided {
        self.counts.read()
    }

    /// Whether metrics tell it apart; not so one that has decided nothing.
    pub(super) fn is_labelled(&self) -> bool {
        self.labelled.get() == Some(&true)
    }
}

impl Decisions {
    /// Counts the outcome of one descriptor of one of `limits`, by the rate that was told for it, if one was.
    pub(super) fn count_ours(
        &self,
        limits: &LimitSet,
        ask: &Ask<'_>,
        outcome: &Outcome,
        told: Option<Algorithm>,
    ) {
        let id = &ask.limit.id;
        if let Some(tally) = self.limits.get(id) {
            return self.count_key(&tally, ask, outcome, told);
        }
        if self.limits.len() > 2 * limits.len() + SPARE {
            self.limits.retain(|id, tally| {
                let stays = limits.get(id).is_some();
                if !stays && tally.is_labelled() {
                    self.labelled.fetch_sub(1, Ordering::Relaxed);
                }
                stays
            });
        }
        let tally = self.limits.entry(id.clone()).or_default().clone();
        self.count_key(&tally, ask, outcome, told);
    }

    /// Counts the outcome of one descriptor, by the tally of its limit.
    pub(super) fn count(&self, tally: &Tally, ask: &Ask<'_>, outcome: &Outcome) {
        self.count_key(tally, ask, outcome, None);
    }

    fn count_key(&self, tally: &Tally, ask: &Ask<'_>, outcome: &Outcome, told: Option<Algorithm>) {
        self.count_tally(tally, outcome.allowed, ask.role);
        if let Hits::Take(hits) | Hits::Charge(hits) = ask.hits {
            self.top.count(&ask.limit.id, ask.key, hits, !outcome.allowed, told);
        }
    }

    /// Counts one descriptor by the tally of its limit, and no key.
    pub(super) fn count_tally(&self, tally: &Tally, allowed: bool, role: Role) {
        tally.counts.add(allowed, role);
        let first = || self.labelled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        if !tally.labelled.get_or_init(first) {
            self.others.add(allowed, role);
        }
    }

    /// Counts one request's outcome.
    pub(super) fn count_request(&self, allowed: bool) {
        let counter = if allowed { &self.allowed } else { &self.denied };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one descriptor that named no limit in force.
    pub(super) fn count_unknown(&self) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one request that could not be decided.
    pub(super) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes how long a decision took.
    pub(super) fn observe(&self, took: Duration) {
        self.took.observe(took.as_secs_f64());
    }

    /// Decisions of the whole service.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            allowed: read(&self.allowed),
            denied: read(&self.denied),
            unknown: read(&self.unknown),
            failed: read(&self.failed),
        }
    }

    /// What the limit of this id decided.
    #[must_use]
    pub fn of(&self, limit: &str) -> Decided {
        self.limits.get(limit).map_or_else(Decided::default, |tally| tally.read())
    }

    /// The limits that metrics tell apart, and what the others decided together.
    pub(super) fn labelled(&self) -> (Vec<(Arc<str>, Decided)>, Decided) {
        let labelled = self.limits.iter().filter(|tally| tally.is_labelled());
        let mut labelled: Vec<_> = labelled.map(|tally| (tally.key().clone(), tally.read())).collect();
        labelled.sort_by(|a, b| a.0.cmp(&b.0));
        (labelled, self.others.read())
    }
}

fn one_more(labelled: usize) -> Option<usize> {
    (labelled < LABELLED).then_some(labelled + 1)
}
