//! What envoyproxy/ratelimit counts, under the names that its Prometheus sink and the mapping of its statsd exporter give
//! it, so that dashboards that were made for it go on.
//!
//! Labels are of what is configured: the domain and the first two keys of a rule, as its mapping has them. Of the rules by which
//! something was decided the first thousand are told apart; the others are `other` together. What a client sends is in them only
//! where a rule says so ([`super::names`]), and as long as there is room.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;
use regex::{Captures, Regex};

use super::names::Names;
use super::{Rule, Rules};
use crate::exposition::{Labels, plain};
use crate::ratelimit::counters::Outcome;
use crate::ratelimit::decisions::Decisions;

/// Rules that are told apart.
const LABELLED: usize = 1_000;

/// What rules that are not told apart are called.
const OTHER: &str = "other";

/// The counts of a rule.
const NAMES: [&str; 5] = ["total_hits", "over_limit", "near_limit", "within_limit", "shadow_mode"];

/// The part of a limit from which on it is near.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NearLimitRatio(pub f32);

impl Default for NearLimitRatio {
    fn default() -> Self {
        Self(0.8)
    }
}

impl NearLimitRatio {
    /// The last hit that is not near, rounded as there.
    fn of(self, limit: u32) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "is what it does there")]
        let near = limit as f32 * self.0;
        near.floor() as u64
    }
}

/// Hits by a rule.
#[derive(Debug, Default)]
pub(in crate::ratelimit) struct Hits {
    counts: [AtomicU64; 5],
    /// Whether it is told apart; known with its first hit.
    labelled: OnceLock<bool>,
}

