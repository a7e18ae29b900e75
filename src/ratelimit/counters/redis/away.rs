//! What was counted here while Redis was away, to be counted there once it is back. Pure.
//!
//! Of each counter it is kept as a counter: what has drained or whose window is over by then is not told, and nobody waits
//! longer for it than if Redis had counted it.

use std::collections::{HashMap, hash_map};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::call::{Name, Question, Wanted};
use crate::model::limit::Algorithm;
use crate::ratelimit::algorithms::{State, charges_refusals, count, held};
use crate::ratelimit::counters::{Ask, Hits, Outcome, Role, admitted};

/// Counters that are remembered. What more there are is decided by this replica alone and not told.
const CAPACITY: usize = 100_000;

/// What was counted of one counter.
#[derive(Debug)]
pub(super) struct Entry {
    algorithm: Algorithm,
    /// As the counter would be, had it been charged nothing else.
    state: State,
    /// Hits that were given back and are not among those: Redis has them.
    returned: u64,
    returned_at: u64,
}

impl Entry {
    fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, state: State::default(), returned: 0, returned_at: 0 }
    }

    fn charge(&mut self, hits: u64, now: u64) {
        self.state = count(&self.algorithm, self.state, Hits::Charge(hits), now).state;
    }

    fn give_back(&mut self, hits: u64, now: u64) {
        let held: u64 = held(&self.algorithm, self.state, now).iter().map(|(hits, _)| hits).sum();
        self.state = count(&self.algorithm, self.state, Hits::Return(hits), now).state;
        if hits > held {
            self.returned = self.returned.saturating_add(hits - held);
            self.returned_at = now;
        }
    }

    /// What Redis is to be told of it at the time `now`; nothing if it matters no more. What was given back comes first: it
    /// was there before, and of what came later nothing is to go with it.
    pub(super) fn questions(&self, name: &Name, now: u64) -> Vec<Question> {
        let Self { algorithm, state, returned, returned_at } = self;
        let lasts = *returned > 0 && lasts(algorithm, *returned_at, now);
        let returned = lasts.then_some(Wanted::Hits(Hits::Return(*returned)));
        let charged = held(algorithm, *state, now).into_iter().map(|(hits, age)| Wanted::Past { hits, age });
        returned.into_iter().chain(charged).map(|wanted| question(name, *algorithm, wanted)).collect()
    }

    /// Adds what was counted of the same counter before.
    fn add(&mut self, before: &Self, now: u64) {
        for (hits, _) in held(&before.algorithm, before.state, now) {
            self.charge(hits, now);
        }
        self.returned = self.returned.saturating_add(before.returned);
        self.returned_at = self.returned_at.max(before.returned_at);
    }
}

fn question(name: &Name, algorithm: Algorithm, wanted: Wanted) -> Question {
    Question { name: name.clone(), algorithm, wanted, role: Role::Shadow, grant: None }
}

/// What Redis does not know of.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<HashMap<Name, Entry>>);

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, HashMap<Name, Entry>> {
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
            let algorithm = ask.limit.algorithm;
            let taken = all && outcome.allowed || charges_refusals(&algorithm);
            let (Hits::Take(hits) | Hits::Charge(hits) | Hits::Return(hits)) = ask.hits;
            if hits == 0 || matches!(ask.hits, Hits::Take(_)) && !taken {
                continue;
            }
            let name = Name::of(ask.limit, ask.key);
            if entries.len() >= CAPACITY && !entries.contains_key(&name) {
                continue;
            }
            let entry = entries.entry(name).or_insert_with(|| Entry::new(algorithm));
            match ask.hits {
                Hits::Take(_) | Hits::Charge(_) => entry.charge(hits, now),
                Hits::Return(_) => entry.give_back(hits, now),
            }
        }
    }

    /// For each counter that Redis is behind with, a question that asks for nothing.
    pub(super) fn peeks(&self) -> Vec<Question> {
        let entries = self.entries();
        let peek =
            |(name, entry): (&Name, &Entry)| question(name, entry.algorithm, Wanted::Hits(Hits::Take(0)));
        entries.iter().map(peek).collect()
    }

    /// Takes out what is known of the counters of these questions.
    pub(super) fn take(&self, of: &[Question]) -> Vec<(Name, Entry)> {
        let mut entries = self.entries();
        of.iter().filter_map(|question| entries.remove_entry(&question.name)).collect()
    }

    /// Puts back what could not be told.
    pub(super) fn put_back(&self, untold: Vec<(Name, Entry)>, now: u64) {
        let mut entries = self.entries();
        for (name, before) in untold {
            match entries.entry(name) {
                hash_map::Entry::Occupied(mut since) => since.get_mut().add(&before, now),
                hash_map::Entry::Vacant(place) => drop(place.insert(before)),
            }
        }
    }
}

