//! Sets of keys that are told by digest, so that what holds one gives none away.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What is kept of a key: the first half of its SHA-256, which is enough to tell keys apart and says nothing of one that
/// cannot be guessed.
pub type KeyDigest = [u8; 16];

/// The digest of a key.
#[must_use]
pub fn key_digest(key: &[u8]) -> KeyDigest {
    digest(&SHA256, key).as_ref().first_chunk().copied().unwrap_or_default()
}

/// Some keys, by their digests. As JSON, a list of hexadecimal numbers.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct KeySet(Arc<[KeyDigest]>);

impl KeySet {
    /// Each line that is not empty is a key; spaces around it are no part of it.
    #[must_use]
    pub fn of_lines(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        lines.filter(|line| !line.is_empty()).map(key_digest).collect()
    }

    /// What [`Self::to_bytes`] has made.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        bytes.as_chunks().0.iter().copied().collect()
    }

    /// The digests, one after the other.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.as_flattened().to_vec()
    }

    /// Whether it has the key of this digest.
    #[must_use]
    pub fn has(&self, key: &KeyDigest) -> bool {
        self.0.binary_search(key).is_ok()
    }

    /// How many keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The digests, in order.
    pub fn iter(&self) -> impl Iterator<Item = &KeyDigest> {
        self.0.iter()
    }
}

impl FromIterator<KeyDigest> for KeySet {
    fn from_iter<I: IntoIterator<Item = KeyDigest>>(digests: I) -> Self {
        let mut digests: Vec<KeyDigest> = digests.into_iter().collect();
        digests.sort_unstable();
        digests.dedup();
        Self(digests.into())
    }
}

/// No digests, of which there may be many.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.len())
    }
}

impl Serialize for KeySet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|digest| format!("{:032x}", u128::from_be_bytes(*digest))))
    }
}

impl<'de> Deserialize<'de> for KeySet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digests = Vec::<String>::deserialize(deserializer)?.into_iter();
        let digests = digests.map(|text| u128::from_str_radix(&text, 16).map(u128::to_be_bytes));
        digests.collect::<Result<_, _>>().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_keys() {
        let keys = KeySet::of_lines(b"one\r\n\n  two \nthree\none");
        assert_eq!(keys.len(), 3);
        for (key, has) in [("one", true), ("two", true), ("three", true), ("", false), ("one\r", false)] {
            assert_eq!(keys.has(&key_digest(key.as_bytes())), has, "{key:?}");
        }
        assert!(KeySet::of_lines(b" \n\n").is_empty());
    }

    #[test]
    fn nothing_shows_but_digests() {
        let keys = KeySet::of_lines(b"abc\nzero");
        let json = serde_json::to_value(&keys).unwrap();
        // The first half of SHA-256("abc"), of FIPS 180-4's examples.
        assert!(json.as_array().unwrap().contains(&"ba7816bf8f01cfea414140de5dae2223".into()), "{json}");
        assert_eq!(serde_json::from_value::<KeySet>(json).unwrap(), keys);
        assert_eq!(KeySet::of_bytes(&keys.to_bytes()), keys);
        assert_eq!(format!("{keys:?}"), "2 keys");
        assert!(serde_json::from_str::<KeySet>(r#"["abc!"]"#).is_err());
    }
}
