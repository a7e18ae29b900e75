//! Which rule limits a descriptor: pure, and the same work however many rules there are.
//!
//! Level by level: the descriptor of the key and the value, then the first of the key whose value has a `*` that
//! matches, then the one of the key alone. What counts is the rule of the last level, and there must be as many levels
//! as the request has entries.

use std::borrow::Cow;
use std::sync::Arc;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

use super::rules::{Rule, Rules};
use super::trie::At;

/// A rule that limits a descriptor.
#[derive(Debug)]
pub struct Found<'a> {
    /// The rule.
    pub rule: &'a Arc<Rule>,
    /// What is counted by: the entries, with the pattern in place of a value that shares a threshold.
    pub key: Cow<'a, [Entry]>,
}

impl Rules {
    /// The rule that limits these entries of a domain, if there is one.
    #[must_use]
    pub fn find<'a>(&'a self, domain: &str, entries: &'a [Entry]) -> Option<Found<'a>> {
        let mut at = *self.domains.get(domain)?;
        let mut key = Cow::Borrowed(entries);
        if entries.is_empty() {
            return None;
        }
        for (level, entry) in entries.iter().enumerate() {
            let by_pattern;
            (at, by_pattern) = self.next(at, entry)?;
            if let Some(shared) = self.trie.get(at).shared().filter(|_| by_pattern) {
                key.to_mut()[level].value = shared.to_owned();
            }
        }
        Some(Found { rule: self.trie.get(at).rule.as_ref()?, key: self.counted(key) })
    }

    /// The level below, and whether it was found by a pattern.
    fn next(&self, at: At, entry: &Entry) -> Option<(At, bool)> {
        let Entry { key, value } = entry;
        let joined;
        let (exact, listed, text) = if self.reading.compatible.keys {
            joined = join(entry);
            (self.trie.find(at, &joined, ""), "", &joined)
        } else {
            // No file has an empty value: it stands for every other one.
            let exact = if value.is_empty() { None } else { self.trie.find(at, key, value) };
            (exact, key.as_str(), value)
        };
        if let Some(found) = exact {
            return Some((found, false));
        }
        if let Some(found) = self.trie.find_pattern(at, listed, text) {
            return Some((found, true));
        }
        self.trie.find(at, key, "").map(|found| (found, false))
    }

    /// The key of a counter, which is one text where keys are joined.
    fn counted<'a>(&self, key: Cow<'a, [Entry]>) -> Cow<'a, [Entry]> {
        if !self.reading.compatible.keys {
            return key;
        }
        let text: Vec<String> = key.iter().map(join).collect();
        Cow::Owned(vec![Entry { key: text.join("_"), value: String::new() }])
    }
}

fn join(entry: &Entry) -> String {
    format!("{}_{}", entry.key, entry.value)
}
