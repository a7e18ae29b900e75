//! How many requests are under way at once: a gauge with leases.
//!
//! A hit takes a lease, and the end of the request gives it back. Envoy's call at the end of a request comes for
//! refused ones too, and for those that another limit refused. So a hit is charged whatever becomes of its request:
//! only then does every call that gives back find what it gives. A refused request counts for the moment that it is
//! there.
//!
//! A lease that is never given back, since an Envoy died or a call was lost, expires `lease_ms` after it was taken, at
//! the end of its part of the span: an eighth of a lease later at most. The calls do not say which lease they give
//! back, and it is taken to be the latest. The other way round, one that was lost would pass its place on to the next
//! again and again, and a busy key would never get it back. This way, what a key has held without a break for a whole
//! lease expires, as a single request that long would; so a lease is to be longer than requests are.

use super::parts::{Parts, add, give_back, total};
use super::{Hits, State, Verdict};

/// At most `limit` leases at once, each for `lease_ms` at the most. The state is that of `parts`.
#[derive(Clone, Copy, Debug)]
pub struct Concurrency {
    /// Leases at once.
    pub limit: u32,
    /// After this many milliseconds, and an eighth more at the most, a lease counts no longer.
    pub lease_ms: u64,
}

impl Concurrency {
    /// Counts `hits` at the time `now`: what is taken is charged even if it is refused. Nobody knows when another
    /// request ends, so there is no time to reset.
    #[must_use]
    pub fn count(&self, state: State, hits: Hits, now: u64) -> Verdict {
        let parts = Parts::of(self.lease_ms);
        let limit = u64::from(self.limit);
        let held = parts.at(state, now);
        let (allowed, state) = match hits {
            Hits::Return(n) => (true, give_back(held, n)),
            Hits::Charge(n) => {
                let state = if n > 0 { add(held, n) } else { state };
                (total(&parts.at(state, now)) <= limit, state)
            }
            Hits::Take(n) => {
                let allowed = total(&held).saturating_add(n.max(1)) <= limit;
                (allowed, if n > 0 { add(held, n) } else { state })
            }
        };
        let held = parts.at(state, now);
        Verdict {
            allowed,
            state,
            remaining: limit.saturating_sub(total(&held)),
            reset_ms: 0,
            idle_at: parts.idle_at(&held, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every lease in a list, the latest last, with the time it was taken.
    struct Leases {
        limit: usize,
        lease_ms: u64,
        taken: Vec<u64>,
    }

    impl Leases {
        /// A lease lasts to the end of the part of the span that the last moment of `lease_ms` falls into.
        fn expire(&mut self, now: u64) {
            let part = |time: u64| time * 8 / self.lease_ms;
            self.taken.retain(|taken| part(now) <= part(*taken) + 8);
        }

        fn take(&mut self, now: u64, n: u64) -> bool {
            self.expire(now);
            let n = usize::try_from(n).unwrap();
            let allowed = self.taken.len() + n.max(1) <= self.limit;
            self.taken.extend(std::iter::repeat_n(now, n));
            allowed
        }

        fn give_back(&mut self, now: u64, n: u64) {
            self.expire(now);
            self.taken.truncate(self.taken.len().saturating_sub(usize::try_from(n).unwrap()));
        }
    }

    fn hits() -> impl Strategy<Value = Hits> {
        let n = 0u64..4;
        prop_oneof![
            n.clone().prop_map(Hits::Take),
            n.clone().prop_map(Hits::Charge),
            n.prop_map(Hits::Return)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn equals_the_list_of_leases(
            limit in 0u32..12, lease_ms in 1u64..300,
            steps in prop::collection::vec((0u64..60, hits()), 1..200),
        ) {
            let gauge = Concurrency { limit, lease_ms };
            let mut leases = Leases { limit: limit as usize, lease_ms, taken: Vec::new() };
            let (mut state, mut now) = (State::default(), 5_000);
            for (gap, hits) in steps {
                now += gap;
                let verdict = gauge.count(state, hits, now);
                let allowed = match hits {
                    Hits::Take(n) => leases.take(now, n),
                    Hits::Charge(n) => {
                        leases.take(now, n);
                        leases.taken.len() <= leases.limit
                    }
                    Hits::Return(n) => {
                        leases.give_back(now, n);
                        true
                    }
                };
                prop_assert_eq!(verdict.allowed, allowed, "{:?} at {}", hits, now);
                prop_assert_eq!(verdict.remaining, (leases.limit as u64).saturating_sub(leases.taken.len() as u64));
                if let Some(last) = leases.taken.last() {
                    prop_assert!(verdict.idle_at > last + lease_ms);
                    prop_assert!(verdict.idle_at <= last + lease_ms + lease_ms.div_ceil(8));
                }
                state = verdict.state;
                let idle = verdict.idle_at.max(now);
                for hits in [Hits::Take(1), Hits::Take(0), Hits::Return(1)] {
                    let (kept, fresh) = (gauge.count(state, hits, idle), gauge.count(State::default(), hits, idle));
                    prop_assert_eq!((kept.allowed, kept.remaining), (fresh.allowed, fresh.remaining));
                }
            }
        }

        /// Requests that begin and end in any order, refused ones as well, each calling at its end: those that were let
        /// in are never more than the limit, and nobody is refused while there are fewer.
        #[test]
        fn every_end_gives_back_what_its_beginning_took(
            limit in 0u32..5, steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let gauge = Concurrency { limit, lease_ms: 1_000_000 };
            let (mut state, mut under_way) = (State::default(), Vec::new());
            for (now, (begins, which)) in (7..).zip(steps) {
                if begins || under_way.is_empty() {
                    let verdict = gauge.count(state, Hits::Take(1), now);
                    prop_assert_eq!(verdict.allowed, under_way.len() < limit as usize);
                    under_way.push(verdict.allowed);
                    state = verdict.state;
                } else {
                    under_way.swap_remove(which.index(under_way.len()));
                    state = gauge.count(state, Hits::Return(1), now).state;
                }
                prop_assert!(under_way.iter().filter(|allowed| **allowed).count() <= limit as usize);
            }
            for _ in &under_way {
                state = gauge.count(state, Hits::Return(1), 1_000).state;
            }
            prop_assert_eq!(state, State::default());
        }

        #[test]
        fn nothing_panics(
            limit: u32, lease_ms: u64, at: u64, used: u32, earlier: [u32; 8], n: u64, kind in 0usize..3, now: u64,
        ) {
            let hits = [Hits::Return(n), Hits::Take(n), Hits::Charge(n)][kind];
            let state = State { at, used: used.into(), earlier };
            let _ = Concurrency { limit, lease_ms }.count(state, hits, now);
        }
    }

    #[test]
    fn a_lost_lease_comes_back_to_a_busy_key() {
        let gauge = Concurrency { limit: 2, lease_ms: 800 };
        let mut state = gauge.count(State::default(), Hits::Take(1), 1_000).state;
        for now in 1_000..1_900 {
            let begin = gauge.count(state, Hits::Take(1), now);
            assert!(begin.allowed && begin.remaining == 0, "at {now}");
            state = gauge.count(begin.state, Hits::Return(1), now).state;
        }
        let begin = gauge.count(state, Hits::Take(1), 1_900);
        assert_eq!((begin.remaining, begin.reset_ms), (1, 0));
    }

    #[test]
    fn a_refused_hit_is_charged_and_asking_is_not() {
        let gauge = Concurrency { limit: 1, lease_ms: 1_000 };
        let one = gauge.count(State::default(), Hits::Take(1), 0);
        assert!(one.allowed && one.remaining == 0);
        let asked = gauge.count(one.state, Hits::Take(0), 1);
        assert!(!asked.allowed && asked.state == one.state);
        let two = gauge.count(one.state, Hits::Take(1), 2);
        let back = gauge.count(two.state, Hits::Return(1), 3);
        assert!(!two.allowed && back.remaining == 0 && !gauge.count(back.state, Hits::Take(0), 3).allowed);
        let back = gauge.count(back.state, Hits::Return(7), 4);
        assert_eq!((back.state, back.remaining), (State::default(), 1));
    }
}
