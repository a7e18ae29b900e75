//! The descriptors of all files, each found by what it is below, its key and its value.
//!
//! Of many rules most are in no cache when they are needed, and waiting for memory then takes longer than all else about
//! finding one. So one small table leads to all of them, what tells a node from others is in the node itself, and what comes
//! first below a node, which mostly is all there is, is right behind it.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use smallvec::SmallVec;

use super::pattern::Patterns;
use super::rules::Rule;

/// A node, by its number.
pub(super) type At = u32;

/// What nodes are below that are below none.
const NONE: At = At::MAX;

/// All nodes, in file order.
#[derive(Debug, Default)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// The numbers of keys, which are few.
    keys: HashMap<Box<str>, u32>,
    /// Nodes by their places; neither domains are among them nor what is first below a node.
    places: HashTable<At>,
    hasher: DefaultHashBuilder,
}

/// A descriptor, or a domain.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Node {
    place: Place,
    pub(super) rule: Option<Arc<Rule>>,
    /// Whether anything below it has a value.
    has_values: bool,
    rare: Option<Box<Rare>>,
}

/// What few nodes have.
#[derive(Debug, Default)]
struct Rare {
    /// What values are replaced by where they are counted, if they share a threshold.
    shared: Option<Box<str>>,
    /// By key, what is below it and has a `*` in its value.
    patterns: HashMap<Box<str>, Patterns>,
}

#[derive(Debug)]
struct Place {
    parent: At,
    key: u32,
    /// Empty is every other value.
    value: SmallVec<[u8; 16]>,
}

impl Default for Place {
    fn default() -> Self {
        Self { parent: NONE, key: 0, value: SmallVec::new() }
    }
}

impl Trie {
    /// A node that is below none.
    pub(super) fn root(&mut self) -> At {
        self.push(Node::default())
    }

    /// A node below another one. An empty value is every other one.
    ///
    /// # Errors
    /// When there is one of this key and value.
    pub(super) fn add(&mut self, parent: At, key: &str, value: &str, node: Node) -> Result<At, ()> {
        if self.find(parent, key, value).is_some() {
            return Err(());
        }
        let next = number(self.keys.len());
        let key = *self.keys.entry(key.into()).or_insert(next);
        let place = Place { parent, key, value: value.as_bytes().into() };
        let at = self.push(Node { place, ..node });
        self.nodes[parent as usize].has_values |= !value.is_empty();
        if at != parent + 1 {
            let Self { nodes, places, hasher, .. } = self;
            let hash = |at: &At| hasher.hash_one(nodes[*at as usize].place.sought());
            places.insert_unique(hash(&at), at, hash);
        }
        Ok(at)
    }

    /// Leads values that match a pattern to a node below `parent`.
    pub(super) fn add_pattern(&mut self, parent: At, key: &str, pattern: &str, at: At) {
        let rare = self.nodes[parent as usize].rare.get_or_insert_default();
        rare.patterns.entry(key.into()).or_default().push(pattern, at);
    }

    /// The node below `parent` of this key and value, or of every other value, if it is empty.
    pub(super) fn find(&self, parent: At, key: &str, value: &str) -> Option<At> {
        if !value.is_empty() && !self.get(parent).has_values {
            return None;
        }
        let sought = (parent, *self.keys.get(key)?, value.as_bytes());
        let first = parent + 1;
        if self.nodes.get(first as usize).is_some_and(|node| node.place.sought() == sought) {
            return Some(first);
        }
        let is_it = |at: &At| self.get(*at).place.sought() == sought;
        self.places.find(self.hasher.hash_one(sought), is_it).copied()
    }

    /// The node below `parent` of the first pattern that a text matches.
    pub(super) fn find_pattern(&self, parent: At, key: &str, text: &str) -> Option<At> {
        self.get(parent).rare.as_ref()?.patterns.get(key)?.find(text)
    }

    pub(super) fn get(&self, at: At) -> &Node {
        &self.nodes[at as usize]
    }

    /// All nodes, in file order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    pub(super) fn rules_mut(&mut self) -> impl Iterator<Item = &mut Arc<Rule>> {
        self.nodes.iter_mut().filter_map(|node| node.rule.as_mut())
    }

    fn push(&mut self, node: Node) -> At {
        self.nodes.push(node);
        number(self.nodes.len() - 1)
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("so many nodes fit no memory")
}

impl Node {
    pub(super) fn new(rule: Option<Rule>, shared: Option<Box<str>>) -> Self {
        let rare = shared.map(|shared| Box::new(Rare { shared: Some(shared), ..Rare::default() }));
        Self { rule: rule.map(Arc::new), rare, ..Self::default() }
    }

    /// What values are replaced by where they are counted, if they share a threshold.
    pub(super) fn shared(&self) -> Option<&str> {
        self.rare.as_ref()?.shared.as_deref()
    }
}

impl Place {
    fn sought(&self) -> (At, u32, &[u8]) {
        (self.parent, self.key, &self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_found_wherever_they_stand() {
        let mut trie = Trie::default();
        let [empty, root] = [trie.root(), trie.root()];
        let mut add = |parent, key, value| trie.add(parent, key, value, Node::default()).unwrap();
        let first = add(root, "a", "x");
        let below = add(first, "a", "");
        let second = add(root, "a", "");
        assert!(trie.add(first, "a", "", Node::default()).is_err());
        for (parent, key, value, found) in [
            (root, "a", "x", Some(first)),
            (root, "a", "", Some(second)),
            (root, "a", "y", None),
            (root, "b", "", None),
            (first, "a", "", Some(below)),
            (first, "a", "x", None),
            (below, "a", "", None),
            (second, "a", "", None),
            // What is behind it is below none, or below another one.
            (empty, "a", "", None),
        ] {
            assert_eq!(trie.find(parent, key, value), found, "{parent} {key} {value}");
        }
    }

    #[test]
    fn a_node_is_a_line_of_the_cache() {
        assert_eq!(size_of::<Node>(), 64);
    }
}
