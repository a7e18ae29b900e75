//! Counters in this process: a bounded, sharded table.
//!
//! Each shard is a plain map behind its own lock, and a request that asks several limits holds the locks of all its
//! counters, taken in order, while it decides: so "all or none" is exact, which a concurrent map that locks one entry
//! at a time cannot give.
//!
//! The table never forgets a counter that matters. A counter that has been idle for long enough equals one that does
//! not exist; when a shard would grow, those go first. If it is full even so, keys that have no counter share their
//! limit's one overflow counter, and a key that gets a counter while that one is in use begins with what it has used.
//! So a flood of keys may be refused too much but is never allowed more.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use smallvec::SmallVec;

use super::cells::Cells;
use super::key::{CounterKey, Secret};
pub use super::saved::{Saved, SavedCell};
use super::{Ask, Counters, Hits, Outcome, StoreState, Unavailable, admitted};
use crate::clock;
use crate::ratelimit::algorithms::{Now, State, Verdict, charges_refusals, count, has_parts};

/// Counters that a table holds unless told otherwise. It fills the maps of all shards to the brim (7 of 8 places in
/// 16,384), which takes 43 MB of the small ones and 68 MB of those with parts.
pub const DEFAULT_CAPACITY: usize = SHARDS * 14_336;

/// The most shards: enough that a search of one holds up few others, and not for long.
const SHARDS: usize = 64;

/// The table. Its clock starts with it, or goes on with that of one that was saved, and only goes forward.
pub struct Memory {
    shards: Box<[Mutex<Cells>]>,
    shard_capacity: usize,
    /// One counter for each limit that has had more keys than fit. Locked after the shards.
    overflow: Mutex<Cells>,
    /// How many overflow counters there are; tells without the lock that there are none.
    overflowing: AtomicUsize,
    overflowed: AtomicU64,
    evicted: AtomicU64,
    secret: Secret,
    epoch: Instant,
    /// What its clock showed then: more than 0 if it goes on with that of a process before.
    base: u64,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memory").field(&self.usage()).finish()
    }
}

/// What a table holds and has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Counters held, idle ones too.
    pub counters: usize,
    /// The most counters it will hold.
    pub capacity: usize,
    /// Idle counters dropped so far.
    pub evicted: u64,
    /// Decisions so far that fell to a limit's overflow counter since the table was full.
    pub overflowed: u64,
}

/// Where an ask's state is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Own(CounterKey),
    Overflow(CounterKey),
}

struct Charge {
    place: Place,
    before: State,
    verdict: Verdict,
}

/// Most requests ask no more than this, and then need no memory for it.
type Few<T> = SmallVec<[T; 4]>;

/// The locks that one decision holds.
struct Held<'a> {
    shards: Few<(usize, MutexGuard<'a, Cells>)>,
    overflow: Option<MutexGuard<'a, Cells>>,
}

