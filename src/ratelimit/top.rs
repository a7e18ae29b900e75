//! The keys with the most hits, by the space-saving sketch: a fixed number of places, and a key that has none takes over
//! the one with the fewest hits, and its count. So a count is never too low, and too high by `at_most_over` at the most;
//! a key with more than a 128th of its shard's hits always has a place.
//!
//! Who takes a place over is kept when it comes again. In a flood of keys most never do, and cost no copy.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::fingerprint::{Fingerprint, Fingerprints};
use crate::model::limit::Algorithm;

const SHARDS: usize = 8;
/// Places of a shard.
const PLACES: usize = 128;
/// Bytes of a key that is kept as a whole.
const LONGEST: usize = 1_024;

/// The sketch.
#[derive(Debug, Default)]
pub(super) struct TopKeys {
    /// Finds places, in less time than it takes to name a key.
    hasher: DefaultHashBuilder,
    fingerprints: Fingerprints,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    /// By the hashes of their keys.
    places: HashTable<usize>,
    /// Beside the keys, since they are searched for the fewest.
    hits: Vec<u64>,
    keys: Vec<Place>,
    /// No place has fewer hits, and none before this one has as few: so a flood, which takes one place over after the other,
    /// searches no more than it takes over.
    fewest: (u64, usize),
}

#[derive(Debug)]
struct Place {
    hash: u64,
    who: Option<Who>,
    at_most_over: u64,
    denied: u64,
    told: Option<Algorithm>,
}

#[derive(Clone, Debug)]
struct Who {
    fingerprint: Fingerprint,
    limit: Arc<str>,
    key: Option<Box<[Entry]>>,
}

/// A key that has a place; of those that took one over, one that has come since.
#[derive(Clone, Debug)]
pub(super) struct Hot {
    pub(super) fingerprint: Fingerprint,
    /// The limit's id.
    pub(super) limit: Arc<str>,
    /// None if it is too long to be kept.
    pub(super) key: Option<Box<[Entry]>>,
    pub(super) hits: u64,
    /// How much too high `hits` can be.
    pub(super) at_most_over: u64,
    /// Times that it was refused since it has the place.
    pub(super) denied: u64,
    /// The rate that it was counted by last, if that came with the request.
    pub(super) told: Option<Algorithm>,
}

impl TopKeys {
    /// Counts what was asked for a key, by the rate that was told for it, if one was.
    pub(super) fn count(
        &self,
        limit: &Arc<str>,
        key: &[Entry],
        hits: u64,
        denied: bool,
        told: Option<Algorithm>,
    ) {
        let hash = self.hash(limit, key);
        let mut shard = lock(&self.shards[(hash >> 32) as usize % SHARDS]);
        let who = || self.who(limit, key);
        let at = match shard.find(hash) {
            Some(at) => {
                shard.keys[at].who.get_or_insert_with(who);
                at
            }
            None if shard.keys.len() == PLACES => shard.take_over(hash),
            None => shard.add(hash, who()),
        };
        shard.hits[at] = shard.hits[at].saturating_add(hits);
        shard.keys[at].denied += u64::from(denied);
        shard.keys[at].told = told;
    }

    /// The name of a key.
    pub(super) fn fingerprint(&self, limit: &str, key: &[Entry]) -> Fingerprint {
        self.fingerprints.of(limit, key)
    }

    /// The key of this name, if it has a place.
    pub(super) fn get(&self, fingerprint: Fingerprint) -> Option<Hot> {
        self.shards.iter().find_map(|shard| {
            let shard = lock(shard);
            let named = |place: &Place| place.who.as_ref().is_some_and(|who| who.fingerprint == fingerprint);
            shard.hot(shard.keys.iter().position(named)?)
        })
    }

    /// All that have a place, those with the most hits first.
    pub(super) fn all(&self) -> Vec<Hot> {
        let mut all: Vec<Hot> = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            all.extend((0..shard.keys.len()).filter_map(|at| shard.hot(at)));
        }
        all.sort_by(|a, b| b.hits.cmp(&a.hits).then(a.fingerprint.cmp(&b.fingerprint)));
        all
    }

    fn hash(&self, limit: &str, key: &[Entry]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for part in key.iter().flat_map(|entry| [&*entry.key, &*entry.value]).chain([limit]) {
            hasher.write_usize(part.len());
            hasher.write(part.as_bytes());
        }
        hasher.finish()
    }

    fn who(&self, limit: &Arc<str>, key: &[Entry]) -> Who {
        let length: usize = key.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
        let fingerprint = self.fingerprint(limit, key);
        Who { fingerprint, limit: limit.clone(), key: (length <= LONGEST).then(|| key.into()) }
    }
}

impl Shard {
    fn find(&self, hash: u64) -> Option<usize> {
        self.places.find(hash, |at| self.keys[*at].hash == hash).copied()
    }

