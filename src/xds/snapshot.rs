//! Everything there is to send at one moment.

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use tokio::sync::watch;

use super::resource::lower_case;
use super::{Resource, TypeUrl};

/// How many names of changes are remembered. A stream that is further behind compares everything it holds, as it does
/// after a first build, which nobody is behind.
const LOG_NAMES: usize = 16_384;

/// How many updates are remembered.
const LOG_UPDATES: usize = 4_096;

/// How snapshots are published: `None` until every source was read once, since a client that is sent half a snapshot
/// drops what it holds. Dropping the sender ends every stream.
pub type Sender = watch::Sender<Option<Arc<Snapshot>>>;

/// The side of [`Sender`] that the server holds.
pub type Receiver = watch::Receiver<Option<Arc<Snapshot>>>;

/// Resources of one type by name.
pub type Resources = OrdMap<Arc<str>, Arc<Resource>>;

/// Changes from one snapshot to the next. A name that is both set and removed is set.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Resources that are new or changed.
    pub set: Vec<Arc<Resource>>,
    /// Resources that are gone.
    pub remove: Vec<(TypeUrl, Arc<str>)>,
}

/// What an update really changed, by type and name.
type Changes = Arc<[(TypeUrl, Arc<str>)]>;

/// All resources at one moment, and what the latest updates changed.
///
/// Immutable and persistent: a clone is O(1), an update O(changes · log n).
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    sequence: u64,
    resources: [Resources; TypeUrl::COUNT],
    /// The updates that led here: the last one made `sequence`, the one before it `sequence - 1`, ….
    log: Vector<Changes>,
    log_names: usize,
}

impl Snapshot {
    /// A snapshot without any resource, of sequence 0.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Counts the updates that changed something. Of one process only: another one counts differently.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The snapshot after an update. Resources of equal version are no change; if nothing changes, the result has the
    /// same sequence.
    #[must_use]
    pub fn apply(&self, update: Update) -> Snapshot {
        let mut next = self.clone();
        let Update { mut set, remove } = update;
        // What is set twice counts as it was set last: a stable sort has that one last.
        set.sort_by(|a, b| key(a).cmp(&key(b)));
        let mut changes = Vec::with_capacity(set.len() + remove.len());
        for (at, resource) in set.iter().enumerate() {
            if set.get(at + 1).is_some_and(|later| key(later) == key(resource)) {
                continue;
            }
            let of_type = &mut next.resources[resource.type_url() as usize];
            if of_type.get(resource.name()).is_none_or(|old| old.version() != resource.version()) {
                of_type.insert(resource.name().clone(), resource.clone());
                changes.push((resource.type_url(), resource.name().clone()));
            }
        }
        for (type_url, name) in remove {
            // What was set as it was must not go.
            let is_set = set.binary_search_by(|set| key(set).cmp(&(type_url, &name))).is_ok();
            if !is_set && next.resources[type_url as usize].remove(&name).is_some() {
                changes.push((type_url, name));
            }
        }
        next.record(changes);
        next
    }

    fn record(&mut self, changes: Vec<(TypeUrl, Arc<str>)>) {
        if changes.is_empty() {
            return;
        }
        self.sequence += 1;
        self.log_names += changes.len();
        self.log.push_back(changes.into());
        while self.log_names > LOG_NAMES || self.log.len() > LOG_UPDATES {
            self.log_names -= self.log.pop_front().map_or(0, |oldest| oldest.len());
        }
    }

