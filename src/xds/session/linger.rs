//! Clusters that no route leads to any more, but requests that were routed before may still be on their way to.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Until when each is kept. All are kept equally long, so they end in the order in which they began.
#[derive(Default)]
pub(super) struct Linger {
    until: HashMap<Arc<str>, Instant>,
    ends: VecDeque<(Instant, Arc<str>)>,
    /// Until when all are kept, since nobody knows which of them was used last.
    all: Option<Instant>,
}

impl Linger {
    /// The last that referred to a cluster is gone.
    pub(super) fn begin(&mut self, cluster: &Arc<str>, until: Instant) {
        self.until.insert(cluster.clone(), until);
        self.ends.push_back((until, cluster.clone()));
    }

    /// Something is gone of which nobody knows what it referred to.
    pub(super) fn begin_all(&mut self, until: Instant) {
        self.all = Some(until);
    }

    pub(super) fn contains(&self, cluster: &str) -> bool {
        self.all.is_some() || self.until.contains_key(cluster)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.ends.front().map(|(at, _)| *at).into_iter().chain(self.all).min()
    }

    /// Whether the time of all of them together is over now.
    pub(super) fn end_all(&mut self, now: Instant) -> bool {
        self.all.take_if(|at| *at <= now).is_some()
    }

    /// The next one whose time is over. One that was used again since ends with the last of its times.
    pub(super) fn end(&mut self, now: Instant) -> Option<Arc<str>> {
        while let Some((at, cluster)) = self.ends.pop_front_if(|(at, _)| *at <= now) {
            if self.until.get(&cluster) == Some(&at) {
                self.until.remove(&cluster);
                return Some(cluster);
            }
        }
        None
    }
}
