//! The keys of counters: 128-bit hashes under a secret that each process draws anew, so that nobody can choose
//! header values that share a counter, and that a key costs the same memory however long the value is.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use smallvec::SmallVec;
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
        let hash = xxh3_128_with_secret(&identity(limit, key, kind), &self.0);
        let lasting = u64::from(is_lasting(&limit.algorithm));
        CounterKey { high: (hash >> 64) as u64, low: hash as u64 & !1 | lasting }
    }
}

/// Most are this short, and then need no memory of their own.
pub(super) type Identity = SmallVec<[u8; 256]>;

/// All that tells a counter from others: equal for equal counters, and for no others.
pub(super) fn identity(limit: &Limit, key: &[Entry], kind: u8) -> Identity {
    let mut bytes = Identity::new();
    bytes.push(kind);
    match limit.algorithm {
        Algorithm::Gcra { requests, period_ms, burst } => {
            bytes.push(0);
            bytes.extend_from_slice(&requests.to_le_bytes());
            bytes.extend_from_slice(&period_ms.to_le_bytes());
            bytes.extend_from_slice(&burst.to_le_bytes());
        }
        Algorithm::FixedWindow { requests, window_ms } => {
            bytes.push(1);
            bytes.extend_from_slice(&requests.to_le_bytes());
            bytes.extend_from_slice(&window_ms.to_le_bytes());
        }
        Algorithm::SlidingWindow { requests, window_ms } => {
            bytes.push(3);
            bytes.extend_from_slice(&requests.to_le_bytes());
            bytes.extend_from_slice(&window_ms.to_le_bytes());
        }
        Algorithm::AlignedWindow { requests, window_ms } => {
            bytes.push(4);
            bytes.extend_from_slice(&requests.to_le_bytes());
            bytes.extend_from_slice(&window_ms.to_le_bytes());
        }
        Algorithm::Calendar { requests, unit, time_zone } => {
            bytes.push(5);
            bytes.extend_from_slice(&requests.to_le_bytes());
            bytes.push(unit as u8);
            push(&mut bytes, time_zone.name());
        }
        // What is under way is the same whatever the limit is, and will be given back.
        Algorithm::Concurrency { limit: _, lease_ms } => {
            bytes.push(2);
            bytes.extend_from_slice(&lease_ms.to_le_bytes());
        }
    }
    push(&mut bytes, &limit.id);
    push_entries(&mut bytes, key);
    bytes
}

/// All that tells a key from others, whatever the limit.
pub(super) fn push_entries(bytes: &mut Identity, key: &[Entry]) {
    for entry in key {
        push(bytes, &entry.key);
        push(bytes, &entry.value);
    }
}

/// A text with its length.
pub(super) fn push(bytes: &mut Identity, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
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
