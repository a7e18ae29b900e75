//! So many hits in a window that begins with a key's first hit.
//!
//! A window of its own for each key means that "5 a minute" lets through 5, whatever the second on the clock, and
//! that no two clients are freed at the same moment. Two windows side by side still let through twice the limit
//! around their boundary, which is what a fixed window is.

use super::{Hits, State, Verdict};

/// `requests` hits a window of `window_ms`. State: `used` hits in the window that began at `at`.
#[derive(Clone, Copy, Debug)]
pub struct FixedWindow {
    /// Hits a window.
    pub requests: u32,
    /// The length of the window in milliseconds.
    pub window_ms: u64,
}

impl FixedWindow {
    /// Counts `hits` at the time `now`. A clock that stepped back stays in the window.
    #[must_use]
    pub fn count(&self, state: State, hits: Hits, now: u64) -> Verdict {
        let limit = u64::from(self.requests);
        let fresh = state.used == 0 || now >= state.at.saturating_add(self.window_ms);
        let window = if fresh { State { at: now, ..State::default() } } else { state };
        let (allowed, used) = match hits {
            Hits::Return(n) => (true, window.used.saturating_sub(n)),
            Hits::Charge(n) => {
                let used = window.used.saturating_add(n);
                (used <= limit, used)
            }
            Hits::Take(n) => {
                let allowed = window.used.saturating_add(n.max(1)) <= limit;
                (allowed, if allowed { window.used + n } else { window.used })
            }
        };
        let changed = used != window.used;
        let ends_at = window.at.saturating_add(self.window_ms);
        let after = if changed { State { used, ..window } } else { state };
        Verdict {
            allowed,
            state: after,
            remaining: limit.saturating_sub(used),
            reset_ms: if used == 0 { 0 } else { ends_at.saturating_sub(now) },
            idle_at: if used == 0 { now } else { ends_at },
        }
    }

    /// The hits that it still holds.
    pub(super) fn held(&self, state: State, now: u64) -> u64 {
        if now < state.at.saturating_add(self.window_ms) { state.used } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every hit ever allowed, kept in a list for each window: the definition, without arithmetic on a state.
    #[derive(Default)]
    struct Log {
        window: Vec<u64>,
    }

    impl Log {
        fn hit(&mut self, limit: u32, window_ms: u64, now: u64, n: u64) -> bool {
            if self.window.first().is_some_and(|first| now - first >= window_ms) {
                self.window.clear();
            }
            let allowed = self.window.len() as u64 + n <= u64::from(limit);
            if allowed {
                self.window.extend(std::iter::repeat_n(now, usize::try_from(n).unwrap()));
            }
            allowed
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn equals_the_log_to_the_hit(
            requests in 0u32..12, window_ms in 1u64..500,
            hits in prop::collection::vec((0u64..90, 1u64..4), 1..200),
        ) {
            let (mut log, mut state, mut now) = (Log::default(), State::default(), 0);
            for (gap, n) in hits {
                now += gap;
                let verdict = FixedWindow { requests, window_ms }.count(state, Hits::Take(n), now);
                prop_assert_eq!(verdict.allowed, log.hit(requests, window_ms, now, n), "at {}", now);
                prop_assert_eq!(verdict.remaining, u64::from(requests) - log.window.len() as u64);
                state = verdict.state;
            }
        }

        #[test]
        fn nothing_panics(requests: u32, window_ms: u64, at: u64, used: u64, n: u64, kind in 0usize..3, now: u64) {
            let hits = [Hits::Return(n), Hits::Take(n), Hits::Charge(n)][kind];
            let _ = FixedWindow { requests, window_ms }.count(State { at, used, ..State::default() }, hits, now);
        }
    }

    #[test]
    fn what_is_charged_counts_beyond_the_limit() {
        let window = FixedWindow { requests: 10, window_ms: 1_000 };
        let mut state = State::default();
        for (hits, allowed, used, remaining) in [
            (Hits::Charge(8), true, 8, 2),
            (Hits::Take(5), false, 8, 2),
            (Hits::Charge(2), true, 10, 0),
            (Hits::Charge(0), true, 10, 0),
            (Hits::Take(0), false, 10, 0),
            (Hits::Charge(5), false, 15, 0),
            (Hits::Charge(0), false, 15, 0),
            (Hits::Return(4), true, 11, 0),
            (Hits::Return(1), true, 10, 0),
            (Hits::Charge(0), true, 10, 0),
            (Hits::Charge(u64::MAX), false, u64::MAX, 0),
        ] {
            let verdict = window.count(state, hits, 5);
            assert_eq!(
                (verdict.allowed, verdict.state.used, verdict.remaining),
                (allowed, used, remaining),
                "{hits:?}"
            );
            state = verdict.state;
        }
        assert!(window.count(state, Hits::Charge(10), 1_005).allowed, "the next window");
    }

    #[test]
    fn the_window_begins_with_the_first_hit() {
        let window = FixedWindow { requests: 2, window_ms: 1_000 };
        let first = window.count(State::default(), Hits::Take(1), 700);
        let second = window.count(first.state, Hits::Take(1), 1_600);
        let third = window.count(second.state, Hits::Take(1), 1_699);
        assert!(first.allowed && first.remaining == 1 && first.reset_ms == 1_000);
        assert!(second.allowed && second.remaining == 0 && second.reset_ms == 100);
        assert!(!third.allowed && third.reset_ms == 1 && third.state == second.state);
        let next = window.count(third.state, Hits::Take(2), 1_700);
        assert!(next.allowed && next.remaining == 0 && next.idle_at == 2_700);
        assert_eq!(window.count(next.state, Hits::Return(5), 1_800).remaining, 2);
    }
}
