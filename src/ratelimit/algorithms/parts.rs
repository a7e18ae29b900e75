//! Counts of the parts of a span of time: an eighth of it each, on the clock's own grid.
//!
//! Nine parts are kept, the one under way and the eight before it, so that the span up to any moment lies within
//! them. State: `at` is the number of the part under way at the last change, `used` its count, `earlier` the counts
//! of the parts before it, the latest first.

use super::State;

/// The parts of a span.
const PARTS: u64 = 8;

/// A span of time and the grid of its parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    span_ms: u64,
}

impl Parts {
    pub(super) fn of(span_ms: u64) -> Self {
        Self { span_ms: span_ms.max(1) }
    }

    /// The number of the part that a time falls into.
    pub(super) fn index(self, now: u64) -> u64 {
        now.saturating_mul(PARTS) / self.span_ms
    }

    /// The first millisecond of the part of this number.
    pub(super) fn start(self, index: u64) -> u64 {
        index.saturating_mul(self.span_ms).div_ceil(PARTS)
    }

    /// The state with the part of `now` under way. A clock that stepped back stays in its part.
    pub(super) fn at(self, state: State, now: u64) -> State {
        let index = self.index(now);
        if state == State::default() {
            return State { at: index, ..state };
        }
        let mut next = state;
        while next.at < index {
            if total(&next) == 0 {
                return State { at: index, ..State::default() };
            }
            next.earlier.rotate_right(1);
            next.earlier[0] = u32::try_from(next.used).unwrap_or(u32::MAX);
            next.used = 0;
            next.at += 1;
        }
        next
    }

    /// When the last count is older than the span and a part, so that the state equals the default one.
    pub(super) fn idle_at(self, state: &State, now: u64) -> u64 {
        let parts = std::iter::once(state.used).chain(state.earlier.iter().map(|count| u64::from(*count)));
        match (0..).zip(parts).find(|(_, count)| *count > 0) {
            Some((age, _)) => self.start(state.at.saturating_sub(age).saturating_add(PARTS + 1)),
            None => now,
        }
    }
}

/// All counts together.
pub(super) fn total(state: &State) -> u64 {
    state.earlier.iter().fold(state.used, |sum, count| sum.saturating_add(u64::from(*count)))
}

/// Adds to the part under way, which holds no more than a `u32`.
pub(super) fn add(state: State, n: u64) -> State {
    State { used: state.used.saturating_add(n).min(u64::from(u32::MAX)), ..state }
}

/// Takes away from the latest counts first. What is left of a state without counts is the default one.
pub(super) fn give_back(mut state: State, n: u64) -> State {
    let mut left = n;
    let current = state.used.min(left);
    state.used -= current;
    left -= current;
    for count in &mut state.earlier {
        let taken = u32::try_from(left).unwrap_or(u32::MAX).min(*count);
        *count -= taken;
        left -= u64::from(taken);
    }
    if total(&state) == 0 { State::default() } else { state }
}
