//! Which rule limits a descriptor: pure, and the same work however many rules there are.
//!
//! Level by level: the descriptor of the key and the value, then the first of the key whose value has a `*` that
//! matches, then the one of the key alone. What counts is the rule of the last level, and there must be as many levels
//! as the request has entries.

use std::borrow::Cow;
use std::sync::Arc;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use hashbrown::Equivalent;

use super::rules::{Node, Place, Rule, Rules};

/// A rule that limits a descriptor.
#[derive(Debug)]
pub struct Found<'a> {
    /// The rule.
    pub rule: &'a Arc<Rule>,
    /// What is counted by: the entries, with the pattern in place of a value that shares a threshold.
    pub key: Cow<'a, [Entry]>,
}

/// A place that is looked for. Hashes as [`Place`] does.
#[derive(Hash)]
struct Sought<'a> {
    key: &'a str,
    value: Option<&'a str>,
}

impl Equivalent<Place> for Sought<'_> {
    fn equivalent(&self, place: &Place) -> bool {
        *self.key == *place.key && self.value == place.value.as_deref()
    }
}

impl Rules {
    /// The rule that limits these entries of a domain, if there is one.
    #[must_use]
    pub fn find<'a>(&'a self, domain: &str, entries: &'a [Entry]) -> Option<Found<'a>> {
        let mut node = &self.nodes[*self.domains.get(domain)?];
        let mut key = Cow::Borrowed(entries);
        if entries.is_empty() {
            return None;
        }
        for (level, entry) in entries.iter().enumerate() {
            let by_pattern;
            (node, by_pattern) = self.next(node, entry)?;
            if let Some(shared) = node.shared.as_ref().filter(|_| by_pattern) {
                key.to_mut()[level].value = shared.to_string();
            }
        }
        Some(Found { rule: node.rule.as_ref()?, key: self.counted(key) })
    }

    /// The level below, and whether it was found by a pattern.
    fn next(&self, node: &Node, entry: &Entry) -> Option<(&Node, bool)> {
        let joined;
        let (exact, patterns, text) = if self.reading.compatible.keys {
            joined = join(entry);
            (Sought { key: &joined, value: None }, node.patterns.get(""), joined.as_str())
        } else {
            let exact = Sought { key: &entry.key, value: Some(&entry.value) };
            (exact, node.patterns.get(&*entry.key), entry.value.as_str())
        };
        if let Some(found) = node.below.get(&exact) {
            return Some((&self.nodes[*found], false));
        }
        if let Some(found) = patterns.and_then(|patterns| patterns.find(text)) {
            return Some((&self.nodes[found], true));
        }
        let found = node.below.get(&Sought { key: &entry.key, value: None })?;
        Some((&self.nodes[*found], false))
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