    fn add(&mut self, hash: u64, who: Who) -> usize {
        self.keys.push(Place { hash, who: Some(who), at_most_over: 0, denied: 0, told: None });
        self.hits.push(0);
        self.lead(hash, self.keys.len() - 1)
    }

    fn take_over(&mut self, hash: u64) -> usize {
        let at = self.fewest();
        let place = Place { hash, who: None, at_most_over: self.hits[at], denied: 0, told: None };
        let before = std::mem::replace(&mut self.keys[at], place).hash;
        if let Ok(place) = self.places.find_entry(before, |place| *place == at) {
            place.remove();
        }
        self.lead(hash, at)
    }

    /// Leads a hash that leads nowhere to a place.
    fn lead(&mut self, hash: u64, at: usize) -> usize {
        self.places.insert_unique(hash, at, |at| self.keys[*at].hash);
        at
    }

    /// A place with the fewest hits.
    fn fewest(&mut self) -> usize {
        let (fewest, from) = self.fewest;
        let next = (from..self.hits.len()).find(|at| self.hits[*at] == fewest);
        let at = next.unwrap_or_else(|| {
            // Hits only grow, so those that were passed by have more.
            self.fewest.0 = self.hits.iter().copied().min().unwrap_or_default();
            self.hits.iter().position(|hits| *hits == self.fewest.0).unwrap_or_default()
        });
        self.fewest.1 = at;
        at
    }

    fn hot(&self, at: usize) -> Option<Hot> {
        let Place { who, at_most_over, denied, told, .. } = &self.keys[at];
        let Who { fingerprint, limit, key } = who.clone()?;
        let hits = self.hits[at];
        Some(Hot { fingerprint, limit, key, hits, at_most_over: *at_most_over, denied: *denied, told: *told })
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Counts are whole whatever happened to another holder of the lock.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: impl ToString) -> [Entry; 1] {
        [Entry { key: "key".into(), value: value.to_string() }]
    }

    /// A few keys of many hits in a flood of 50,000 that come once.
    #[test]
    fn those_with_the_most_hits_outlast_a_flood() {
        let (top, limit) = (TopKeys::default(), Arc::from("l"));
        for n in 0..50_000 {
            top.count(&limit, &entry(n), 1, false, None);
            if n % 10 == 0 {
                top.count(&limit, &entry(format!("hot-{}", n % 4)), 2, n % 20 == 0, None);
            }
        }
        let all = top.all();
        assert!(all.len() <= SHARDS * PLACES, "{}", all.len());
        let mut first: Vec<_> = all[..2].iter().map(|hot| &hot.key.as_ref().unwrap()[0].value).collect();
        first.sort();
        assert_eq!(first, ["hot-0", "hot-2"]);
        for hot in &all {
            assert!(hot.hits >= hot.at_most_over, "{hot:?}");
        }
        for hot in &all[..2] {
            assert!(hot.hits >= 5_000 && hot.hits - hot.at_most_over <= 5_000, "{hot:?}");
        }
        assert_eq!(all.iter().map(|hot| hot.denied).sum::<u64>(), 2_500);
    }

    #[test]
    fn the_place_with_the_fewest_hits_is_taken_over() {
        let (mut shard, mut random) = (Shard::default(), 1_u64);
        let who = Who { fingerprint: Fingerprint(0), limit: Arc::from("l"), key: None };
        for n in 0..PLACES as u64 {
            shard.add(n, who.clone());
        }
        for n in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let least = *shard.hits.iter().min().unwrap();
            let at = match random >> 62 {
                0 => (random >> 33) as usize % PLACES,
                _ => shard.take_over(1_000 + n),
            };
            assert!(random >> 62 == 0 || shard.hits[at] == least, "{n}");
            shard.hits[at] += random >> 61 & 1;
        }
    }

    #[test]
    fn who_takes_a_place_over_is_told_when_it_comes_again() {
        let (top, limit) = (TopKeys::default(), Arc::from("l"));
        (0..50_000).for_each(|n| top.count(&limit, &entry(n), 1, false, None));
        let told = || top.all().iter().filter(|hot| hot.key.as_ref().unwrap()[0].value == "late").count();
        top.count(&limit, &entry("late"), 1, false, None);
        assert_eq!(told(), 0);
        top.count(&limit, &entry("late"), 1, false, None);
        assert_eq!(told(), 1);
    }

    #[test]
    fn a_key_that_is_too_long_is_counted_and_not_kept() {
        let (top, limit) = (TopKeys::default(), Arc::from("l"));
        top.count(&limit, &entry("x".repeat(LONGEST)), 1, false, None);
        let all = top.all();
        assert!(all[0].key.is_none() && all[0].hits == 1);
    }
}