impl Held<'_> {
    fn shard(&mut self, index: usize) -> &mut Cells {
        let at = self.shards.iter().position(|(held, _)| *held == index);
        &mut self.shards[at.expect("the shards of all asks are locked before any is read")].1
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

impl Memory {
    /// A table of at most `capacity` counters (at least one), overflow counters not included.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let shards = (capacity / 256).clamp(1, SHARDS);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_capacity: (capacity / shards).max(1),
            overflow: Mutex::default(),
            overflowing: AtomicUsize::new(0),
            overflowed: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            secret: Secret::random(),
            epoch: Instant::now(),
            base: 0,
        }
    }

    /// A table that goes on with what another one saved, of the same capacity. While there was none, its clock went on.
    #[must_use]
    pub fn resumed(saved: &Saved) -> Self {
        let away = unix_ms().saturating_sub(saved.unix_ms);
        let base = saved.ticks.saturating_add(away);
        let table = Self { secret: Secret(saved.secret), base, ..Self::default() };
        for cell in saved.cells.iter().filter(|cell| cell.idle_at > base) {
            let key = CounterKey { high: cell.key.0, low: cell.key.1 };
            let mut shard = lock(&table.shards[table.shard_of(key)]);
            if shard.len() < table.shard_capacity {
                shard.insert(key, cell.has_parts, cell.state, cell.idle_at);
            }
        }
        table
    }

    /// The counters of quotas of a day and more. Decisions go on meanwhile, so one may be in it in part.
    #[must_use]
    pub fn saved(&self) -> Saved {
        let (ticks, mut cells) = (self.ticks(), Vec::new());
        for shard in &self.shards {
            cells.extend(lock(shard).lasting(ticks));
        }
        Saved { secret: self.secret.0, ticks, unix_ms: unix_ms(), cells }
    }

    fn ticks(&self) -> u64 {
        self.base.saturating_add(ms(self.epoch.elapsed()))
    }

    /// What it holds now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            counters: self.shards.iter().map(|shard| lock(shard).len()).sum(),
            capacity: self.shard_capacity * self.shards.len(),
            evicted: self.evicted.load(Ordering::Relaxed),
            overflowed: self.overflowed.load(Ordering::Relaxed),
        }
    }

    /// Answers as of the time `now`.
    #[must_use]
    pub fn decide_at(&self, asks: &[Ask<'_>], now: impl Into<Now>) -> Vec<Outcome> {
        let now = now.into();
        let keys: Few<CounterKey> = asks.iter().map(|ask| self.secret.counter(ask.limit, ask.key)).collect();
        let mut held = self.hold(&keys);
        let mut charges = Few::new();
        for (ask, key) in asks.iter().zip(keys) {
            let (place, before) = self.find(&mut held, &charges, ask, key, now.ticks);
            charges.push(Charge {
                place,
                before,
                verdict: count(&ask.limit.algorithm, before, ask.hits, now),
            });
        }
        let answers = asks.iter().zip(&charges).map(|(ask, charge)| (ask.role, charge.verdict.allowed));
        if !admitted(answers) {
            revoke(asks, &mut charges, now);
        }
        for (ask, charge) in asks.iter().zip(&charges) {
            if charge.verdict.state != charge.before {
                self.store(&mut held, ask, charge);
            }
        }
        charges.iter().map(|Charge { verdict, .. }| outcome(verdict)).collect()
    }

    /// Keeps what is known of a counter from elsewhere, if there is room.
    pub(super) fn put(&self, ask: &Ask<'_>, state: State, now: u64, idle_at: u64) {
        let key = self.secret.counter(ask.limit, ask.key);
        let has_parts = has_parts(&ask.limit.algorithm);
        let mut shard = lock(&self.shards[self.shard_of(key)]);
        if shard.get(key, has_parts).is_some() || self.has_room(&mut shard, has_parts, now) {
            shard.insert(key, has_parts, state, idle_at);
        }
    }

    /// Locks the shards of these keys in order of their index, so that no two decisions wait for each other.
    fn hold(&self, keys: &[CounterKey]) -> Held<'_> {
        let mut wanted: Few<usize> = keys.iter().map(|key| self.shard_of(*key)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        Held {
            shards: wanted.into_iter().map(|index| (index, lock(&self.shards[index]))).collect(),
            overflow: None,
        }
    }

    fn shard_of(&self, key: CounterKey) -> usize {
        (key.high % self.shards.len() as u64) as usize
    }

    /// Where an ask's counter is and what it says, earlier asks of the same request included.
    fn find<'a>(
        &'a self,
        held: &mut Held<'a>,
        earlier: &[Charge],
        ask: &Ask<'_>,
        key: CounterKey,
        now: u64,
    ) -> (Place, State) {
        let own = Place::Own(key);
        if let Some(state) = state_at(earlier, own) {
            return (own, state);
        }
        let has_parts = has_parts(&ask.limit.algorithm);
        let shard = held.shard(self.shard_of(key));
        if let Some(state) = shard.get(key, has_parts) {
            return (own, state);
        }
        let room = self.has_room(shard, has_parts, now);
        if room && self.overflowing.load(Ordering::Acquire) == 0 {
            return (own, State::default());
        }
        if !room {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
        let key = self.secret.overflow(ask.limit);
        let shared = Place::Overflow(key);
        let used = state_at(earlier, shared).or_else(|| self.overflow(held, now).get(key, has_parts));
        match (used, ask.hits) {
            // What a key without a counter gives back was taken here.
            (Some(state), Hits::Return(_)) => (shared, state),
            (used, _) => (if room { own } else { shared }, used.unwrap_or_default()),
        }
    }

    fn overflow<'a, 'h>(&'a self, held: &'h mut Held<'a>, now: u64) -> &'h mut Cells {
        let overflow = held.overflow.get_or_insert_with(|| lock(&self.overflow));
        overflow.sweep(now);
        self.overflowing.store(overflow.len(), Ordering::Release);
        overflow
    }

    /// Whether one more counter fits. Where the map would grow for it, the idle ones go first.
    fn has_room(&self, shard: &mut Cells, has_parts: bool, now: u64) -> bool {
        if shard.len() >= self.shard_capacity || shard.is_brimful(has_parts) {
            let evicted = shard.sweep(now);
            self.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
        }
        shard.len() < self.shard_capacity
    }

    fn store<'a>(&'a self, held: &mut Held<'a>, ask: &Ask<'_>, charge: &Charge) {
        let has_parts = has_parts(&ask.limit.algorithm);
        let Verdict { state, idle_at, .. } = charge.verdict;
        match charge.place {
            Place::Own(key) => held.shard(self.shard_of(key)).insert(key, has_parts, state, idle_at),
            Place::Overflow(key) => {
                let overflow = held.overflow.get_or_insert_with(|| lock(&self.overflow));
                overflow.insert(key, has_parts, state, idle_at);
                self.overflowing.store(overflow.len(), Ordering::Release);
            }
        }
    }
}

