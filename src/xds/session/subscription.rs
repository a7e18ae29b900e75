//! What a client asked of one type.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::xds::TypeUrl;
use crate::xds::resource::lower_case;
use crate::xds::snapshot::{Found, is_server_name, wildcard_of};

/// The names that a client subscribed to, and whether it wants all others too.
#[derive(Default)]
pub(super) struct Subscription {
    /// Whether a request of this type has come.
    pub(super) asked: bool,
    /// Whether the client ever gave names. In the state-of-the-world variant an empty list means "all" only before.
    pub(super) named: bool,
    pub(super) wildcard: bool,
    names: HashSet<Arc<str>>,
    /// Of `Secret`s only.
    hosts: Option<Hosts>,
    default_secret: Option<&'static str>,
}

impl Subscription {
    pub(super) fn new(type_url: TypeUrl, default_secret: Option<&'static str>) -> Self {
        let hosts = (type_url == TypeUrl::Secret).then(Hosts::default);
        Subscription { hosts, default_secret, ..Default::default() }
    }

    /// Whether the client wants the resource.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(super) fn names(&self) -> &HashSet<Arc<str>> {
        &self.names
    }

    pub(super) fn insert(&mut self, name: Arc<str>) {
        if let Some(hosts) = &mut self.hosts {
            hosts.insert(&name);
        }
        self.names.insert(name);
    }

    pub(super) fn remove(&mut self, name: &str) {
        let removed = self.names.take(name);
        if let (Some(name), Some(hosts)) = (removed, &mut self.hosts) {
            hosts.remove(&name);
        }
    }

    /// Which subscribed names a change of the resource `name` may touch.
    pub(super) fn touched_by(&self, name: &Arc<str>) -> Vec<Arc<str>> {
        let mut touched = Vec::new();
        if self.covers(name) {
            touched.push(name.clone());
        }
        if let Some(hosts) = &self.hosts {
            touched.extend(hosts.by_key.get(name).into_iter().flatten().cloned());
            if Some(&**name) == self.default_secret {
                touched.extend(self.names.iter().filter(|n| is_server_name(n)).cloned());
            }
        }
        touched
    }

    /// Whether a name may be served by what was found: its own `Secret`, or one that it shares with at most so many. A
    /// name that is served stays so, until it is served by another one or the client gives it up.
    pub(super) fn admit(&mut self, name: &Arc<str>, found: Option<Found>, limit: usize) -> bool {
        let Some(hosts) = &mut self.hosts else { return true };
        let (shares, other) = match found {
            None | Some(Found::Exact) => {
                hosts.leave(name);
                return true;
            }
            Some(Found::OtherCase | Found::Wildcard) => (&mut hosts.by_wildcard, &mut hosts.by_default),
            Some(Found::Default) => (&mut hosts.by_default, &mut hosts.by_wildcard),
        };
        other.remove(name);
        shares.contains(name) || (shares.len() < limit && shares.insert(name.clone()))
    }
}

/// Server names by what may serve them, so that a wildcard's change finds its names without a search.
#[derive(Default)]
struct Hosts {
    /// By wildcard, and by lower-cased name if that is another one.
    by_key: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Served by the `Secret` of a wildcard, or of the name in other letter case.
    by_wildcard: HashSet<Arc<str>>,
    /// Served by the default `Secret`.
    by_default: HashSet<Arc<str>>,
}

impl Hosts {
    fn insert(&mut self, name: &Arc<str>) {
        for key in keys(name) {
            self.by_key.entry(key.into()).or_default().insert(name.clone());
        }
    }

    fn remove(&mut self, name: &Arc<str>) {
        for key in keys(name) {
            if let Some(names) = self.by_key.get_mut(key.as_str()) {
                names.remove(name);
                if names.is_empty() {
                    self.by_key.remove(key.as_str());
                }
            }
        }
        self.leave(name);
    }

    /// A name shares no `Secret` any more.
    fn leave(&mut self, name: &str) {
        self.by_wildcard.remove(name);
        self.by_default.remove(name);
    }
}

/// The names, other than its own and the default's, under which a server name is looked up.
fn keys(name: &str) -> impl Iterator<Item = String> {
    let host = is_server_name(name).then(|| lower_case(name));
    let wildcard = host.as_deref().and_then(wildcard_of);
    let lower = host.filter(|host| *host != name).map(|host| host.into_owned());
    wildcard.into_iter().chain(lower)
}
