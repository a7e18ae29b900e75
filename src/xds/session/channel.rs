//! One type of one stream: what the client asked, what it holds, what it is to be sent.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::subscription::Subscription;
use crate::xds::snapshot::Resources;
use crate::xds::{Resource, TypeUrl, Version};

/// A sequence of no snapshot: of what is sent because it was asked, not because it changed.
pub(super) const ASKED: u64 = u64::MAX;

/// Why and since when a name is to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// The snapshot that changed it, or [`ASKED`].
    pub(super) since: u64,
    pub(super) at: Instant,
    /// The client must get an answer, though nothing changed.
    pub(super) force: bool,
}

impl Due {
    /// Both reasons at once: the older one counts, since delays are bounded from there.
    pub(super) fn and(self, other: Due) -> Due {
        Due {
            since: self.since.min(other.since),
            at: self.at.min(other.at),
            force: self.force || other.force,
        }
    }
}

/// Why and until when a name waits.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) due: Due,
    /// The cluster that must be acknowledged first.
    pub(super) cluster: Arc<str>,
    pub(super) deadline: Instant,
}

/// A resource that the client rejected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rejection {
    pub(super) version: Version,
    pub(super) retry: Retry,
    /// How often it was tried again, in vain.
    pub(super) retries: u32,
}

/// Whether a rejected resource is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Retry {
    /// Not before it changes.
    Never,
    /// Then.
    At(Instant),
    /// It is being tried.
    Now,
}

/// One name in a response: a resource, or that there is none.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) resource: Option<Arc<Resource>>,
    pub(super) due: Due,
}

/// A response that is not answered yet.
pub(super) struct Flight {
    pub(super) nonce: u64,
    pub(super) entries: Vec<Entry>,
    /// The names that it says are gone.
    pub(super) removed: HashSet<Arc<str>>,
    /// The oldest snapshot of which it brings a change.
    pub(super) since: u64,
}

/// A part of a rejected response, to be sent alone.
pub(super) struct Part {
    pub(super) names: Vec<(Arc<str>, Due)>,
    /// The oldest snapshot of which it brings a change.
    since: u64,
}

impl Part {
    pub(super) fn new(names: Vec<(Arc<str>, Due)>) -> Self {
        let since = names.iter().map(|(_, due)| due.since).min().unwrap_or(ASKED);
        Part { names, since }
    }
}

/// Names to be looked at before the next response.
#[derive(Default)]
pub(super) struct Pending {
    names: BTreeMap<Arc<str>, Due>,
    oldest: Option<u64>,
}

impl Pending {
    pub(super) fn insert(&mut self, name: Arc<str>, due: Due) {
        self.oldest = Some(self.oldest.map_or(due.since, |oldest| oldest.min(due.since)));
        self.names.entry(name).and_modify(|old| *old = old.and(due)).or_insert(due);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Due> {
        let due = self.names.remove(name);
        if self.names.is_empty() {
            self.oldest = None;
        }
        due
    }

    pub(super) fn take(&mut self) -> BTreeMap<Arc<str>, Due> {
        self.oldest = None;
        std::mem::take(&mut self.names)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn oldest(&self) -> u64 {
        self.oldest.unwrap_or(ASKED)
    }
}

/// The state of one type on one stream.
pub(super) struct Channel {
    pub(super) subscription: Subscription,
    /// What the client accepted last. At rest a client of all resources shares the snapshot's own map.
    pub(super) held: Resources,
    /// Names that the client holds from an earlier stream in a version that is not known here.
    pub(super) foreign: HashSet<Arc<str>>,
    /// Clusters that the client holds since an earlier stream, until every route that may refer to them is known.
    pub(super) earlier: HashSet<Arc<str>>,
    pub(super) pending: Pending,
    /// Names that wait for a cluster.
    pub(super) waiting: HashMap<Arc<str>, Wait>,
    /// Removals that wait until nothing uses the resource.
    pub(super) deferred: HashSet<Arc<str>>,
    /// Whether one of them waits until everything that may refer to it is known.
    pub(super) awaits_users: bool,
    pub(super) flight: Option<Flight>,
    /// Parts of rejected responses.
    pub(super) suspects: VecDeque<Part>,
    /// Whether the last response was such a part: they take turns with what is pending.
    pub(super) was_suspect: bool,
    /// Sent in a response that was rejected as a whole: the client may hold them or not.
    pub(super) doubtful: HashMap<Arc<str>, Vec<Arc<Resource>>>,
    /// What the client rejected, until the resource changes.
    pub(super) rejected: HashMap<Arc<str>, Rejection>,
    /// The client waits for an answer, be it an empty one.
    pub(super) owed: bool,
}

impl Channel {
    pub(super) fn new(type_url: TypeUrl, default_secret: Option<&'static str>) -> Self {
        Channel {
            subscription: Subscription::new(type_url, default_secret),
            held: Resources::new(),
            foreign: HashSet::new(),
            earlier: HashSet::new(),
            pending: Pending::default(),
            waiting: HashMap::new(),
            deferred: HashSet::new(),
            awaits_users: false,
            flight: None,
            suspects: VecDeque::new(),
            was_suspect: false,
            doubtful: HashMap::new(),
            rejected: HashMap::new(),
            owed: false,
        }
    }

    /// Whether the client certainly holds, or soon will, exactly what there is.
    pub(super) fn is_level(&self) -> bool {
        self.subscription.wildcard
            && self.subscription.names().is_empty()
            && self.pending.is_empty()
            && self.waiting.is_empty()
            && self.deferred.is_empty()
            && self.suspects.is_empty()
            && self.doubtful.is_empty()
            && self.rejected.is_empty()
    }

    /// Whether the client holds the resource in some form.
    pub(super) fn has(&self, name: &str) -> bool {
        self.held.contains_key(name) || self.foreign.contains(name)
    }

    /// Whether the client may have taken some form of the resource from a response that it rejected as a whole.
    pub(super) fn in_doubt(&self, name: &str) -> bool {
        self.doubtful.get(name).is_some_and(|forms| !forms.is_empty())
    }

    /// The oldest snapshot of which something is still to be sent, [`ASKED`] if nothing is. What waits for clusters is
    /// counted elsewhere.
    pub(super) fn unsent(&self) -> u64 {
        let suspects = self.suspects.iter().map(|part| part.since).min();
        self.pending.oldest().min(suspects.unwrap_or(ASKED))
    }

    /// The oldest snapshot of which something is in flight, [`ASKED`] if nothing is.
    pub(super) fn unanswered(&self) -> u64 {
        self.flight.as_ref().map_or(ASKED, |flight| flight.since)
    }
}
