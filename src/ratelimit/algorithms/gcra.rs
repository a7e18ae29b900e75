//! The generic cell rate algorithm, kept as the leaky bucket that it is.
//!
//! The bucket holds `burst + 1` hits, each a thousand drops, and drains at the rate. Draining rounds down to whole
//! drops, as nginx's `limit_req` does with its `excess`, which is this level less one hit: with a rate that nginx
//! can hold, both admit the same hits. A whole hit drains in exactly `period / requests`, rounded up to
//! milliseconds.

use super::{Hits, State, Verdict};

/// The parts of a hit that a level is counted in.
const DROPS: u64 = 1_000;

/// `requests` hits every `period_ms`, with `burst` more at once. State: `used` drops in the bucket at the time `at`.
#[derive(Clone, Copy, Debug)]
pub struct Gcra {
    /// Hits a period; 0 never drains.
    pub requests: u32,
    /// The period in milliseconds.
    pub period_ms: u64,
    /// Hits that may come at once on top of the first.
    pub burst: u32,
}

impl Gcra {
    /// Counts `hits` at the time `now`. A clock that stepped back drains nothing.
    #[must_use]
    pub fn count(&self, state: State, hits: Hits, now: u64) -> Verdict {
        let capacity = (u64::from(self.burst) + 1) * DROPS;
        let level = state.used.saturating_sub(self.drained(now.saturating_sub(state.at)));
        let moved = |used| State { at: now.max(state.at), used, ..state };
        let (allowed, state, level, wanted) = match hits {
            Hits::Return(n) => {
                let level = level.saturating_sub(n.saturating_mul(DROPS));
                (true, moved(level), level, 0)
            }
            Hits::Charge(n) => {
                let level = level.saturating_add(n.saturating_mul(DROPS));
                (level <= capacity, moved(level), level, 0)
            }
            Hits::Take(n) => {
                let wanted = n.max(1).saturating_mul(DROPS);
                let allowed = level.saturating_add(wanted) <= capacity;
                if allowed && n > 0 {
                    (true, moved(level + wanted), level + wanted, wanted)
                } else {
                    (allowed, state, level, wanted)
                }
            }
        };
        let idle_at = state.at.saturating_add(self.draining(state.used));
        let free_at = if allowed || wanted > capacity {
            idle_at
        } else {
            state.at.saturating_add(self.draining(state.used.saturating_add(wanted).saturating_sub(capacity)))
        };
        Verdict {
            allowed,
            state,
            remaining: capacity.saturating_sub(level) / DROPS,
            reset_ms: free_at.saturating_sub(now),
            idle_at,
        }
    }

    /// The hits that it still holds, rounded up.
    pub(super) fn held(&self, state: State, now: u64) -> u64 {
        state.used.saturating_sub(self.drained(now.saturating_sub(state.at))).div_ceil(DROPS)
    }

    /// Drops that drain in `ms`, rounded down.
    fn drained(&self, ms: u64) -> u64 {
        let drops = u128::from(self.requests) * u128::from(DROPS) * u128::from(ms)
            / u128::from(self.period_ms.max(1));
        u64::try_from(drops).unwrap_or(u64::MAX)
    }