/// The state that earlier charges of the same request left at a place.
fn state_at(charges: &[Charge], place: Place) -> Option<State> {
    charges.iter().rev().find(|charge| charge.place == place).map(|charge| charge.verdict.state)
}

/// Takes back what was taken, since the request does not go through. What was given back stays given, and what is to be
/// charged in any case stays charged.
fn revoke(asks: &[Ask<'_>], charges: &mut [Charge], now: Now) {
    for (at, ask) in asks.iter().enumerate() {
        let (earlier, rest) = charges.split_at_mut(at);
        let charge = &mut rest[0];
        charge.before = state_at(earlier, charge.place).unwrap_or(charge.before);
        let algorithm = &ask.limit.algorithm;
        charge.verdict = match ask.hits {
            Hits::Take(_) if charges_refusals(algorithm) => count(algorithm, charge.before, ask.hits, now),
            Hits::Take(_) if !charge.verdict.allowed => Verdict { state: charge.before, ..charge.verdict },
            Hits::Take(_) => {
                let uncharged = count(algorithm, charge.before, Hits::Take(0), now);
                Verdict { allowed: true, ..uncharged }
            }
            Hits::Charge(_) | Hits::Return(_) => count(algorithm, charge.before, ask.hits, now),
        };
    }
}

fn lock(cells: &Mutex<Cells>) -> MutexGuard<'_, Cells> {
    cells.lock().unwrap_or_else(PoisonError::into_inner)
}

fn outcome(verdict: &Verdict) -> Outcome {
    Outcome { allowed: verdict.allowed, remaining: verdict.remaining, reset_ms: verdict.reset_ms }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms() -> u64 {
    ms(clock::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl Counters for Memory {
    async fn decide(&self, asks: &[Ask<'_>]) -> Result<Vec<Outcome>, Unavailable> {
        Ok(self.decide_at(asks, Now { ticks: self.ticks(), unix_ms: unix_ms() }))
    }

    fn state(&self) -> Option<StoreState> {
        Some(StoreState { kind: "memory", usage: self.usage(), shared: None })
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
