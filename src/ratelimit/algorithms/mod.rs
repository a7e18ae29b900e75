//! How hits are counted: pure functions over a small state, with the time passed in.
//!
//! Times are milliseconds on one clock that only goes forward, but for the windows of the clock and the calendar, which
//! go by the wall clock. The state of a key that was never seen, and of one
//! that has been idle for long enough, is [`State::default`].

pub mod clock_window;
pub mod concurrency;
pub mod fixed_window;
pub mod gcra;
mod parts;
pub mod sliding_window;

use clock_window::ClockWindow;
use concurrency::Concurrency;
use fixed_window::FixedWindow;
use gcra::Gcra;
use parts::Parts;
use sliding_window::SlidingWindow;

use crate::model::limit::Algorithm;

/// What a counter remembers; its meaning is the algorithm's. The default one equals an absent counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The time that `used` is counted from.
    pub at: u64,
    /// What is used up; without `earlier`, 0 means that nothing is remembered.
    pub used: u64,
    /// What was used up before, for the algorithms that [`has_parts`] names; the others leave it alone.
    pub earlier: [u32; 8],
}

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that only goes forward.
    pub ticks: u64,
    /// Milliseconds since 1970, by a clock that may be set.
    pub unix_ms: u64,
}

/// A moment at which both clocks show the same.
impl From<u64> for Now {
    fn from(ms: u64) -> Self {
        Self { ticks: ms, unix_ms: ms }
    }
}

/// What a request wants of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hits {
    /// So many hits, all or none. 0 only asks whether one more would be allowed.
    Take(u64),
    /// So many hits, which stay taken even if they are refused. 0 only asks whether none was refused so far.
    Charge(u64),
    /// So many hits given back, never more than were taken. Always allowed.
    Return(u64),
}

/// What an algorithm says. A refusal leaves the state as it was, but for [`Hits::Charge`] and [`charges_refusals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the hits are allowed.
    pub allowed: bool,
    /// The state after them.
    pub state: State,
    /// Hits that would still be allowed at once.
    pub remaining: u64,
    /// After a refusal, milliseconds until these hits are allowed, or, where they never are, until nothing is
    /// used; else milliseconds until nothing is used. 0 where that is for others to say.
    pub reset_ms: u64,
    /// From this time on the state equals the default one.
    pub idle_at: u64,
}

/// Counts `hits` at the time `now`.
#[must_use]
pub fn count(algorithm: &Algorithm, state: State, hits: Hits, now: impl Into<Now>) -> Verdict {
    let now = now.into();
    match *algorithm {
        Algorithm::Gcra { requests, period_ms, burst } => {
            Gcra { requests, period_ms, burst }.count(state, hits, now.ticks)
        }
        Algorithm::FixedWindow { requests, window_ms } => {
            FixedWindow { requests, window_ms }.count(state, hits, now.ticks)
        }
        Algorithm::AlignedWindow { requests, window_ms } => {
            ClockWindow::aligned(requests, window_ms, now).count(state, hits, now)
        }
        Algorithm::SlidingWindow { requests, window_ms } => {
            SlidingWindow { requests, window_ms }.count(state, hits, now.ticks)
        }
        Algorithm::Calendar { requests, unit, time_zone } => {
            ClockWindow { requests, window: time_zone.period(unit, now.unix_ms) }.count(state, hits, now)
        }
        Algorithm::Concurrency { limit, lease_ms } => {
            Concurrency { limit, lease_ms }.count(state, hits, now.ticks)
        }
    }
}

/// The hits that a counter still holds at the time `now`, each with how many parts of its span ago they were counted: 0 but for
/// those that [`has_parts`] names.
#[must_use]
pub fn held(algorithm: &Algorithm, state: State, now: impl Into<Now>) -> Vec<(u64, u64)> {
    let now = now.into();
    let whole = match *algorithm {
        Algorithm::SlidingWindow { window_ms: span_ms, .. }
        | Algorithm::Concurrency { lease_ms: span_ms, .. } => {
            return Parts::of(span_ms).held(state, now.ticks);
        }
        Algorithm::Gcra { requests, period_ms, burst } => {
            Gcra { requests, period_ms, burst }.held(state, now.ticks)
        }
        Algorithm::FixedWindow { requests, window_ms } => {
            FixedWindow { requests, window_ms }.held(state, now.ticks)
        }
        Algorithm::AlignedWindow { requests, window_ms } => {
            ClockWindow::aligned(requests, window_ms, now).held(state)
        }
        Algorithm::Calendar { requests, unit, time_zone } => {
            ClockWindow { requests, window: time_zone.period(unit, now.unix_ms) }.held(state)
        }
    };
    if whole > 0 { vec![(whole, 0)] } else { Vec::new() }
}

/// Whether a hit is charged even when it, or its request, is refused: Envoy gives back those of refused requests too.
#[must_use]
pub fn charges_refusals(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Concurrency { .. })
}

/// Whether states have more than [`State::at`] and [`State::used`]. If so, neither `used` nor a count is more than a
/// `u32`.
#[must_use]
pub fn has_parts(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::SlidingWindow { .. } | Algorithm::Concurrency { .. })
}
