//! The service's metrics. Labels are bounded: limits by which nothing was decided have none, and of those by which
//! something was, the first hundred are told apart; the others are `other` together. Keys are never in them.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::counters::StoreState;
use super::decisions::{Decided, Decisions};
use super::envoyproxy::{Rules, stats};
use crate::exposition::{Labels, counters, gauges};

/// What limits that have no label are called.
const OTHER: &str = "other";

/// Everything, without a prefix.
///
/// # Errors
/// When the text cannot be written.
pub(crate) fn encode(
    encoder: &mut DescriptorEncoder,
    decisions: &Decisions,
    rules: &Rules,
    state: Option<&StoreState>,
) -> fmt::Result {
    let totals = decisions.totals();
    let totals = [
        ("allowed", totals.allowed),
        ("denied", totals.denied),
        ("unknown", totals.unknown),
        ("failed", totals.failed),
    ];
    let totals = totals.map(|(decision, count)| ([("decision", decision.to_owned())], count));
    counters(encoder, "ratelimit_decisions", "Decisions of the rate limit service", totals)?;
    let help = "Decisions by limit: let through, refused, and not refused since the limit is in shadow";
    counters(encoder, "ratelimit_limit_decisions", help, by_limit(decisions, rules))?;
    let took = encoder.encode_descriptor(
        "ratelimit_decision_duration",
        "Time to decide on a request, without the way there and back",
        Some(&Unit::Seconds),
        Histogram::TYPE,
    )?;
    decisions.took.encode(took)?;
    store(encoder, state)
}

fn by_limit(decisions: &Decisions, rules: &Rules) -> Vec<(Labels<2>, u64)> {
    let (mut labelled, others) = decisions.labelled();
    labelled.extend(rules.labelled());
    labelled.push((OTHER.into(), others));
    let counts = |(limit, decided): (Arc<str>, Decided)| {
        [("allowed", decided.allowed), ("denied", decided.denied), ("shadow", decided.shadowed)].map(
            |(decision, count)| ([("limit", limit.to_string()), ("decision", decision.to_owned())], count),
        )
    };
    labelled.into_iter().flat_map(counts).collect()
}

fn store(encoder: &mut DescriptorEncoder, state: Option<&StoreState>) -> fmt::Result {
    let Some(StoreState { kind, usage, shared }) = state else { return Ok(()) };
    let one = |value| -> [(Labels<0>, u64); 1] { [([], value)] };
    let help = "Counters that the rate limit service holds";
    gauges(encoder, "ratelimit_counters", help, one(usage.counters as u64))?;
    let help = "The most counters that it will hold";
    gauges(encoder, "ratelimit_counters_capacity", help, one(usage.capacity as u64))?;
    let help = "Idle counters that were dropped";
    counters(encoder, "ratelimit_counters_evicted", help, one(usage.evicted))?;
    let help = "Decisions on keys that had no counter of their own, since there was no room";
    counters(encoder, "ratelimit_counters_overflowed", help, one(usage.overflowed))?;
    let available = shared.as_ref().is_none_or(|shared| shared.available);
    let available = [([("store", (*kind).to_owned())], u64::from(available))];
    gauges(encoder, "ratelimit_store_available", "Whether the counters' store answers", available)?;
    let Some(shared) = shared else { return Ok(()) };
    counters(encoder, "ratelimit_store_calls", "Calls of the counters' store", one(shared.calls))?;
    let help = "Calls of the counters' store without an answer in time";
    counters(encoder, "ratelimit_store_failures", help, one(shared.failures))?;
    let help = "Counters that the store has not been told of since it was away";
    gauges(encoder, "ratelimit_store_untold", help, one(shared.untold))?;
    let help = "Counters of which a block of hits is given out here";
    gauges(encoder, "ratelimit_store_leases", help, one(shared.leases))
}

/// The metrics of a service that is alone.
pub(super) fn text(
    decisions: Arc<Decisions>,
    rules: Arc<Rules>,
    store: Option<StoreState>,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let theirs = Theirs { decisions: decisions.clone(), rules: rules.clone() };
    registry.register_collector(Box::new(theirs));
    let ours = registry.sub_registry_with_prefix("chancery");
    ours.register_collector(Box::new(Alone { decisions, rules, store }));
    let mut text = String::new();
    text::encode(&mut text, &registry).map(|()| text)
}

#[derive(Debug)]
struct Alone {
    decisions: Arc<Decisions>,
    rules: Arc<Rules>,
    store: Option<StoreState>,
}

impl Collector for Alone {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let version: [(Labels<1>, u64); 1] = [([("version", env!("CARGO_PKG_VERSION").to_owned())], 1)];
        gauges(&mut encoder, "build_info", "The version that runs", version)?;
        encode(&mut encoder, &self.decisions, &self.rules, self.store.as_ref())
    }
}

/// What envoyproxy/ratelimit would say.
#[derive(Debug)]
struct Theirs {
    decisions: Arc<Decisions>,
    rules: Arc<Rules>,
}

impl Collector for Theirs {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        stats::encode(&mut encoder, &self.rules, &self.decisions)
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

    use super::*;
    use crate::model::limit::{Algorithm, Key, Limit, LimitSet};
    use crate::ratelimit::counters::memory::Usage;
    use crate::ratelimit::counters::{Ask, Hits, Outcome, Role, SharedState};
    use crate::ratelimit::decisions::LABELLED;

    /// Those that come later are counted together, also when others have gone since.
    #[test]
    fn labels_are_bounded_and_show_no_key() {
        let decisions = Arc::new(Decisions::default());
        let algorithm = Algorithm::FixedWindow { requests: 1, window_ms: 1 };
        let key = [Entry { key: "key".into(), value: "somebody".into() }];
        let outcome = |allowed| Outcome { allowed, remaining: 0, reset_ms: 0 };
        for n in 0..LABELLED + 50 {
            let limit = Limit::new(format!("limit-{n:03}").into(), Key::Header("x-user".into()), algorithm);
            let ask = |role| Ask { limit: &limit, key: &key, hits: Hits::Take(1), role };
            for (role, allowed) in [(Role::Binding, true), (Role::Binding, false), (Role::Shadow, false)] {
                decisions.count_ours(&LimitSet::default(), &ask(role), &outcome(allowed), None);
            }
        }
        let usage = Usage { counters: 7, ..Usage::default() };
        let address = "r:6379".to_owned();
        let shared = SharedState { address, available: false, calls: 9, failures: 8, untold: 6, leases: 5 };
        let store = StoreState { kind: "redis", usage, shared: Some(shared) };
        let text = text(decisions, Arc::default(), Some(store)).unwrap();
        let limits =
            text.lines().filter(|line| line.starts_with("chancery_ratelimit_limit_decisions_total{"));
        assert_eq!(limits.count(), 3 * (LABELLED + 1));
        for line in [
            "chancery_ratelimit_limit_decisions_total{limit=\"limit-000\",decision=\"shadow\"} 1",
            "chancery_ratelimit_limit_decisions_total{limit=\"other\",decision=\"allowed\"} 50",
            "chancery_ratelimit_limit_decisions_total{limit=\"other\",decision=\"denied\"} 50",
            "chancery_ratelimit_counters 7",
            "chancery_ratelimit_store_available{store=\"redis\"} 0",
            "chancery_ratelimit_store_calls_total 9",
            "chancery_ratelimit_store_failures_total 8",
            "chancery_ratelimit_store_untold 6",
            "chancery_ratelimit_store_leases 5",
            "chancery_ratelimit_decision_duration_seconds_count 0",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("somebody") && !text.contains("limit-100"), "{text}");
    }
}
