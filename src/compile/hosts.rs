//! Which hosts are sent to Envoys ahead of any request.
//!
//! The oldest are, up to the threshold, so that Envoy serves them even while the control plane is away; the rest are
//! on demand. When an eager host goes, the oldest of the rest takes its place; nothing else moves.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::values::{Age, HostName};

/// The order of hosts: by the age of their oldest object, then by name.
type Rank = (Age, HostName);

#[derive(Debug, Default)]
pub(crate) struct Hosts {
    threshold: usize,
    ages: HashMap<HostName, Age>,
    eager: BTreeSet<Rank>,
    on_demand: BTreeSet<Rank>,
    /// Wildcards are always eager and count for nothing.
    wildcards: BTreeSet<HostName>,
    wildcards_changed: bool,
    rescoped: BTreeSet<HostName>,
}

impl Hosts {
    pub(crate) fn new(threshold: usize) -> Self {
        Self { threshold, ..Self::default() }
    }

    /// A host is there, of this age.
    pub(crate) fn insert(&mut self, host: &HostName, age: &Age) {
        if self.ages.get(host) == Some(age) {
            return;
        }
        self.remove(host);
        self.ages.insert(host.clone(), age.clone());
        if host.is_wildcard() {
            self.wildcards_changed |= self.wildcards.insert(host.clone());
            self.rescoped.insert(host.clone());
            return;
        }
        self.rescoped.insert(host.clone());
        self.eager.insert((age.clone(), host.clone()));
        if self.eager.len() > self.threshold
            && let Some(youngest) = self.eager.pop_last()
        {
            self.rescoped.insert(youngest.1.clone());
            self.on_demand.insert(youngest);
        }
        // An older host than the eager ones cannot be among the rest: each insertion pushes the youngest out.
    }

    /// A host is gone.
    pub(crate) fn remove(&mut self, host: &HostName) {
        let Some(age) = self.ages.remove(host) else { return };
        if host.is_wildcard() {
            self.wildcards_changed |= self.wildcards.remove(host);
            return;
        }
        let rank = (age, host.clone());
        if self.on_demand.remove(&rank) {
            return;
        }
        self.eager.remove(&rank);
        if self.eager.len() < self.threshold
            && let Some(oldest) = self.on_demand.pop_first()
        {
            self.rescoped.insert(oldest.1.clone());
            self.eager.insert(oldest);
        }
    }

    /// Whether a host is loaded at its first request.
    pub(crate) fn is_on_demand(&self, host: &HostName) -> bool {
        self.ages.get(host).is_some_and(|age| self.on_demand.contains(&(age.clone(), host.clone())))
    }

    /// The wildcard hosts.
    pub(crate) fn wildcards(&self) -> &BTreeSet<HostName> {
        &self.wildcards
    }

    /// Whether a wildcard host came or went since this was asked last.
    pub(crate) fn take_wildcards_changed(&mut self) -> bool {
        std::mem::take(&mut self.wildcards_changed)
    }

    /// Hosts whose scopes may be others than before.
    pub(crate) fn take_rescoped(&mut self) -> BTreeSet<HostName> {
        std::mem::take(&mut self.rescoped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    fn age(created: i64) -> Age {
        Age { created: Some(created), ..Age::default() }
    }

    #[test]
    fn the_oldest_are_eager_and_one_takes_the_place_of_another() {
        let mut hosts = Hosts::new(2);
        for (name, created) in [("c", 3), ("b", 2), ("d", 4), ("a", 1), ("*.x", 9)] {
            hosts.insert(&host(name), &age(created));
        }
        let on_demand = |hosts: &Hosts| ["a", "b", "c", "d"].map(|name| hosts.is_on_demand(&host(name)));
        assert_eq!(on_demand(&hosts), [false, false, true, true]);
        assert!(!hosts.wildcards().is_empty() && !hosts.is_on_demand(&host("*.x")));
        hosts.take_rescoped();
        hosts.remove(&host("a"));
        assert_eq!(hosts.take_rescoped().into_iter().collect::<Vec<_>>(), [host("c")]);
        assert_eq!(on_demand(&hosts), [false, false, false, true]);
        hosts.insert(&host("b"), &age(9));
        assert_eq!(on_demand(&hosts), [false, true, false, false]);
    }
}
