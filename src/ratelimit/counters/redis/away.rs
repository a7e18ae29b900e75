//! What was counted here while Redis was away, to be counted there once it is back. Pure.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::call::{Name, Question, Wanted};
use crate::model::limit::Algorithm;
use crate::ratelimit::algorithms::charges_refusals;
use crate::ratelimit::counters::{Ask, Hits, Outcome, Role, admitted};

/// Counters that are remembered. What more there are is decided by this replica alone and not told.
const CAPACITY: usize = 100_000;

#[derive(Debug)]
struct Entry {
    algorithm: Algorithm,
    /// Hits taken, less those given back.
    hits: i64,
    at: u64,
}

/// Hits that Redis does not know of.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<HashMap<Name, Entry>>);

impl Ledger {
    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counters that Redis is behind with.
    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }

    /// Remembers what was charged for these asks at the time `now`.
    pub(super) fn note(&self, asks: &[Ask<'_>], outcomes: &[Outcome], now: u64) {
        let all = admitted(asks.iter().zip(outcomes).map(|(ask, outcome)| (ask.role, outcome.allowed)));
        let mut entries = self.entries();
        for (ask, outcome) in asks.iter().zip(outcomes) {
            let hits = match ask.hits {
                Hits::Take(n) if (all && outcome.allowed) || charges_refusals(&ask.limit.algorithm) => {
                    signed(n)
                }
                Hits::Take(_) => 0,
                Hits::Charge(n) => signed(n),
                Hits::Return(n) => -signed(n),
            };
            let name = Name::of(ask.limit, ask.key);
            if hits == 0 || (entries.len() >= CAPACITY && !entries.contains_key(&name)) {
                continue;
            }
            let algorithm = ask.limit.algorithm;
            let entry = entries.entry(name).or_insert(Entry { algorithm, hits: 0, at: now });
            if !lasts(&algorithm, entry.at, now) {
                entry.hits = 0;
            }
            entry.hits = entry.hits.saturating_add(hits);
            entry.at = now;
        }
    }

    /// Takes out some of what is to be told Redis at the time `now`. What no longer matters goes.
    pub(super) fn take(&self, most: usize, now: u64) -> Vec<Question> {
        let mut entries = self.entries();
        entries.retain(|_, entry| entry.hits != 0 && lasts(&entry.algorithm, entry.at, now));
        let names: Vec<Name> = entries.keys().take(most).cloned().collect();
        let question = |name: Name| {
            let Entry { algorithm, hits, .. } = entries.remove(&name)?;
            let wanted = match hits {
                1.. => Hits::Charge(hits.unsigned_abs()),
                _ => Hits::Return(hits.unsigned_abs()),
            };
            Some(Question { name, algorithm, wanted: Wanted::Hits(wanted), role: Role::Shadow, grant: None })
        };
        names.into_iter().filter_map(question).collect()
    }

    /// Puts back what could not be told.
    pub(super) fn put_back(&self, questions: Vec<Question>, now: u64) {
        let mut entries = self.entries();
        for Question { name, algorithm, wanted, .. } in questions {
            let hits = match wanted {
                Wanted::Hits(Hits::Charge(n)) => signed(n),
                Wanted::Hits(Hits::Return(n)) => -signed(n),
                _ => 0,
            };
            let entry = entries.entry(name).or_insert(Entry { algorithm, hits: 0, at: now });
            entry.hits = entry.hits.saturating_add(hits);
        }
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Whether what was counted then still counts.
fn lasts(algorithm: &Algorithm, at: u64, now: u64) -> bool {
    match *algorithm {
        Algorithm::AlignedWindow { window_ms, .. } => at / window_ms.max(1) == now / window_ms.max(1),
        Algorithm::Calendar { unit, time_zone, .. } => {
            time_zone.period(unit, at) == time_zone.period(unit, now)
        }
        Algorithm::Concurrency { lease_ms, .. } => now.saturating_sub(at) < lease_ms,
        Algorithm::Gcra { requests, period_ms, burst } => {
            let full = u128::from(burst + 1) * u128::from(period_ms) / u128::from(requests.max(1));
            u128::from(now.saturating_sub(at)) < full
        }
        _ => now.saturating_sub(at) < algorithm.quota().1,
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

    use super::*;
    use crate::model::limit::{Key, Limit};

    fn limit(id: &str, algorithm: Algorithm) -> Limit {
        Limit::new(id.into(), Key::ClientAddress, algorithm)
    }

    fn told(ledger: &Ledger, now: u64) -> Vec<Hits> {
        let hit = |question: Question| match question.wanted {
            Wanted::Hits(hits) => hits,
            other => panic!("{other:?}"),
        };
        let mut hits: Vec<Hits> = ledger.take(10, now).into_iter().map(hit).collect();
        hits.sort_by_key(|hits| format!("{hits:?}"));
        hits
    }

    #[test]
    fn what_was_charged_is_told_and_nothing_else() {
        let window = limit("w", Algorithm::AlignedWindow { requests: 5, window_ms: 1_000 });
        let gauge = limit("g", Algorithm::Concurrency { limit: 5, lease_ms: 1_000 });
        let key = [Entry { key: "key".into(), value: "k".into() }];
        let ledger = Ledger::default();
        let note = |limit, hits, allowed, now| {
            let ask = Ask { limit, key: &key, hits, role: Role::Binding };
            ledger.note(&[ask], &[Outcome { allowed, remaining: 0, reset_ms: 0 }], now);
        };
        note(&window, Hits::Take(2), true, 1_100);
        note(&window, Hits::Take(2), false, 1_100);
        note(&window, Hits::Return(1), true, 1_100);
        note(&gauge, Hits::Take(1), false, 1_100);
        note(&gauge, Hits::Return(2), true, 1_200);
        assert_eq!(told(&ledger, 1_900), [Hits::Charge(1), Hits::Return(1)]);
        assert_eq!(ledger.len(), 0);
        note(&window, Hits::Take(2), true, 1_900);
        note(&window, Hits::Take(1), true, 2_000);
        assert_eq!(told(&ledger, 2_999), [Hits::Charge(1)], "the window before is over");
        note(&window, Hits::Take(1), true, 2_000);
        assert_eq!(told(&ledger, 3_000), []);
    }

    #[test]
    fn what_could_not_be_told_is_told_later() {
        let window = limit("w", Algorithm::FixedWindow { requests: 5, window_ms: 1_000 });
        let key = [Entry { key: "key".into(), value: "k".into() }];
        let ledger = Ledger::default();
        let asks = [Ask { limit: &window, key: &key, hits: Hits::Take(2), role: Role::Binding }];
        let outcomes = [Outcome { allowed: true, remaining: 0, reset_ms: 0 }];
        ledger.note(&asks, &outcomes, 5);
        let questions = ledger.take(10, 6);
        ledger.note(&asks, &outcomes, 7);
        ledger.put_back(questions, 8);
        assert_eq!(told(&ledger, 9), [Hits::Charge(4)]);
    }
}
