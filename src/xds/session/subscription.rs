//! What a client asked of one type.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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

    /// Takes in that the client asks for a name, be it once more.
    pub(super) fn insert(&mut self, name: Arc<str>) {
        if let Some(hosts) = &mut self.hosts {
            hosts.leave(&name);
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

    /// Whether a name may be served by what was found: its own `Secret`, or one that at most so many share; without a
    /// limit, any number. A name that is served stays so, until it is served by another `Secret`, the client gives it up,
    /// or later ones need its place.
    pub(super) fn admit(&mut self, name: &Arc<str>, found: Option<Found>, limit: Option<usize>) -> Admission {
        let Some(hosts) = &mut self.hosts else { return Admission::Granted };
        let (shares, other) = match found {
            None | Some(Found::Exact) => {
                hosts.leave(name);
                return Admission::Granted;
            }
            Some(Found::OtherCase | Found::Wildcard) => (&mut hosts.by_wildcard, &mut hosts.by_default),
            Some(Found::Default) => (&mut hosts.by_default, &mut hosts.by_wildcard),
        };
        other.leave(name);
        match limit {
            Some(limit) => shares.admit(name, limit),
            None => {
                shares.leave(name);
                Admission::Granted
            }
        }
    }

    /// Whether a name had to give its place to a later one, and was not asked again.
    #[cfg(test)]
    pub(super) fn is_out(&self, name: &str) -> bool {
        let hosts = self.hosts.iter();
        hosts
            .flat_map(|hosts| [&hosts.by_default, &hosts.by_wildcard])
            .any(|shares| shares.out.contains(name))
    }
}

/// Whether a name may be served.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Granted,
    /// It takes the place of this one, which is served no more.
    InPlaceOf(Arc<str>),
    Refused,
}

/// The names that share `Secret`s, each in a place of its own.
#[derive(Default)]
struct Shares {
    /// By when they came.
    names: BTreeMap<u64, Arc<str>>,
    places: HashMap<Arc<str>, u64>,
    last: u64,
    /// Names that had to go for later ones. They stay out until the client asks anew, lest they take turns for ever.
    out: HashSet<Arc<str>>,
}

impl Shares {
    fn admit(&mut self, name: &Arc<str>, limit: usize) -> Admission {
        if self.places.contains_key(name) {
            return Admission::Granted;
        }
        if limit == 0 || self.out.contains(name) {
            return Admission::Refused;
        }
        let oldest = if self.places.len() < limit { None } else { self.names.pop_first() };
        self.last += 1;
        self.names.insert(self.last, name.clone());
        self.places.insert(name.clone(), self.last);
        let Some((_, oldest)) = oldest else { return Admission::Granted };
        self.places.remove(&oldest);
        self.out.insert(oldest.clone());
        Admission::InPlaceOf(oldest)
    }

    fn leave(&mut self, name: &str) {
        self.out.remove(name);
        if let Some(place) = self.places.remove(name) {
            self.names.remove(&place);
        }
    }
}

/// Server names by what may serve them, so that a wildcard's change finds its names without a search.
#[derive(Default)]
struct Hosts {
    /// By wildcard, and by lower-cased name if that is another one.
    by_key: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Served by the `Secret` of a wildcard, or of the name in other letter case.
    by_wildcard: Shares,
    /// Served by the default `Secret`.
    by_default: Shares,
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
        self.by_wildcard.leave(name);
        self.by_default.leave(name);
    }
}

/// The names, other than its own and the default's, under which a server name is looked up.
fn keys(name: &str) -> impl Iterator<Item = String> {
    let host = is_server_name(name).then(|| lower_case(name));
    let wildcard = host.as_deref().and_then(wildcard_of);
    let lower = host.filter(|host| *host != name).map(|host| host.into_owned());
    wildcard.into_iter().chain(lower)
}
