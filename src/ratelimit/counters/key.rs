//! The keys of counters: 128-bit hashes under a secret that each process draws anew, so that nobody can choose
//! header values that share a counter, and that a key costs the same memory however long the value is.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::saved::is_lasting;
use crate::model::limit::{Algorithm, Limit};

/// The key of one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CounterKey {
    /// Picks the shard.
    pub(super) high: u64,
    pub(super) low: u64,
}

impl CounterKey {
    /// Whether the counter is worth keeping over a restart; a bit of the hash says so.
    pub(super) fn is_lasting(self) -> bool {
        self.low & 1 == 1
    }
}

impl Hash for CounterKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.low);
    }
}

/// The secret of a process.
pub(super) struct Secret(pub(super) [u8; 192]);

impl Secret {
    /// Draws a secret from the operating system's randomness, which seeds the standard library's hasher.
    pub(super) fn random() -> Self {
        let mut secret = [0; 192];
        for chunk in secret.chunks_exact_mut(8) {
            chunk.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
        }
        Self(secret)
    }

    /// The key of a counter: of the limit's id and algorithm, so that a limit that changes starts anew, and of every
    /// entry. Each part goes with its length: `(a, bc)` and `(ab, c)` never share a counter.
    pub(super) fn counter(&self, limit: &Limit, key: &[Entry]) -> CounterKey {
        self.hash(limit, key, 1)
    }

    /// The key of a limit's overflow counter.
    pub(super) fn overflow(&self, limit: &Limit) -> CounterKey {
        self.hash(limit, &[], 0)
    }

    fn hash(&self, limit: &Limit, key: &[Entry], kind: u8) -> CounterKey {
        let mut length = 0;
        put_identity(limit, key, kind, &mut length);
        let hash = if length > SHORT {
            xxh3_128_with_secret(&identity(limit, key, kind), &self.0)
        } else {
            let mut bytes = [0; SHORT];
            put_identity(limit, key, kind, &mut &mut bytes[..]);
            xxh3_128_with_secret(&bytes[..length], &self.0)
        };
        let lasting = u64::from(is_lasting(&limit.algorithm));
        CounterKey { high: (hash >> 64) as u64, low: hash as u64 & !1 | lasting }
    }
}

/// Most identities are this short, and then need no memory of their own.
const SHORT: usize = 256;

/// Takes bytes, one part after the other.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Only counts them.
impl Sink for usize {
    fn put(&mut self, bytes: &[u8]) {
        *self += bytes.len();
    }
}

/// Fills what is left of a slice, which must be long enough.
impl Sink for &mut [u8] {
    fn put(&mut self, bytes: &[u8]) {
        let (filled, rest) = std::mem::take(self).split_at_mut(bytes.len());
        filled.copy_from_slice(bytes);
        *self = rest;
    }
}

/// All that tells a counter from others: equal for equal counters, and for no others.
pub(super) fn identity(limit: &Limit, key: &[Entry], kind: u8) -> Vec<u8> {
    bytes(|to| put_identity(limit, key, kind, to))
}

/// All that tells a key of a limit from others, whatever the limit's numbers.
pub(super) fn identity_of_grant(limit: &Limit, key: &[Entry]) -> Vec<u8> {
    bytes(|to| {
        put_text(&limit.id, to);
        put_entries(key, to);
    })
}

/// All that tells a key from others, whatever the limit.
pub(super) fn identity_of_key(key: &[Entry]) -> Vec<u8> {
    bytes(|to| put_entries(key, to))
}

fn bytes(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SHORT);
    put(&mut bytes);
    bytes
}

fn put_identity(limit: &Limit, key: &[Entry], kind: u8, to: &mut impl Sink) {
    to.put(&[kind]);
    put_algorithm(&limit.algorithm, to);
    put_text(&limit.id, to);
    put_entries(key, to);
}

fn put_algorithm(algorithm: &Algorithm, to: &mut impl Sink) {
    let mut window = |kind: u8, requests: u32, window_ms: u64| {
        to.put(&[kind]);
        to.put(&requests.to_le_bytes());
        to.put(&window_ms.to_le_bytes());
    };
    match *algorithm {
        Algorithm::Gcra { requests, period_ms, burst } => {
            window(0, requests, period_ms);
            to.put(&burst.to_le_bytes());
        }
        Algorithm::FixedWindow { requests, window_ms } => window(1, requests, window_ms),
        Algorithm::SlidingWindow { requests, window_ms } => window(3, requests, window_ms),
        Algorithm::AlignedWindow { requests, window_ms } => window(4, requests, window_ms),
        Algorithm::Calendar { requests, unit, time_zone } => {
            to.put(&[5]);
            to.put(&requests.to_le_bytes());
            to.put(&[unit as u8]);
            put_text(time_zone.name(), to);
        }
        // What is under way is the same whatever the limit is, and will be given back.
        Algorithm::Concurrency { limit: _, lease_ms } => {
            to.put(&[2]);
            to.put(&lease_ms.to_le_bytes());
        }
    }
}

fn put_entries(key: &[Entry], to: &mut impl Sink) {
    for entry in key {
        put_text(&entry.key, to);
        put_text(&entry.value, to);
    }
}

fn put_text(text: &str, to: &mut impl Sink) {
    to.put(&(text.len() as u64).to_le_bytes());
    to.put(text.as_bytes());
}

/// Hands on what a [`CounterKey`] gives it: that is a hash already.
#[derive(Clone, Copy, Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str) -> Entry {
        Entry { key: key.into(), value: value.into() }
    }

    #[test]
    fn different_counters_have_different_keys() {
        let secret = Secret::random();
        let limit = |id: &str, requests| {
            let algorithm = Algorithm::FixedWindow { requests, window_ms: 1 };
            Limit::new(id.into(), crate::model::limit::Key::ClientAddress, algorithm)
        };
        let mut keys = vec![
            secret.counter(&limit("l", 1), &[entry("a", "b_c")]),
            secret.counter(&limit("l", 1), &[entry("a_b", "c")]),
            secret.counter(&limit("l", 1), &[entry("a", "b"), entry("c", "")]),
            secret.counter(&limit("l", 1), &[entry("a", "bc"), entry("", "")]),
            secret.counter(&limit("l", 1), &[]),
            secret.overflow(&limit("l", 1)),
            secret.overflow(&limit("m", 1)),
            secret.counter(&limit("l", 2), &[entry("a", "b_c")]),
            secret.counter(&limit("la", 1), &[entry("", "b_c")]),
            Secret::random().counter(&limit("l", 1), &[entry("a", "b_c")]),
        ];
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
        assert_eq!(
            secret.counter(&limit("l", 1), &[entry("a", "b")]),
            secret.counter(&limit("l", 1), &[entry("a", "b")])
        );
    }
}
