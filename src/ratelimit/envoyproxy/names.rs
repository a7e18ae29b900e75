//! Names of metrics that are made of a request's values, where `detailed_metric` or `value_to_metric` says so.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

use super::stats::Hits;

/// Names of a domain that are told apart. Clients choose them, and each costs memory here and five series wherever metrics are
/// kept; a domain has as many as all rules together, so that one's clients take no room of another's.
pub(super) const NAMED: usize = 1_000;

/// Bytes of the longest name.
const LONGEST: usize = 1_024;

/// A descriptor on the way to a rule.
#[derive(Clone, Debug)]
pub(super) struct Level {
    /// Its key and value, as the file has them.
    pub(super) text: Box<str>,
    /// The file leaves its value open, wholly or by a `*`.
    pub(super) is_open: bool,
    /// Values that match it are one.
    pub(super) is_shared: bool,
    /// Its value is told, if it is open.
    pub(super) is_told: bool,
}

/// How the names of a rule's metrics are made.
#[derive(Debug)]
pub(super) struct Naming {
    domain: Box<str>,
    /// What stands for each entry; none is its key and value.
    levels: Box<[Option<Box<str>>]>,
    /// Whether a value that is empty leaves the `_` before it, as it does there.
    leaves_joint: bool,
}

impl Naming {
    /// That of a rule at the end of these levels; none if its name is that of its place. What it says itself (`detailed_metric`)
    /// tells all values, and goes before what each level says.
    pub(super) fn new(domain: &str, levels: &[Level], is_detailed: bool) -> Option<Self> {
        let is_told = |level: &Level| level.is_open && !level.is_shared && (is_detailed || level.is_told);
        levels.iter().any(is_told).then(|| Self {
            domain: domain.into(),
            levels: levels.iter().map(|level| (!is_told(level)).then(|| level.text.clone())).collect(),
            leaves_joint: is_detailed && !levels.iter().any(|level| level.is_shared),
        })
    }

    /// The name for these entries.
    fn name(&self, entries: &[Entry]) -> String {
        let mut name = self.domain.to_string();
        for (level, Entry { key, value }) in self.levels.iter().zip(entries) {
            name.push('.');
            match level {
                Some(text) => name.push_str(text),
                None => {
                    name.push_str(key);
                    if self.leaves_joint || !value.is_empty() {
                        name.push('_');
                    }
                    name.push_str(value);
                }
            }
        }
        name
    }
}

/// Hits by such names, of each domain.
#[derive(Debug, Default)]
pub(super) struct Names(RwLock<HashMap<Box<str>, ByName>>);

type ByName = HashMap<Box<str>, Named>;

#[derive(Debug)]
struct Named {
    /// The place of the rule that it is of.
    path: Arc<str>,
    hits: Hits,
}

impl Names {
    /// Counts hits of the rule at this place; false if there is no room for the name.
    pub(super) fn count(&self, naming: &Naming, path: &Arc<str>, entries: &[Entry], hits: &[u64; 5]) -> bool {
        let name = naming.name(entries);
        {
            let domains = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let names = domains.get(&naming.domain);
            if let Some(named) = names.and_then(|names| names.get(&*name)) {
                named.hits.add(hits);
                return true;
            }
            if name.len() > LONGEST || names.is_some_and(|names| names.len() >= NAMED) {
                return false;
            }
        }
        let mut domains = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let names = domains.entry(naming.domain.clone()).or_default();
        if names.len() >= NAMED && !names.contains_key(&*name) {
            return false;
        }
        let new = || Named { path: path.clone(), hits: Hits::default() };
        names.entry(name.into()).or_insert_with(new).hits.add(hits);
        true
    }

    /// Makes room where rules have gone, or need no names any more.
    pub(super) fn keep(&self, paths: &HashSet<&str>) {
        let mut domains = self.0.write().unwrap_or_else(PoisonError::into_inner);
        domains.retain(|_, names| {
            names.retain(|_, named| paths.contains(&*named.path));
            !names.is_empty()
        });
    }

    /// All names, with their hits.
    pub(super) fn read(&self) -> Vec<(Box<str>, [u64; 5])> {
        let domains = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let all = domains.values().flatten();
        all.map(|(name, named)| (name.clone(), named.hits.read())).collect()
    }
}
