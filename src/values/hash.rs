//! A hash that is the same on every replica and after every restart.

use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::Xxh3;

/// The stable 64-bit hash of a value, by its `Hash`.
pub fn stable<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = Xxh3::new();
    value.hash(&mut hasher);
    hasher.finish()
}
