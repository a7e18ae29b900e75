//! Names for keys that may be credentials: a hash under a secret that each process draws anew, so that nobody can tell a
//! key by trying.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use serde::{Serialize, Serializer};

/// The name of one key of one limit, for as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub(super) u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let parsed = u64::from_str_radix(text, 16).ok().filter(|_| known);
        parsed.map(Self).ok_or_else(|| "expected 16 hexadecimal digits".to_owned())
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The secret of a process: SipHash with a key of the operating system's randomness.
#[derive(Clone, Debug, Default)]
pub(super) struct Fingerprints(RandomState);

impl Fingerprints {
    /// Each part goes with its length: `(a, bc)` and `(ab, c)` differ.
    pub(super) fn of(&self, limit: &str, key: &[Entry]) -> Fingerprint {
        let mut hasher = self.0.build_hasher();
        let mut part = |text: &str| {
            hasher.write_usize(text.len());
            hasher.write(text.as_bytes());
        };
        part(limit);
        for entry in key {
            part(&entry.key);
            part(&entry.value);
        }
        Fingerprint(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_keys_apart_and_can_be_read() {
        let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into() };
        let names = Fingerprints::default();
        let name = names.of("l", &[entry("a", "bc")]);
        assert_eq!(name, names.of("l", &[entry("a", "bc")]));
        for (limit, key) in [("l", entry("ab", "c")), ("m", entry("a", "bc")), ("la", entry("", "bc"))] {
            assert_ne!(name, names.of(limit, &[key]));
        }
        assert_ne!(name, Fingerprints::default().of("l", &[entry("a", "bc")]), "a secret of its own");
        assert_eq!(name.to_string().parse(), Ok(name));
        for bad in ["", "1", "+000000000000001", "00000000000000000"] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
