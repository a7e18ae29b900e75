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
        let gone = if state == State::default() { u64::MAX } else { index.saturating_sub(state.at) };
        match usize::try_from(gone) {
            Ok(0) => state,
            Ok(gone) if gone <= state.earlier.len() => {
                let mut earlier = [0; 8];
                earlier[gone - 1] = u32::try_from(state.used).unwrap_or(u32::MAX);
                earlier[gone..].copy_from_slice(&state.earlier[..8 - gone]);
                State { at: index, used: 0, earlier }
            }
            _ => State { at: index, ..State::default() },
        }
    }

    /// What lies in the span up to `now`, of a state whose part under way is that of `now`. The earliest part goes out
    /// bit by bit, as if its hits had come evenly, but no faster than at the rate of `limit` a span; rounded up.
    pub(super) fn used(self, state: &State, limit: u64, now: u64) -> u64 {
        let passed = now.saturating_mul(PARTS).saturating_sub(state.at.saturating_mul(self.span_ms));
        let passed = u128::from(passed.min(self.span_ms));
        let out = Self::out_rate(state, limit) * passed / (u128::from(PARTS) * u128::from(self.span_ms));
        total(state).saturating_sub(u64::try_from(out).unwrap_or(u64::MAX))
    }

    /// When [`Self::used`] falls to `room`, if nothing is added.
    pub(super) fn falls_to(self, state: &State, limit: u64, room: u64) -> u64 {
        let mut later = *state;
        for _ in 0..=PARTS {
            let too_many = total(&later).saturating_sub(room);
            let needed = u128::from(too_many) * u128::from(PARTS) * u128::from(self.span_ms);
            let passed = match Self::out_rate(&later, limit) {
                _ if too_many == 0 => Some(0),
                0 => None,
                rate => u64::try_from(needed.div_ceil(rate)).ok().filter(|passed| *passed < self.span_ms),
            };
            if let Some(passed) = passed {
                return later.at.saturating_mul(self.span_ms).saturating_add(passed).div_ceil(PARTS);
            }
            later = self.at(later, self.start(later.at.saturating_add(1)));
        }
        self.start(later.at)
    }

    /// The counts that are not older than the span, each with its part's age.
    pub(super) fn held(self, state: State, now: u64) -> Vec<(u64, u64)> {
        let state = self.at(state, now);
        let counts = std::iter::once(state.used).chain(state.earlier.into_iter().map(u64::from));
        counts.zip(0..).filter(|(count, _)| *count > 0).collect()
    }

    /// How many hits of the earliest part go out in a span, at the pace of this part.
    fn out_rate(state: &State, limit: u64) -> u128 {
        (u128::from(state.earlier[7]) * u128::from(PARTS)).min(u128::from(limit))
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
