//! What has been decided so far, by limit: for the debug endpoint and the metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use serde::Serialize;

use super::counters::StoreState;
use super::counters::memory::Usage;
use crate::model::limit::{Limit, LimitSet};

/// Limits no longer in force whose counts may be kept; they go when there are more.
const SPARE: usize = 1_024;

/// Counts of decisions since the service started.
#[derive(Debug, Default)]
pub struct Decisions {
    limits: DashMap<Arc<str>, Tally>,
    allowed: AtomicU64,
    denied: AtomicU64,
    unknown: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Tally {
    allowed: AtomicU64,
    denied: AtomicU64,
}

/// Decisions and limits as the debug endpoint shows them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Requests let through and refused.
    pub totals: Totals,
    /// Every limit in force, ordered by id.
    pub limits: Vec<LimitReport>,
    /// The counters in this process.
    pub counters: Usage,
    /// Where they are kept.
    pub store: StoreState,
}

/// Decisions of the whole service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

/// A limit and its decisions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitReport {
    /// The limit.
    #[serde(flatten)]
    pub limit: Limit,
    /// Descriptors whose hits were charged.
    pub allowed: u64,
    /// Descriptors that this limit refused.
    pub denied: u64,
}

impl Decisions {
    /// Counts the outcome of one descriptor of one of `limits`.
    pub(super) fn count_limit(&self, limits: &LimitSet, id: &Arc<str>, allowed: bool) {
        let add = |tally: &Tally| {
            let counter = if allowed { &tally.allowed } else { &tally.denied };
            counter.fetch_add(1, Ordering::Relaxed);
        };
        if let Some(tally) = self.limits.get(id) {
            return add(&tally);
        }
        if self.limits.len() > 2 * limits.len() + SPARE {
            self.limits.retain(|id, _| limits.get(id).is_some());
        }
        add(&self.limits.entry(id.clone()).or_default());
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

    /// All that is known, for these limits.
    #[must_use]
    pub fn report(&self, limits: &LimitSet, counters: Usage, store: StoreState) -> Report {
        let report = |limit: &Limit| {
            let tally = self.limits.get(&limit.id);
            let read = |pick: fn(&Tally) -> &AtomicU64| {
                tally.as_ref().map_or(0, |t| pick(t).load(Ordering::Relaxed))
            };
            LimitReport {
                limit: limit.clone(),
                allowed: read(|tally| &tally.allowed),
                denied: read(|tally| &tally.denied),
            }
        };
        Report { totals: self.totals(), limits: limits.iter().map(report).collect(), counters, store }
    }
}