impl Hits {
    pub(super) fn add(&self, hits: &[u64; 5]) {
        for (count, hits) in self.counts.iter().zip(hits).filter(|(_, hits)| **hits > 0) {
            count.fetch_add(*hits, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> [u64; 5] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn is_labelled(&self) -> bool {
        self.labelled.get() == Some(&true)
    }
}

/// All that is counted beside each rule's own hits; outlives their changes.
#[derive(Debug, Default)]
pub(in crate::ratelimit) struct Stats {
    loaded: AtomicU64,
    not_loaded: AtomicU64,
    shadowed: AtomicU64,
    invalid: AtomicU64,
    labelled: AtomicUsize,
    others: Hits,
    names: Names,
}

impl Stats {
    /// Rules were taken.
    pub(in crate::ratelimit) fn loaded(&self) {
        self.loaded.fetch_add(1, Ordering::Relaxed);
    }

    /// What was to be rules was wrong.
    pub(in crate::ratelimit) fn not_loaded(&self) {
        self.not_loaded.fetch_add(1, Ordering::Relaxed);
    }

    /// How often they were, and how often they were wrong.
    pub(in crate::ratelimit) fn loads(&self) -> (u64, u64) {
        (self.loaded.load(Ordering::Relaxed), self.not_loaded.load(Ordering::Relaxed))
    }

    /// A request was let through that would have been refused, did the service refuse any.
    pub(in crate::ratelimit) fn shadowed(&self) {
        self.shadowed.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was none that can be decided.
    pub(in crate::ratelimit) fn invalid(&self) {
        self.invalid.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes room where rules have gone.
    pub(super) fn keep(&self, rules: &Rules) {
        let labelled = rules.iter().filter(|rule| rule.counts.hits.is_labelled()).count();
        self.labelled.store(labelled, Ordering::Relaxed);
        let naming = rules.iter().filter(|rule| rule.naming().is_some());
        self.names.keep(&naming.map(|rule| &*rule.path).collect::<HashSet<_>>());
    }

    /// Counts hits of a rule by a request's entries.
    pub(in crate::ratelimit) fn count(&self, rule: &Rule, entries: &[Entry], hits: &[u64; 5]) {
        if rule.naming().is_some_and(|naming| self.names.count(naming, &rule.path, entries, hits)) {
            return;
        }
        rule.counts.hits.add(hits);
        let one_more = |labelled| (labelled < LABELLED).then_some(labelled + 1);
        let first = || self.labelled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        if !rule.counts.hits.labelled.get_or_init(first) {
            self.others.add(hits);
        }
    }
}

/// What so many hits are to a rule, in the order of the names. `charged` says whether the outcome is after them. What is
/// refused is over the limit with all its hits, since none of them is charged.
pub(in crate::ratelimit) fn hits(
    rule: &Rule,
    hits: u64,
    outcome: &Outcome,
    charged: bool,
    ratio: NearLimitRatio,
) -> [u64; 5] {
    if !outcome.allowed {
        return [hits, hits, 0, 0, if rule.shadow { hits } else { 0 }];
    }
    let limit = rule.limit.algorithm.quota().0;
    let used = u64::from(limit).saturating_sub(outcome.remaining);
    let after = if charged { used } else { used.saturating_add(hits) };
    let near = after.saturating_sub(ratio.of(limit)).min(hits);
    [hits, 0, near, hits, 0]
}

/// Everything, if there are rules that come from elsewhere.
///
/// # Errors
/// When the text cannot be written.
pub(in crate::ratelimit) fn encode(
    encoder: &mut DescriptorEncoder,
    rules: &Rules,
    decisions: &Decisions,
) -> fmt::Result {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let stats = &*rules.stats;
    let (loaded, not_loaded) = stats.loads();
    if loaded + not_loaded == 0 {
        return Ok(());
    }
    by_rule(encoder, rules)?;
    let totals = decisions.totals();
    let errors = [("redis_error", totals.failed), ("service_error", read(&stats.invalid))];
    let errors = errors.map(|(kind, count)| ([("err_type", kind.to_owned())], count));
    let help = "Requests that could not be decided";
    plain(encoder, "ratelimit_service_should_rate_limit_error", help, errors)?;
    let one = |count| -> [(Labels<0>, u64); 1] { [([], count)] };
    let help = "Requests let through since the service refuses none";
    plain(encoder, "ratelimit_service_global_shadow_mode", help, one(read(&stats.shadowed)))?;
    plain(encoder, "ratelimit_service_config_load_success", "Rules taken", one(loaded))?;
    plain(encoder, "ratelimit_service_config_load_error", "Rules refused", one(not_loaded))?;
    let requests = totals.allowed + totals.denied + totals.failed + read(&stats.invalid);
    let method = [("grpc_method", "ShouldRateLimit".to_owned())];
    let requests = [(method.clone(), requests)];
    plain(encoder, "ratelimit_service_total_requests", "Requests", requests)?;
    let mut took = encoder.encode_descriptor(
        "ratelimit_service_response_time",
        "Time to decide on a request",
        Some(&Unit::Seconds),
        Histogram::TYPE,
    )?;
    decisions.took.encode(took.encode_family(&method)?)
}

fn by_rule(encoder: &mut DescriptorEncoder, rules: &Rules) -> fmt::Result {
    let mut places: BTreeMap<[String; 3], [u64; 5]> = BTreeMap::new();
    let labelled = rules.iter().filter(|rule| rule.counts.hits.is_labelled());
    let others = ([OTHER, "", ""].map(str::to_owned), rules.stats.others.read());
    let names = rules.stats.names.read();
    let named = names.iter().map(|(name, hits)| (place(name), *hits));
    let all = labelled.map(|rule| (place(&rule.path), rule.counts.hits.read())).chain([others]).chain(named);
    // Rules that differ further down are one there.
    for (place, hits) in all.filter(|(_, hits)| *hits != [0; 5]) {
        let sums = places.entry(place).or_default();
        *sums = std::array::from_fn(|count| sums[count] + hits[count]);
    }
    for (count, name) in NAMES.into_iter().enumerate() {
        let labels = |[domain, key1, key2]: &[String; 3]| -> Labels<3> {
            [("domain", domain.clone()), ("key1", key1.clone()), ("key2", key2.clone())]
        };
        let values = places.iter().map(|(place, hits)| (labels(place), hits[count]));
        plain(encoder, &format!("ratelimit_service_rate_limit_{name}"), "Hits by rule", values)?;
    }
    Ok(())
}

/// The domain and the first two keys of a rule's place, as its mapping tells them: at dots, but for those of an IPv4 address.
fn place(path: &str) -> [String; 3] {
    static IPV4: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}").expect("a regular expression")
    });
    let path = path.replace([':', '|'], "_");
    let path = IPV4.replace_all(&path, |ip: &Captures<'_>| ip[0].replace('.', "_"));
    let mut parts = path.split('.');
    std::array::from_fn(|_| parts.next().unwrap_or_default().to_owned())
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