    /// What was changed after a sequence, with the sequence that changed it, oldest first; a name may come more than
    /// once. `None` if that is too long ago to be known.
    pub fn changes_since(
        &self,
        sequence: u64,
    ) -> Option<impl Iterator<Item = (u64, TypeUrl, &Arc<str>)> + '_> {
        let behind = usize::try_from(self.sequence.checked_sub(sequence)?).ok()?;
        let skipped = self.log.len().checked_sub(behind)?;
        Some((skipped..self.log.len()).flat_map(move |at| {
            let of = self.sequence - (self.log.len() - 1 - at) as u64;
            self.log[at].iter().map(move |(type_url, name)| (of, *type_url, name))
        }))
    }

    /// The resource of exactly this name.
    pub fn get(&self, type_url: TypeUrl, name: &str) -> Option<&Arc<Resource>> {
        self.resources[type_url as usize].get(name)
    }

    /// All resources of a type, by name.
    pub fn iter(&self, type_url: TypeUrl) -> impl Iterator<Item = &Arc<Resource>> + '_ {
        self.resources[type_url as usize].values()
    }

    /// How many resources of a type there are.
    pub fn len(&self, type_url: TypeUrl) -> usize {
        self.resources[type_url as usize].len()
    }

    /// Whether there is no resource at all.
    pub fn is_empty(&self) -> bool {
        self.resources.iter().all(OrdMap::is_empty)
    }

    pub(super) fn of_type(&self, type_url: TypeUrl) -> &Resources {
        &self.resources[type_url as usize]
    }

    /// The resource that serves a name. Names are exact but for `Secret`s.
    ///
    /// Envoy's `on_demand_secret` selector asks for a `Secret` named by whatever server name (SNI) a TLS client sends.
    /// So a name that looks like a host is served, letter case aside, by the `Secret` of that name, by that of its
    /// wildcard `*.parent` (one label), or by the default one.
    pub fn find(
        &self,
        type_url: TypeUrl,
        asked: &str,
        default_secret: Option<&str>,
    ) -> Option<(&Arc<Resource>, Found)> {
        if let Some(exact) = self.get(type_url, asked) {
            return Some((exact, Found::Exact));
        }
        if type_url != TypeUrl::Secret || !is_server_name(asked) {
            return None;
        }
        let host = lower_case(asked);
        if let Some(own) = self.get(type_url, &host) {
            return Some((own, Found::OtherCase));
        }
        let wildcard = wildcard_of(&host).and_then(|name| self.get(type_url, &name));
        if let Some(wildcard) = wildcard {
            return Some((wildcard, Found::Wildcard));
        }
        self.get(type_url, default_secret?).map(|default| (default, Found::Default))
    }
}

fn key(resource: &Resource) -> (TypeUrl, &Arc<str>) {
    (resource.type_url(), resource.name())
}

/// By which name a resource was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its own.
    Exact,
    /// Its own, but for the letter case.
    OtherCase,
    /// The wildcard of its parent domain.
    Wildcard,
    /// The default one's.
    Default,
}

