//! The meaning of files: a trie of descriptors with what limits them.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::ratelimit::config::ratelimit::v3::RateLimitConfig;
use hashbrown::HashMap;
use serde_json::{Map, Value};

use super::names::{Level, Naming};
use super::stats::{Hits, Stats};
use super::trie::{At, Node, Trie};
use super::yaml::{self, Descriptor, File, RateLimit};
use super::{Error, Reading, config};
use crate::model::limit::{Algorithm, Key, Limit};
use crate::ratelimit::decisions::{Decided, Tally};

/// Every limit of a folder. Pure: the same files give the same rules.
#[derive(Debug, Default)]
pub struct Rules {
    pub(super) reading: Reading,
    pub(super) domains: HashMap<Box<str>, At>,
    pub(super) trie: Trie,
    /// Outlives their changes.
    pub(in crate::ratelimit) stats: Arc<Stats>,
}

/// What limits a descriptor.
#[derive(Debug)]
pub struct Rule {
    /// Its place, as envoyproxy/ratelimit calls it: `DOMAIN.KEY_VALUE.KEY`.
    pub path: Arc<str>,
    /// What is counted; without meaning if it is unlimited.
    pub limit: Limit,
    /// Nothing is counted, and everything allowed.
    pub unlimited: bool,
    /// Over the limit is answered as within it.
    pub shadow: bool,
    /// A request is refused only if every group of its quotas is used up.
    pub quota: bool,
    /// Outlives its changes.
    pub(in crate::ratelimit) counts: Arc<Counts>,
    rare: Option<Box<Rare>>,
}

/// What few rules say, apart from what every decision reads.
#[derive(Debug)]
struct Rare {
    name: Box<str>,
    replaces: Vec<Box<str>>,
    metadata: Map<String, Value>,
    naming: Option<Naming>,
}

/// What a rule decided, and what came of hits by it; side by side, since a decision counts in both.
#[derive(Debug, Default)]
pub(in crate::ratelimit) struct Counts {
    pub(in crate::ratelimit) tally: Tally,
    pub(super) hits: Hits,
}

impl Rule {
    /// What it decided so far.
    #[must_use]
    pub fn decided(&self) -> Decided {
        self.counts.tally.read()
    }

    /// By which others may replace it; empty is none. Shown to clients by Envoy.
    #[must_use]
    pub fn name(&self) -> &str {
        self.rare.as_ref().map_or("", |rare| &rare.name)
    }

    /// The names of those that do not count where this one does.
    #[must_use]
    pub fn replaces(&self) -> &[Box<str>] {
        self.rare.as_ref().map_or(&[], |rare| &rare.replaces)
    }

    /// Sent along in the dynamic metadata while it is within its limit.
    #[must_use]
    pub fn metadata(&self) -> Option<&Map<String, Value>> {
        self.rare.as_ref().map(|rare| &rare.metadata)
    }

    /// How its metrics are named, where that is not by its place.
    pub(super) fn naming(&self) -> Option<&Naming> {
        self.rare.as_ref()?.naming.as_ref()
    }
}

impl Rare {
    fn is_empty(&self) -> bool {
        let Self { name, replaces, metadata, naming } = self;
        name.is_empty() && replaces.is_empty() && metadata.is_empty() && naming.is_none()
    }
}

impl Rules {
    /// The rules of these files, each a name and its text, in this order.
    ///
    /// # Errors
    /// The first thing that is wrong: the file, the place in it and what is accepted there.
    pub fn read(files: &[(String, String)], reading: Reading) -> Result<Self, Error> {
        let mut rules = Self { reading, ..Self::default() };
        for (name, text) in files {
            let form = |reason| Error::Form { file: name.clone(), reason };
            let file = yaml::parse(text).map_err(form)?;
            rules.add(name, file)?;
        }
        Ok(rules)
    }

    /// The rules of these messages, each as a file.
    ///
    /// # Errors
    /// As for [`Self::read`], with the name of the message.
    pub fn of_configs(
        configs: impl IntoIterator<Item = RateLimitConfig>,
        reading: Reading,
    ) -> Result<Self, Error> {
        let mut rules = Self { reading, ..Self::default() };
        for config in configs {
            let name = config.name.clone();
            rules.add(&name, config::file(config))?;
        }
        Ok(rules)
    }

