//! Make before break: who waits for which cluster, and who still uses which cluster and route configuration.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::channel::{ASKED, Wait};
use crate::xds::{Resource, TypeUrl};

/// References from a stream's resources to others.
#[derive(Default)]
pub(super) struct Order {
    /// By type: how many resources, that the client holds or may hold, use another one.
    uses: [HashMap<Arc<str>, u32>; TypeUrl::COUNT],
    /// What waits for a cluster. Each waits for one at a time: the first that it lacks.
    waiters: HashMap<Arc<str>, BTreeSet<(TypeUrl, Arc<str>)>>,
    /// When waiting ends.
    deadlines: BTreeSet<(Instant, TypeUrl, Arc<str>)>,
    /// How many wait by the snapshot that changed them.
    since: BTreeMap<u64, u32>,
}

impl Order {
    pub(super) fn add(&mut self, resource: &Resource) {
        let uses = &mut self.uses[resource.type_url().requires() as usize];
        for name in resource.requires() {
            *uses.entry(name.clone()).or_default() += 1;
        }
    }

    /// Takes back [`add`](Self::add); returns what nothing uses any more, of the type that the resource refers to.
    pub(super) fn release(&mut self, resource: &Resource) -> Vec<Arc<str>> {
        let mut unused = Vec::new();
        let uses = &mut self.uses[resource.type_url().requires() as usize];
        for name in resource.requires() {
            if let Some(count) = uses.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    uses.remove(name);
                    unused.push(name.clone());
                }
            }
        }
        unused
    }

    pub(super) fn is_used(&self, type_url: TypeUrl, name: &str) -> bool {
        self.uses[type_url as usize].contains_key(name)
    }

    pub(super) fn wait(&mut self, type_url: TypeUrl, name: &Arc<str>, wait: &Wait) {
        self.waiters.entry(wait.cluster.clone()).or_default().insert((type_url, name.clone()));
        self.deadlines.insert((wait.deadline, type_url, name.clone()));
        *self.since.entry(wait.due.since).or_default() += 1;
    }

    /// Takes back [`wait`](Self::wait).
    pub(super) fn stop_waiting(&mut self, type_url: TypeUrl, name: &Arc<str>, wait: &Wait) {
        let key = (type_url, name.clone());
        if let Some(waiters) = self.waiters.get_mut(&wait.cluster) {
            waiters.remove(&key);
            if waiters.is_empty() {
                self.waiters.remove(&wait.cluster);
            }
        }
        self.deadlines.remove(&(wait.deadline, key.0, key.1));
        if let Some(count) = self.since.get_mut(&wait.due.since) {
            *count -= 1;
            if *count == 0 {
                self.since.remove(&wait.due.since);
            }
        }
    }

    /// What waits for a cluster; it stays listed until [`stop_waiting`](Self::stop_waiting).
    pub(super) fn waiters(&self, cluster: &str) -> Vec<(TypeUrl, Arc<str>)> {
        self.waiters.get(cluster).into_iter().flatten().cloned().collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, ..)| *at)
    }

    /// What has waited long enough; it stays listed until [`stop_waiting`](Self::stop_waiting).
    pub(super) fn overdue(&self, now: Instant) -> Vec<(TypeUrl, Arc<str>)> {
        self.deadlines
            .iter()
            .take_while(|(at, ..)| *at <= now)
            .map(|(_, t, name)| (*t, name.clone()))
            .collect()
    }

    /// The oldest snapshot of which something waits, [`ASKED`] if nothing does.
    pub(super) fn oldest(&self) -> u64 {
        self.since.first_key_value().map_or(ASKED, |(since, _)| *since)
    }
}
