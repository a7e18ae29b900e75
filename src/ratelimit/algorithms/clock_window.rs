//! So many hits in a window of the clock or the calendar, the same for every key.

use super::{Hits, Now, State, Verdict};
use crate::values::calendar::Period;

/// `requests` hits in the window that it is. State: `used` hits in the window that began at `at`, in milliseconds since
/// 1970.
#[derive(Clone, Copy, Debug)]
pub struct ClockWindow {
    /// Hits a window.
    pub requests: u32,
    /// The window that now lies in.
    pub window: Period,
}

impl ClockWindow {
    /// The window of `window_ms` that now lies in, of those that follow on one another since 1970.
    #[must_use]
    pub fn aligned(requests: u32, window_ms: u64, now: Now) -> Self {
        let window_ms = window_ms.max(1);
        let start = now.unix_ms / window_ms * window_ms;
        Self { requests, window: Period { start, end: start.saturating_add(window_ms) } }
    }

    /// Counts `hits`. What was counted in any other window is gone.
    #[must_use]
    pub fn count(&self, state: State, hits: Hits, now: Now) -> Verdict {
        let limit = u64::from(self.requests);
        let Period { start, end } = self.window;
        let before = if state.at == start { state.used } else { 0 };
        let (allowed, used) = match hits {
            Hits::Return(n) => (true, before.saturating_sub(n)),
            Hits::Charge(n) => {
                let used = before.saturating_add(n);
                (used <= limit, used)
            }
            Hits::Take(n) => {
                let allowed = before.saturating_add(n.max(1)) <= limit;
                (allowed, if allowed { before + n } else { before })
            }
        };
        let left_ms = if used == 0 { 0 } else { end.saturating_sub(now.unix_ms) };
        let changed = State { at: start, used, ..State::default() };
        Verdict {
            allowed,
            state: match used {
                _ if used == before => state,
                0 => State::default(),
                _ => changed,
            },
            remaining: limit.saturating_sub(used),
            reset_ms: left_ms,
            idle_at: now.ticks.saturating_add(left_ms),
        }
    }

    /// The hits that it still holds.
    pub(super) fn held(&self, state: State) -> u64 {
        if state.at == self.window.start { state.used } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::limit::Algorithm;
    use crate::ratelimit::algorithms::count;
    use crate::values::calendar::{CalendarUnit, TimeZone};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// As envoyproxy/ratelimit counts: a counter for each number of a window.
        #[test]
        fn equals_a_counter_for_each_window(
            requests in 0u32..12, window_ms in 1u64..500,
            steps in prop::collection::vec((0u64..150, 0u64..4, 0usize..6), 1..150),
        ) {
            let algorithm = Algorithm::AlignedWindow { requests, window_ms };
            let mut windows: HashMap<u64, u64> = HashMap::new();
            let (mut state, mut unix_ms) = (State::default(), 1_000_000);
            for (ticks, (gap, n, kind)) in (0..).zip(steps) {
                unix_ms += gap;
                let window = unix_ms / window_ms;
                let used = windows.entry(window).or_default();
                let hits = [Hits::Return(n), Hits::Charge(n)].get(kind).copied().unwrap_or(Hits::Take(n));
                let verdict = count(&algorithm, state, hits, Now { ticks, unix_ms });
                let allowed = match hits {
                    Hits::Return(_) => true,
                    Hits::Charge(n) => *used + n <= u64::from(requests),
                    Hits::Take(n) => *used + n.max(1) <= u64::from(requests),
                };
                prop_assert_eq!(verdict.allowed, allowed);
                *used = match hits {
                    Hits::Return(n) => used.saturating_sub(n),
                    Hits::Take(_) if !allowed => *used,
                    Hits::Take(n) | Hits::Charge(n) => *used + n,
                };
                prop_assert_eq!(verdict.remaining, u64::from(requests).saturating_sub(*used));
                let end = (window + 1) * window_ms;
                prop_assert_eq!(verdict.reset_ms, if *used > 0 { end - unix_ms } else { 0 });
                prop_assert_eq!(verdict.idle_at, ticks + verdict.reset_ms);
                state = verdict.state;
                let later = Now { ticks: verdict.idle_at, unix_ms: unix_ms + verdict.reset_ms };
                for hits in [Hits::Take(1), Hits::Return(1)] {
                    let (kept, fresh) =
                        (count(&algorithm, state, hits, later), count(&algorithm, State::default(), hits, later));
                    prop_assert_eq!((kept.allowed, kept.remaining), (fresh.allowed, fresh.remaining));
                }
            }
        }

        #[test]
        fn nothing_panics(
            requests: u32, window_ms: u64, at: u64, used: u64, n: u64, kind in 0usize..3, ticks: u64, unix_ms: u64,
        ) {
            let hits = [Hits::Return(n), Hits::Take(n), Hits::Charge(n)][kind];
            let state = State { at, used, ..State::default() };
            let time_zone = TimeZone::parse("Europe/Berlin").unwrap();
            for algorithm in [
                Algorithm::AlignedWindow { requests, window_ms },
                Algorithm::Calendar { requests, unit: CalendarUnit::Week, time_zone },
            ] {
                let _ = count(&algorithm, state, hits, Now { ticks, unix_ms });
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let algorithm = Algorithm::AlignedWindow { requests: 1, window_ms: 1_000 };
        let one = count(&algorithm, State::default(), Hits::Take(1), Now { ticks: 10, unix_ms: 9_000_500 });
        let two = count(&algorithm, one.state, Hits::Take(1), Now { ticks: 20, unix_ms: 1_000_900 });
        assert!(two.allowed && two.reset_ms == 100 && two.idle_at == 120);
        assert!(!count(&algorithm, two.state, Hits::Take(1), Now { ticks: 30, unix_ms: 1_000_910 }).allowed);
    }

    #[test]
    fn a_month_ends_at_midnight_of_its_place() {
        let time_zone = TimeZone::parse("America/New_York").unwrap();
        let algorithm = Algorithm::Calendar { requests: 2, unit: CalendarUnit::Month, time_zone };
        let at = |time: &str| {
            let unix_ms: i64 = time.parse::<jiff::Timestamp>().unwrap().as_millisecond();
            Now { ticks: 5, unix_ms: unix_ms.try_into().unwrap() }
        };
        let one = count(&algorithm, State::default(), Hits::Take(2), at("2026-11-21T21:00:00Z"));
        assert_eq!((one.allowed, one.remaining, one.reset_ms), (true, 0, (9 * 24 + 8) * 3_600_000));
        let last = count(&algorithm, one.state, Hits::Take(1), at("2026-12-01T04:59:59.999Z"));
        assert_eq!((last.allowed, last.reset_ms, last.idle_at), (false, 1, 6));
        let next = count(&algorithm, last.state, Hits::Take(1), at("2026-12-01T05:00:00Z"));
        assert_eq!((next.allowed, next.remaining), (true, 1));
    }
}