    /// Takes over what was decided by rules of the same place, so that a change loses no count of it.
    #[must_use]
    pub fn continuing(mut self, before: &Self) -> Self {
        let known: BTreeMap<_, _> = before.iter().map(|rule| (rule.path.clone(), rule)).collect();
        for rule in self.trie.rules_mut() {
            let before = known.get(&rule.path);
            if let (Some(rule), Some(before)) = (Arc::get_mut(rule), before) {
                rule.counts = before.counts.clone();
            }
        }
        self.stats = before.stats.clone();
        self.stats.keep(&self);
        self
    }

    /// How they are read.
    #[must_use]
    pub fn reading(&self) -> Reading {
        self.reading
    }

    /// Whether there is a domain of this name.
    #[must_use]
    pub fn has_domain(&self, domain: &str) -> bool {
        self.domains.contains_key(domain)
    }

    /// All rules, in file order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.trie.iter().filter_map(|node| node.rule.as_ref())
    }

    /// Those that metrics tell apart, with what they decided.
    pub(in crate::ratelimit) fn labelled(&self) -> impl Iterator<Item = (Arc<str>, Decided)> {
        self.iter()
            .filter(|rule| rule.counts.tally.is_labelled())
            .map(|rule| (rule.path.clone(), rule.decided()))
    }

    fn add(&mut self, name: &str, file: File) -> Result<(), Error> {
        let wrong = |(at, reason)| Error::Meaning { file: name.to_owned(), at, reason };
        self.add_file(file).map_err(wrong)
    }

    fn add_file(&mut self, file: File) -> Result<(), Wrong> {
        let File { domain, descriptors } = file;
        if domain.is_empty() {
            return wrong("domain", "is empty: a file names the domain of its descriptors");
        }
        let root = match self.domains.get(&*domain) {
            Some(_) if !self.reading.merge_domains => {
                return wrong(
                    "domain",
                    format!("duplicate domain '{domain}': another file has it; merge them"),
                );
            }
            Some(root) => *root,
            None => {
                let root = self.trie.root();
                self.domains.insert(domain.as_str().into(), root);
                root
            }
        };
        self.add_below(root, &Above { domain: &domain, path: &domain, levels: &[] }, "", descriptors)
    }

    fn add_below(
        &mut self,
        parent: At,
        above: &Above<'_>,
        at: &str,
        descriptors: Vec<Descriptor>,
    ) -> Result<(), Wrong> {
        for (index, descriptor) in descriptors.into_iter().enumerate() {
            let at = format!("{at}descriptors[{index}]");
            if descriptor.key.is_empty() {
                return wrong(format!("{at}.key"), "descriptor has empty key");
            }
            let Descriptor { key, value, .. } = &descriptor;
            let composite = if value.is_empty() { key.clone() } else { format!("{key}_{value}") };
            let path = format!("{}.{composite}", above.path);
            let shared = shared(&descriptor, &at)?;
            let levels = above.and(Level {
                text: composite.as_str().into(),
                is_open: value.is_empty() || value.contains('*'),
                is_shared: shared.is_some(),
                is_told: descriptor.value_to_metric,
            });
            let here = Above { domain: above.domain, path: &path, levels: &levels };
            let node = Node::new(rule(&descriptor, &here, &at)?, shared);
            let node = self.link(parent, (key, value, &composite), node).map_err(|()| {
                (at.clone(), format!("duplicate descriptor composite key '{path}': one of the two has to go"))
            })?;
            self.add_below(node, &here, &format!("{at}."), descriptor.descriptors)?;
        }
        Ok(())
    }

    /// Where keys are joined to their values, all patterns are of one list.
    fn link(
        &mut self,
        parent: At,
        (key, value, composite): (&str, &str, &str),
        node: Node,
    ) -> Result<At, ()> {
        let joined = self.reading.compatible.keys;
        let (key, value) = if joined { (composite, "") } else { (key, value) };
        let (listed, text) = if joined { ("", composite) } else { (key, value) };
        let at = self.trie.add(parent, key, value, node)?;
        if text.contains('*') {
            self.trie.add_pattern(parent, listed, text, at);
        }
        Ok(at)
    }
}

