//! The counters of one shard: two maps, since most states are small and need not be as large as the largest.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::key::{AsIs, CounterKey};
use super::saved::SavedCell;
use crate::ratelimit::algorithms::State;

/// A shard looks for idle counters no more often than this, in milliseconds, so that a flood cannot make every hit
/// search the table.
const SWEEP_EVERY_MS: u64 = 250;

type Map<T> = HashMap<CounterKey, T, BuildHasherDefault<AsIs>>;

/// 40 bytes with its key.
struct Small {
    at: u64,
    used: u64,
    idle_at: u64,
}

/// A state with parts; 64 bytes with its key. A second more or less matters little to when it goes.
struct Parted {
    at: u64,
    used: u32,
    earlier: [u32; 8],
    idle_at_second: u32,
}

/// Counters, and when the idle ones were last dropped.
#[derive(Default)]
pub(super) struct Cells {
    small: Map<Small>,
    parted: Map<Parted>,
    swept_at: u64,
}

impl Cells {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.small.len() + self.parted.len()
    }

    /// Whether the map would have to grow for one more counter.
    pub(super) fn is_brimful(&self, has_parts: bool) -> bool {
        if has_parts {
            self.parted.len() == self.parted.capacity()
        } else {
            self.small.len() == self.small.capacity()
        }
    }

    pub(super) fn get(&self, key: CounterKey, has_parts: bool) -> Option<State> {
        if has_parts {
            let cell = self.parted.get(&key)?;
            Some(State { at: cell.at, used: cell.used.into(), earlier: cell.earlier })
        } else {
            let cell = self.small.get(&key)?;
            Some(State { at: cell.at, used: cell.used, ..State::default() })
        }
    }

    pub(super) fn insert(&mut self, key: CounterKey, has_parts: bool, state: State, idle_at: u64) {
        let State { at, used, earlier } = state;
        if has_parts {
            let used = u32::try_from(used).unwrap_or(u32::MAX);
            let idle_at_second = u32::try_from(idle_at.div_ceil(1_000)).unwrap_or(u32::MAX);
            self.parted.insert(key, Parted { at, used, earlier, idle_at_second });
        } else {
            self.small.insert(key, Small { at, used, idle_at });
        }
    }

    /// The counters that are worth keeping over a restart.
    pub(super) fn lasting(&self, now: u64) -> impl Iterator<Item = SavedCell> {
        let cell = |key: &CounterKey, has_parts, idle_at| {
            let state = self.get(*key, has_parts).unwrap_or_default();
            SavedCell { key: (key.high, key.low), has_parts, state, idle_at }
        };
        let small = self.small.iter().map(move |(key, found)| (*key, false, found.idle_at));
        let parted =
            self.parted.iter().map(|(key, found)| (*key, true, u64::from(found.idle_at_second) * 1_000));
        let lasting = small.chain(parted).filter(move |(key, _, idle_at)| key.is_lasting() && *idle_at > now);
        lasting.map(move |(key, has_parts, idle_at)| cell(&key, has_parts, idle_at))
    }

    /// Drops the counters that equal none, unless that was done a moment ago. Returns how many went.
    pub(super) fn sweep(&mut self, now: u64) -> usize {
        if now < self.swept_at.saturating_add(SWEEP_EVERY_MS) {
            return 0;
        }
        self.swept_at = now;
        let before = self.len();
        self.small.retain(|_, cell| cell.idle_at > now);
        self.parted.retain(|_, cell| u64::from(cell.idle_at_second) * 1_000 > now);
        before - self.len()
    }
}