    /// Milliseconds after which `drops` have drained: the smallest for which [`Self::drained`] says so.
    fn draining(&self, drops: u64) -> u64 {
        if drops == 0 {
            return 0;
        }
        let rate = u128::from(self.requests) * u128::from(DROPS);
        if rate == 0 {
            return u64::MAX;
        }
        let ms = (u128::from(drops) * u128::from(self.period_ms.max(1))).div_ceil(rate);
        u64::try_from(ms).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::limit::Algorithm;
    use crate::ratelimit::algorithms::count;

    /// nginx's `limit_req` with `nodelay`, as one node of its zone keeps it: the time of the last hit that was let
    /// through, and the excess over the rate.
    struct Nginx {
        /// Thousandths of a request a second.
        rate: i64,
        /// Thousandths of a request.
        burst: i64,
        node: Option<(i64, i64)>,
    }

    impl Nginx {
        fn hit(&mut self, now: u64) -> bool {
            let now = i64::try_from(now).unwrap();
            let Some((last, excess)) = self.node else {
                self.node = Some((now, 0));
                return true;
            };
            let next = (excess - self.rate * (now - last) / 1000 + 1000).max(0);
            if next > self.burst {
                return false;
            }
            self.node = Some((now, next));
            true
        }
    }

    fn admits(algorithm: &Algorithm, times: impl IntoIterator<Item = u64>) -> Vec<bool> {
        let mut state = State::default();
        times
            .into_iter()
            .map(|now| {
                let verdict = count(algorithm, state, Hits::Take(1), now);
                state = verdict.state;
                verdict.allowed
            })
            .collect()
    }

    fn times(gaps: &[u64]) -> impl Iterator<Item = u64> {
        gaps.iter().scan(1_000, |now, gap| {
            *now += gap;
            Some(*now)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn equals_nginx_to_the_hit(
            requests in 1u32..200, minute in any::<bool>(), burst in 0u32..20,
            gaps in prop::collection::vec(prop_oneof![4 => 0u64..3, 4 => 0u64..400, 1 => 0u64..70_000], 1..300),
        ) {
            let period = if minute { 60_000 } else { 1_000 };
            let mut nginx = Nginx {
                rate: i64::from(requests) * 1000 / if minute { 60 } else { 1 },
                burst: i64::from(burst) * 1000,
                node: None,
            };
            let expected: Vec<bool> = times(&gaps).map(|now| nginx.hit(now)).collect();
            let algorithm = Algorithm::limit_req(requests, period, burst);
            prop_assert_eq!(admits(&algorithm, times(&gaps)), expected);
        }

        #[test]
        fn reset_and_idle_are_exact(
            requests in 1u32..1000, period_ms in 1u64..100_000_000, burst in 0u32..10,
            taken in 1u64..12, wanted in 1u64..12, wait in 0u64..100_000,
        ) {
            let gcra = Gcra { requests, period_ms, burst };
            let state = gcra.count(State::default(), Hits::Take(taken), 5).state;
            let verdict = gcra.count(state, Hits::Take(wanted), 5 + wait);
            let at = 5 + wait + verdict.reset_ms;
            if !verdict.allowed && wanted <= u64::from(burst) + 1 {
                prop_assert!(!gcra.count(state, Hits::Take(wanted), at - 1).allowed);
                prop_assert!(gcra.count(state, Hits::Take(wanted), at).allowed);
            }
            let full = u64::from(burst) + 1;
            let idle = verdict.idle_at.max(5);
            prop_assert_eq!(gcra.count(verdict.state, Hits::Take(0), idle).remaining, full);
            for hits in [Hits::Take(wanted), Hits::Take(0), Hits::Return(1)] {
                let (kept, fresh) = (gcra.count(verdict.state, hits, idle), gcra.count(State::default(), hits, idle));
                prop_assert_eq!((kept.allowed, kept.remaining, kept.reset_ms), (fresh.allowed, fresh.remaining, fresh.reset_ms));
            }
        }

        #[test]
        fn nothing_panics(requests: u32, period_ms: u64, burst: u32, at: u64, used: u64, n: u64, kind in 0usize..3, now: u64) {
            let hits = [Hits::Return(n), Hits::Take(n), Hits::Charge(n)][kind];
            let _ = Gcra { requests, period_ms, burst }.count(State { at, used, ..State::default() }, hits, now);
        }
    }

    #[test]
    fn burst_and_one_at_once_then_the_rate() {
        let algorithm = Algorithm::limit_req(1, 1_000, 5);
        let allowed = admits(&algorithm, [0, 0, 0, 0, 0, 0, 0, 999, 1_000, 1_001]);
        assert_eq!(allowed, [true, true, true, true, true, true, false, false, true, false]);
    }

    #[test]
    fn several_hits_go_all_or_none_and_can_be_given_back() {
        let gcra = Gcra { requests: 1, period_ms: 1_000, burst: 9 };
        let ten = gcra.count(State::default(), Hits::Take(8), 0);
        assert!(ten.allowed && ten.remaining == 2);
        let refused = gcra.count(ten.state, Hits::Take(3), 0);
        assert!(
            !refused.allowed
                && refused.state == ten.state
                && refused.remaining == 2
                && refused.reset_ms == 1_000
        );
        let back = gcra.count(ten.state, Hits::Return(1), 0);
        assert!(back.allowed && back.remaining == 3);
        assert!(gcra.count(back.state, Hits::Take(3), 0).allowed);
        assert_eq!(gcra.count(back.state, Hits::Return(100), 0).remaining, 10);
    }

    #[test]
    fn asking_costs_nothing() {
        let gcra = Gcra { requests: 1, period_ms: 1_000, burst: 0 };
        let asked = gcra.count(State::default(), Hits::Take(0), 0);
        assert!(asked.allowed && asked.state == State::default());
        let taken = gcra.count(asked.state, Hits::Take(1), 0);
        let asked = gcra.count(taken.state, Hits::Take(0), 400);
        assert!(!asked.allowed && asked.state == taken.state && asked.reset_ms == 600);
    }
}