/// What a descriptor stands below.
struct Above<'a> {
    domain: &'a str,
    path: &'a str,
    levels: &'a [Level],
}

impl Above<'_> {
    fn and(&self, level: Level) -> Vec<Level> {
        self.levels.iter().cloned().chain([level]).collect()
    }
}

/// A place, and what is wrong there.
type Wrong = (String, String);

fn wrong<T>(at: impl Into<String>, reason: impl Into<String>) -> Result<T, Wrong> {
    Err((at.into(), reason.into()))
}

fn shared(descriptor: &Descriptor, at: &str) -> Result<Option<Box<str>>, Wrong> {
    match descriptor.share_threshold {
        true if !descriptor.value.contains('*') => wrong(
            format!("{at}.share_threshold"),
            format!(
                "can only be used with a wildcard value (one with `*`), and the value is '{}'",
                descriptor.value
            ),
        ),
        true => Ok(Some(descriptor.value.as_str().into())),
        false => Ok(None),
    }
}

fn rule(descriptor: &Descriptor, here: &Above<'_>, at: &str) -> Result<Option<Rule>, Wrong> {
    let Some(limit) = &descriptor.rate_limit else { return Ok(None) };
    let at = format!("{at}.rate_limit");
    let algorithm = algorithm(limit, &at)?;
    for (index, replaced) in limit.replaces.iter().enumerate() {
        let at = format!("{at}.replaces[{index}].name");
        if replaced.name.is_empty() {
            return wrong(at, "should not be empty: it is the name of the limit that is replaced");
        }
        if replaced.name == limit.name {
            return wrong(at, format!("replaces should not contain the limit's own name '{}'", limit.name));
        }
    }
    let rare = Rare {
        name: limit.name.as_str().into(),
        replaces: limit.replaces.iter().map(|replaced| replaced.name.as_str().into()).collect(),
        metadata: descriptor.metadata.clone(),
        naming: Naming::new(here.domain, here.levels, descriptor.detailed_metric),
    };
    Ok(Some(Rule {
        path: here.path.into(),
        limit: counted(here.domain, here.path, algorithm),
        unlimited: limit.unlimited,
        shadow: descriptor.shadow_mode,
        quota: descriptor.quota_mode,
        counts: Arc::default(),
        rare: (!rare.is_empty()).then(|| Box::new(rare)),
    }))
}

/// What is counted at a place of a domain. The id is none that people see: two domains never share one.
pub(in crate::ratelimit) fn counted(domain: &str, path: &str, algorithm: Algorithm) -> Limit {
    Limit::new(format!("{domain}\n{path}").into(), Key::ClientAddress, algorithm)
}

fn algorithm(limit: &RateLimit, at: &str) -> Result<Algorithm, Wrong> {
    match (window_of(&limit.unit), limit.unlimited) {
        (Some(window_ms), false) => Ok(window(limit.requests_per_unit, window_ms)),
        (None, true) if ["", "unknown"].iter().any(|none| limit.unit.eq_ignore_ascii_case(none)) => {
            Ok(window(0, 1))
        }
        (_, true) => wrong(format!("{at}.unit"), "should not specify rate limit unit when unlimited"),
        (None, false) => wrong(
            format!("{at}.unit"),
            format!(
                "invalid rate limit unit '{}': expected {}",
                limit.unit,
                UNITS.map(|(name, _)| name).join(", ")
            ),
        ),
    }
}

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 86_400 * SECOND_MS;

/// The units and their windows; a month has 30 days and a year 365, as there.
const UNITS: [(&str, u64); 7] = [
    ("second", SECOND_MS),
    ("minute", 60 * SECOND_MS),
    ("hour", 3_600 * SECOND_MS),
    ("day", DAY_MS),
    ("week", 7 * DAY_MS),
    ("month", 30 * DAY_MS),
    ("year", 365 * DAY_MS),
];

/// The window of a unit by its name, in any case.
pub(in crate::ratelimit) fn window_of(name: &str) -> Option<u64> {
    UNITS.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name)).map(|(_, window_ms)| *window_ms)
}

/// So many requests in each window of the clock, which all keys have in common.
pub(in crate::ratelimit) fn window(requests: u32, window_ms: u64) -> Algorithm {
    Algorithm::AlignedWindow { requests, window_ms }
}
