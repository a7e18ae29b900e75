//! So many hits in any window of a length, told from counts of its parts.
//!
//! The window up to now holds the part under way, seven whole parts before it, and the end of one more. That one's hits
//! are taken to have come evenly, so that they go out bit by bit, but at no more than the rate of the limit: the rest
//! goes at its end. So no window whatever holds more than an eighth above the limit, which takes somebody who knows the
//! grid; without the cap it would be twice the limit. Under traffic as it comes it is some 5 % more.

use super::parts::{Parts, add, give_back};
use super::{Hits, State, Verdict};

/// `requests` hits in any `window_ms`. The state is that of `parts`.
#[derive(Clone, Copy, Debug)]
pub struct SlidingWindow {
    /// Hits a window.
    pub requests: u32,
    /// The length of the window in milliseconds.
    pub window_ms: u64,
}

impl SlidingWindow {
    /// Counts `hits` at the time `now`. A clock that stepped back stays in its part.
    #[must_use]
    pub fn count(&self, state: State, hits: Hits, now: u64) -> Verdict {
        let parts = Parts::of(self.window_ms);
        let limit = u64::from(self.requests);
        let seen = parts.at(state, now);
        let used = parts.used(&seen, limit, now);
        let (allowed, after, wanted) = match hits {
            Hits::Return(n) => (true, give_back(seen, n), 0),
            Hits::Charge(n) => {
                let charged = if n > 0 { add(seen, n) } else { seen };
                let allowed = parts.used(&charged, limit, now) <= limit;
                (allowed, if n > 0 { charged } else { state }, 0)
            }
            Hits::Take(n) => {
                let allowed = used.saturating_add(n.max(1)) <= limit;
                (allowed, if allowed && n > 0 { add(seen, n) } else { state }, n.max(1))
            }
        };
        let counted = if after == state { seen } else { after };
        let idle_at = parts.idle_at(&counted, now);
        let free_at = match limit.checked_sub(wanted) {
            Some(room) if !allowed => parts.falls_to(&counted, limit, room),
            _ => idle_at,
        };
        Verdict {
            allowed,
            state: after,
            remaining: limit.saturating_sub(parts.used(&counted, limit, now)),
            reset_ms: free_at.saturating_sub(now),
            idle_at,
        }
    }
}

#[cfg(test)]
#[path = "sliding_window_tests.rs"]
mod tests;
