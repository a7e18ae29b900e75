//! Values with `*` in them, found in file order without trying each.

use std::collections::{BTreeMap, HashMap};

use super::trie::At;

/// A value in which each `*` stands for any text, also for none.
#[derive(Debug)]
struct Pattern {
    /// What stands before the first `*` is where the pattern is kept; these are the texts behind each.
    behind: Vec<Box<str>>,
}

impl Pattern {
    /// Whether what is left of a value behind the text before the first `*` is matched.
    fn matches(&self, mut rest: &[u8]) -> bool {
        let Some((last, between)) = self.behind.split_last() else { return rest.is_empty() };
        for text in between {
            let Some(at) = find(rest, text.as_bytes()) else { return false };
            rest = &rest[at + text.len()..];
        }
        rest.ends_with(last.as_bytes())
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() { Some(0) } else { text.windows(wanted.len()).position(|window| window == wanted) }
}

/// A pattern, where it stands among all, and what it leads to.
type Kept = (usize, Pattern, At);

/// Patterns of one place, by the text before their first `*`.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// By the length of that text, and by the text.
    by_prefix: BTreeMap<usize, HashMap<Box<[u8]>, Vec<Kept>>>,
    count: usize,
}

impl Patterns {
    /// Adds a value with `*` in it.
    pub(super) fn push(&mut self, value: &str, target: At) {
        let mut texts = value.split('*');
        let prefix = texts.next().unwrap_or_default();
        let pattern = Pattern { behind: texts.map(Box::from).collect() };
        let same = self.by_prefix.entry(prefix.len()).or_default();
        same.entry(prefix.as_bytes().into()).or_default().push((self.count, pattern, target));
        self.count += 1;
    }

    /// What the first pattern that matches leads to.
    pub(super) fn find(&self, value: &str) -> Option<At> {
        let value = value.as_bytes();
        let candidates = self.by_prefix.range(..=value.len()).filter_map(|(length, same)| {
            let found = same.get(&value[..*length])?;
            found.iter().find(|(_, pattern, _)| pattern.matches(&value[*length..]))
        });
        candidates.min_by_key(|(place, ..)| *place).map(|(.., target)| *target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_the_first_pattern_counts() {
        let all = ["foo*", "*", "f*", "fo*o*", "*.js", "a*b*c", "**"];
        for (patterns, value, expected) in [
            (&all[..1], "foo", Some(0)),
            (&all[..1], "foobar", Some(0)),
            (&all[..1], "fo", None),
            (&all[..1], "xfoo", None),
            (&all[..], "bar", Some(1)),
            (&all[..], "foo1", Some(0)),
            (&["f*", "foo*"], "foo1", Some(0)),
            (&["foo*", "f*"], "foo1", Some(0)),
            (&["foo*", "f*"], "fa", Some(1)),
            (&["*.js"], "a.js", Some(0)),
            (&["*.js"], ".js", Some(0)),
            (&["*.js"], "a.jsx", None),
            (&["a*b*c"], "abc", Some(0)),
            (&["a*b*c"], "a-b-b-c", Some(0)),
            (&["a*b*c"], "ac", None),
            (&["a*b*c"], "abcd", None),
            (&["a*aa"], "aaa", Some(0)),
            (&["a*aa"], "aa", None),
            (&["**"], "", Some(0)),
            (&["ü*"], "\u{fc}b", Some(0)),
            (&["é*"], "è", None),
        ] {
            let mut kept = Patterns::default();
            (0..).zip(patterns).for_each(|(target, pattern)| kept.push(pattern, target));
            assert_eq!(kept.find(value), expected, "{value} in {patterns:?}");
        }
    }
}
