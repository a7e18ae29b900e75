//! Which hosts are sent to Envoys ahead of any request.
//!
//! The oldest are, up to the threshold, so that Envoy serves them even while the control plane is away; the rest are
//! on demand. When an eager host goes, the oldest of the rest takes its place; nothing else moves.

use std::collections::BTreeSet;

use crate::values::{Age, HostName};

/// The order of hosts: by the age of their oldest object, then by name.
type Rank = (Age, HostName);

#[derive(Debug, Default)]
pub(crate) struct Hosts {
    threshold: usize,
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

    /// A host is there, of this age; `before` is the age that it had, if it was there.
    pub(crate) fn insert(&mut self, host: &HostName, age: &Age, before: Option<&Age>) {
        if before == Some(age) {
            return;
        }
        if let Some(before) = before {
            self.remove(host, before);
        }
        self.rescoped.insert(host.clone());
        if host.is_wildcard() {
            self.wildcards_changed |= self.wildcards.insert(host.clone());
            return;
        }
        self.eager.insert((age.clone(), host.clone()));
        if self.eager.len() > self.threshold
            && let Some(youngest) = self.eager.pop_last()
        {
            self.rescoped.insert(youngest.1.clone());
            self.on_demand.insert(youngest);
        }
        // An older host than the eager ones cannot be among the rest: each insertion pushes the youngest out.
    }

    /// A host of this age is gone.
    pub(crate) fn remove(&mut self, host: &HostName, age: &Age) {
        if host.is_wildcard() {
            self.wildcards_changed |= self.wildcards.remove(host);
            return;
        }
        let rank = (age.clone(), host.clone());
        if self.on_demand.remove(&rank) || !self.eager.remove(&rank) {
            return;
        }
        if self.eager.len() < self.threshold
            && let Some(oldest) = self.on_demand.pop_first()
        {
            self.rescoped.insert(oldest.1.clone());
            self.eager.insert(oldest);
        }
    }

    /// Other listeners than before have a scope of their own for a host.
    pub(crate) fn rescope(&mut self, host: &HostName) {
        self.rescoped.insert(host.clone());
    }

    /// Whether a host of this age is loaded at its first request.
    pub(crate) fn is_on_demand(&self, host: &HostName, age: &Age) -> bool {
        self.on_demand.contains(&(age.clone(), host.clone()))
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
            hosts.insert(&host(name), &age(created), None);
        }
        let on_demand = |hosts: &Hosts| {
            [("a", 1), ("b", 2), ("c", 3), ("d", 4)]
                .map(|(name, created)| hosts.is_on_demand(&host(name), &age(created)))
        };
        assert_eq!(on_demand(&hosts), [false, false, true, true]);
        assert!(!hosts.wildcards().is_empty() && !hosts.is_on_demand(&host("*.x"), &age(9)));
        hosts.take_rescoped();
        hosts.remove(&host("a"), &age(1));
        assert_eq!(hosts.take_rescoped().into_iter().collect::<Vec<_>>(), [host("c")]);
        assert_eq!(on_demand(&hosts), [false, false, false, true]);
        hosts.insert(&host("b"), &age(9), Some(&age(2)));
        assert!(hosts.is_on_demand(&host("b"), &age(9)));
        assert_eq!(on_demand(&hosts), [false, false, false, false]);
    }
}