/// Whether a name may be a host's: a client chooses it, so anything else gets no default. Names that a translator
/// makes up (`namespace/name`) are not hosts.
pub(super) fn is_server_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// `*.example.com` of `a.example.com`, given in lower case.
pub(super) fn wildcard_of(host: &str) -> Option<String> {
    let (label, parent) = host.split_once('.')?;
    (!label.is_empty() && !parent.is_empty()).then(|| format!("*.{parent}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::Version;

    fn resource(type_url: TypeUrl, name: &str, version: u64) -> Arc<Resource> {
        Arc::new(Resource::from_bytes(type_url, name, Version(version), b""))
    }

    fn set(type_url: TypeUrl, name: &str, version: u64) -> Update {
        Update { set: vec![resource(type_url, name, version)], remove: vec![] }
    }

    fn changes(snapshot: &Snapshot, since: u64) -> Option<Vec<(u64, String)>> {
        Some(snapshot.changes_since(since)?.map(|(s, _, name)| (s, name.to_string())).collect())
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let a = Snapshot::empty().apply(set(TypeUrl::Cluster, "a", 1));
        assert_eq!(a.sequence(), 1);
        assert_eq!(a.apply(set(TypeUrl::Cluster, "a", 1)).sequence(), 1);
        assert_eq!(
            a.apply(Update { remove: vec![(TypeUrl::Listener, "a".into())], ..Default::default() })
                .sequence(),
            1
        );
        let b = a.apply(set(TypeUrl::Cluster, "b", 1)).apply(set(TypeUrl::Cluster, "a", 2));
        assert_eq!(changes(&b, 1), Some(vec![(2, "b".into()), (3, "a".into())]));
        assert_eq!(changes(&b, 3), Some(vec![]));
        assert_eq!(changes(&b, 4), None);
        assert_eq!(a.get(TypeUrl::Cluster, "a").map(|r| r.version()), Some(Version(1)));
    }

    #[test]
    fn a_name_that_is_set_and_removed_is_set() {
        let before = Snapshot::empty().apply(set(TypeUrl::Cluster, "a", 1));
        for (version, changed) in [(2, vec![(2, "a".into())]), (1, vec![])] {
            let mut update = set(TypeUrl::Cluster, "a", version);
            update.remove = vec![(TypeUrl::Cluster, "a".into()), (TypeUrl::Listener, "a".into())];
            let after = before.apply(update);
            assert_eq!(after.get(TypeUrl::Cluster, "a").map(|r| r.version()), Some(Version(version)));
            assert_eq!(changes(&after, 1), Some(changed));
        }
    }

    #[test]
    fn a_name_that_is_set_twice_is_as_it_was_set_last() {
        let twice = |versions: [u64; 2]| {
            let set = versions.map(|version| resource(TypeUrl::Cluster, "a", version)).into();
            Update { set, remove: vec![] }
        };
        let before = Snapshot::empty().apply(twice([2, 1]));
        assert_eq!(changes(&before, 0), Some(vec![(1, "a".into())]));
        for (versions, changed) in [([2, 1], vec![]), ([1, 2], vec![(2, "a".into())])] {
            let after = before.apply(twice(versions));
            assert_eq!(after.get(TypeUrl::Cluster, "a").map(|r| r.version()), Some(Version(versions[1])));
            assert_eq!(changes(&after, 1), Some(changed));
        }
    }

    #[test]
    fn the_log_is_bounded() {
        let mut snapshot = Snapshot::empty();
        for version in 0..(LOG_UPDATES as u64 + 10) {
            snapshot = snapshot.apply(set(TypeUrl::Cluster, "a", version));
        }
        assert!(changes(&snapshot, 9).is_none());
        assert_eq!(changes(&snapshot, 10).map(|c| c.len()), Some(LOG_UPDATES));
        let large = (0..=LOG_NAMES).map(|i| resource(TypeUrl::Cluster, &i.to_string(), 1)).collect();
        snapshot = snapshot.apply(Update { set: large, remove: vec![] });
        assert_eq!((snapshot.log.len(), snapshot.log_names), (0, 0), "too much to be remembered");
        let sequence = snapshot.sequence();
        snapshot = snapshot.apply(set(TypeUrl::Cluster, "a", 0));
        assert!(changes(&snapshot, sequence - 1).is_none());
        assert_eq!(changes(&snapshot, sequence), Some(vec![(sequence + 1, "a".into())]));
    }

    #[test]
    fn secrets_are_found_by_server_name() {
        let names = ["a.example.com", "*.example.com", "*", "ns/ca"];
        let snapshot = names
            .iter()
            .enumerate()
            .fold(Snapshot::empty(), |s, (i, name)| s.apply(set(TypeUrl::Secret, name, i as u64)));
        let cases = [
            ("a.example.com", Some(("a.example.com", Found::Exact))),
            ("A.Example.com", Some(("a.example.com", Found::OtherCase))),
            ("b.example.COM", Some(("*.example.com", Found::Wildcard))),
            ("c.b.example.com", Some(("*", Found::Default))),
            ("example.com", Some(("*", Found::Default))),
            ("default", Some(("*", Found::Default))),
            ("*", Some(("*", Found::Exact))),
            ("ns/ca", Some(("ns/ca", Found::Exact))),
            ("ns/other", None),
            ("", None),
        ];
        for (asked, expected) in cases {
            let found =
                snapshot.find(TypeUrl::Secret, asked, Some("*")).map(|(r, found)| (&**r.name(), found));
            assert_eq!(found, expected, "{asked}");
        }
        assert!(snapshot.find(TypeUrl::Cluster, "a.example.com", Some("*")).is_none());
    }
}
