//! The descriptors of all files, each found by what it is below, its key and its value.
//!
//! Of many rules most are in no cache when they are needed, and waiting for memory then takes longer than all else about
//! finding one. So one small table leads to all of them, and what tells a node from others is in the node itself.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use smallvec::SmallVec;

use super::pattern::Patterns;
use super::rules::Rule;

/// A node, by its number.
pub(super) type At = usize;

/// All nodes, in file order.
#[derive(Debug, Default)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// The numbers of keys, which are few.
    keys: HashMap<Box<str>, usize>,
    /// Nodes by their places; domains are not among them.
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

#[derive(Debug, Default)]
struct Place {
    parent: At,
    key: usize,
    /// Empty is every other value.
    value: SmallVec<[u8; 16]>,
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
        let next = self.keys.len();
        let key = *self.keys.entry(key.into()).or_insert(next);
        let place = Place { parent, key, value: value.as_bytes().into() };
        let at = self.push(Node { place, ..node });
        self.nodes[parent].has_values |= !value.is_empty();
        let Self { nodes, places, hasher, .. } = self;
        let hash = |at: &At| hasher.hash_one(nodes[*at].place.sought());
        places.insert_unique(hash(&at), at, hash);
        Ok(at)
    }

    /// Leads values that match a pattern to a node below `parent`.
    pub(super) fn add_pattern(&mut self, parent: At, key: &str, pattern: &str, at: At) {
        let rare = self.nodes[parent].rare.get_or_insert_default();
        rare.patterns.entry(key.into()).or_default().push(pattern, at);
    }

    /// The node below `parent` of this key and value, or of every other value, if it is empty.
    pub(super) fn find(&self, parent: At, key: &str, value: &str) -> Option<At> {
        if !value.is_empty() && !self.nodes[parent].has_values {
            return None;
        }
        let sought = (parent, *self.keys.get(key)?, value.as_bytes());
        let is_it = |at: &At| self.nodes[*at].place.sought() == sought;
        self.places.find(self.hasher.hash_one(sought), is_it).copied()
    }

    /// The node below `parent` of the first pattern that a text matches.
    pub(super) fn find_pattern(&self, parent: At, key: &str, text: &str) -> Option<At> {
        self.nodes[parent].rare.as_ref()?.patterns.get(key)?.find(text)
    }

    pub(super) fn get(&self, at: At) -> &Node {
        &self.nodes[at]
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
        self.nodes.len() - 1
    }
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
    fn sought(&self) -> (At, usize, &[u8]) {
        (self.parent, self.key, &self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_line_of_the_cache() {
        assert_eq!(size_of::<Node>(), 64);
    }
}