/// Whether what was counted then may still count.
fn lasts(algorithm: &Algorithm, at: u64, now: u64) -> bool {
    match *algorithm {
        Algorithm::AlignedWindow { window_ms, .. } => at / window_ms.max(1) == now / window_ms.max(1),
        Algorithm::Calendar { unit, time_zone, .. } => {
            time_zone.period(unit, at) == time_zone.period(unit, now)
        }
        Algorithm::Concurrency { lease_ms, .. } => now.saturating_sub(at) < lease_ms,
        Algorithm::Gcra { requests, period_ms, burst } => {
            let full = (u128::from(burst) + 1) * u128::from(period_ms) / u128::from(requests.max(1));
            u128::from(now.saturating_sub(at)) < full
        }
        _ => now.saturating_sub(at) < algorithm.quota().1,
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry as KeyEntry;

    use super::*;
    use crate::model::limit::{Key, Limit};

    fn limit(id: &str, algorithm: Algorithm) -> Limit {
        Limit::new(id.into(), Key::ClientAddress, algorithm)
    }

    fn told(ledger: &Ledger, now: u64) -> Vec<Wanted> {
        let entries = ledger.take(&ledger.peeks());
        let mut told: Vec<Wanted> = entries
            .iter()
            .flat_map(|(name, entry)| entry.questions(name, now))
            .map(|question| question.wanted)
            .collect();
        told.sort_by_key(|wanted| format!("{wanted:?}"));
        told
    }

    fn charged(hits: u64) -> Wanted {
        Wanted::Past { hits, age: 0 }
    }

    fn returned(hits: u64) -> Wanted {
        Wanted::Hits(Hits::Return(hits))
    }

    fn key() -> [KeyEntry; 1] {
        [KeyEntry { key: "key".into(), value: "k".into() }]
    }

    fn note(ledger: &Ledger, limit: &Limit, hits: Hits, allowed: bool, now: u64) {
        let ask = Ask { limit, key: &key(), hits, role: Role::Binding };
        ledger.note(&[ask], &[Outcome { allowed, remaining: 0, reset_ms: 0 }], now);
    }

    #[test]
    fn what_was_charged_is_told_and_nothing_else() {
        let window = limit("w", Algorithm::AlignedWindow { requests: 5, window_ms: 1_000 });
        let gauge = limit("g", Algorithm::Concurrency { limit: 5, lease_ms: 1_000 });
        let ledger = Ledger::default();
        note(&ledger, &window, Hits::Take(2), true, 1_100);
        note(&ledger, &window, Hits::Take(2), false, 1_100);
        note(&ledger, &window, Hits::Return(1), true, 1_100);
        note(&ledger, &gauge, Hits::Take(1), false, 1_100);
        note(&ledger, &gauge, Hits::Return(2), true, 1_200);
        assert_eq!(told(&ledger, 1_900), [returned(1), charged(1)]);
        assert_eq!(ledger.len(), 0);
        note(&ledger, &window, Hits::Take(2), true, 1_900);
        note(&ledger, &window, Hits::Take(1), true, 2_000);
        assert_eq!(told(&ledger, 2_999), [charged(1)], "the window before is over");
        note(&ledger, &window, Hits::Take(1), true, 2_000);
        assert_eq!(told(&ledger, 3_000), []);
    }

    /// A key that stays below its rate for as long as Redis is away is not locked out when it is back.
    #[test]
    fn what_has_drained_is_not_told() {
        let bucket = limit("b", Algorithm::Gcra { requests: 10, period_ms: 1_000, burst: 50 });
        let sliding = limit("s", Algorithm::SlidingWindow { requests: 60, window_ms: 60_000 });
        let ledger = Ledger::default();
        for second in 0..600 {
            (0..9).for_each(|n| note(&ledger, &bucket, Hits::Take(1), true, second * 1_000 + n * 111));
        }
        assert_eq!(told(&ledger, 599_900), [charged(1)]);
        (0..3_600).for_each(|second| note(&ledger, &sliding, Hits::Take(1), true, second * 1_000));
        let parts = told(&ledger, 3_600_000);
        let hits = |wanted: &Wanted| match wanted {
            Wanted::Past { hits, .. } => *hits,
            other => panic!("{other:?}"),
        };
        assert_eq!(parts.len(), 8, "{parts:?}");
        assert_eq!(parts.iter().map(hits).sum::<u64>(), 60);
    }

    #[test]
    fn a_reset_is_told_before_what_came_after_it() {
        let day = limit("d", Algorithm::SlidingWindow { requests: 100, window_ms: 86_400_000 });
        let ledger = Ledger::default();
        note(&ledger, &day, Hits::Take(7), true, 1_000);
        note(&ledger, &day, Hits::Return(u64::from(u32::MAX)), true, 2_000);
        note(&ledger, &day, Hits::Take(3), true, 3_000);
        let entries = ledger.take(&ledger.peeks());
        let questions = entries[0].1.questions(&entries[0].0, 4_000);
        let wanted: Vec<Wanted> = questions.into_iter().map(|question| question.wanted).collect();
        assert_eq!(wanted, [returned(u64::from(u32::MAX) - 7), charged(3)]);
    }

    #[test]
    fn what_could_not_be_told_is_told_later_unless_it_is_over() {
        let window = limit("w", Algorithm::FixedWindow { requests: 5, window_ms: 1_000 });
        let ledger = Ledger::default();
        note(&ledger, &window, Hits::Take(2), true, 5);
        let untold = ledger.take(&ledger.peeks());
        note(&ledger, &window, Hits::Take(2), true, 7);
        ledger.put_back(untold, 8);
        assert_eq!(told(&ledger, 9), [charged(4)]);
        note(&ledger, &window, Hits::Take(2), true, 10);
        for now in [500, 1_000] {
            ledger.put_back(ledger.take(&ledger.peeks()), now);
        }
        assert_eq!(told(&ledger, 1_010), []);
    }

    #[test]
    fn a_bucket_of_the_largest_burst_is_told() {
        let bucket = limit("b", Algorithm::Gcra { requests: 1, period_ms: 1_000, burst: u32::MAX });
        let ledger = Ledger::default();
        note(&ledger, &bucket, Hits::Return(1), true, 0);
        assert_eq!(told(&ledger, 1_000), [returned(1)]);
    }
}
