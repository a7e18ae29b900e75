//! What a table hands over to the process after it: the counters of quotas of a day and more.

use crate::model::limit::Algorithm;
use crate::ratelimit::algorithms::State;

const DAY_MS: u64 = 86_400_000;

/// Whether a limit's counters are worth keeping over a restart.
pub(super) fn is_lasting(algorithm: &Algorithm) -> bool {
    algorithm.quota().1 >= DAY_MS
}

/// Counters, with what is needed to go on with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Under which their keys are hashed.
    pub secret: [u8; 192],
    /// The table's clock.
    pub ticks: u64,
    /// The wall clock at that moment, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The counters.
    pub cells: Vec<SavedCell>,
}

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedCell {
    /// Its key: a hash.
    pub key: (u64, u64),
    /// Whether its state has parts.
    pub has_parts: bool,
    /// What it has counted.
    pub state: State,
    /// The time on the table's clock from which on it equals none.
    pub idle_at: u64,
}
