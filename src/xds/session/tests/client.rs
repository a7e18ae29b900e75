//! A model of Envoy: what it asks, what it takes, what it refuses.
//!
//! Resources of the model are pure numbers: a version says of which type, which name and which form it is, and with
//! that whether Envoy refuses it and which clusters it requires.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::xds::message::{Ask, Protocol, Request, Response};
use crate::xds::{Resource, TypeUrl, Version};

/// Forms that a resource of one name can have; the last is one that Envoy refuses.
pub(super) const FORMS: u64 = 4;
/// The form of a stand-in, which is never refused and requires nothing.
const STAND_IN: u64 = 9;

/// Cluster names.
pub(super) const CLUSTERS: [&str; 4] = ["c0", "c1", "c2", "c3"];

/// The names that there may be in the snapshot.
pub(super) fn universe(type_url: TypeUrl) -> &'static [&'static str] {
    match type_url {
        TypeUrl::Cluster | TypeUrl::ClusterLoadAssignment => &CLUSTERS,
        TypeUrl::Secret => &["a.x", "b.x", "*.x", "*", "ns/ca"],
        TypeUrl::TypedExtensionConfig => &["f0", "f1"],
        TypeUrl::Listener => &["l0", "l1"],
        TypeUrl::RouteConfiguration => &["r0", "r1", "r2"],
        TypeUrl::ScopedRouteConfiguration => &["p0", "p1", "p2"],
        TypeUrl::LimitSet => &["m0", "m1", "m2"],
        TypeUrl::RateLimitConfig => &["g0"],
    }
}

/// The names that a client may ask.
pub(super) fn askable(type_url: TypeUrl) -> &'static [&'static str] {
    match type_url {
        TypeUrl::Secret => &["a.x", "A.x", "b.x", "c.x", "d.y", "ns/ca", "ns/no"],
        TypeUrl::RouteConfiguration => &["r0", "r1", "r2", "r3"],
        TypeUrl::ScopedRouteConfiguration => &["p0", "p1", "p3"],
        _ => universe(type_url),
    }
}

pub(super) fn version(type_url: TypeUrl, name: &str, form: u64) -> u64 {
    let name = universe(type_url).iter().position(|n| *n == name).unwrap() as u64;
    (type_url as u64 * 100 + name) * 10 + form
}

pub(super) fn is_refused(version: u64) -> bool {
    version % 10 == FORMS - 1
}

/// What the session sends in place of a route configuration that was never accepted.
pub(super) fn stand_in(type_url: TypeUrl, name: &str) -> Option<Resource> {
    let version = || Version(version(type_url, name, STAND_IN));
    (type_url == TypeUrl::RouteConfiguration).then(|| Resource::from_bytes(type_url, name, version(), b""))
}

/// Which clusters a version of a route configuration refers to, or which route configuration one of a scope.
pub(super) fn requires(version: u64) -> Vec<&'static str> {
    let (name, form) = (version / 10 % 100, version % 10);
    if version / 1000 == TypeUrl::ScopedRouteConfiguration as u64 {
        let routes = universe(TypeUrl::RouteConfiguration);
        return vec![routes[(name + form) as usize % routes.len()]];
    }
    if version / 1000 != TypeUrl::RouteConfiguration as u64 || form == STAND_IN {
        return Vec::new();
    }
    let mut clusters = vec![CLUSTERS[(name + form) as usize % CLUSTERS.len()]];
    if form % 2 == 1 {
        clusters.push(CLUSTERS[(name + 2 * form + 1) as usize % CLUSTERS.len()]);
    }
    clusters
}

pub(super) fn resource(type_url: TypeUrl, name: &str, form: u64) -> Arc<Resource> {
    let version = version(type_url, name, form);
    let requires = requires(version).into_iter().map(Arc::from);
    Arc::new(Resource::from_bytes(type_url, name, Version(version), b"").requiring(requires))
}

/// One type of the client.
#[derive(Default)]
pub(super) struct Kind {
    pub(super) asked: bool,
    pub(super) wildcard: bool,
    pub(super) names: BTreeSet<String>,
    /// What it has taken.
    pub(super) view: BTreeMap<String, u64>,
    nonce: String,
}

impl Kind {
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }
}

/// A model of Envoy on one stream after another.
pub(super) struct Client {
    protocol: Protocol,
    pub(super) kinds: [Kind; TypeUrl::COUNT],
    /// On the way to the server.
    pub(super) outbox: VecDeque<Request>,
    /// On the way to the client.
    pub(super) inbox: VecDeque<Response>,
    /// The answer to a response of clusters, held back until their endpoints are answered.
    warming: Option<(Request, BTreeSet<String>)>,
    /// Whether time stood still, so that nothing may have been sent for want of patience.
    pub(super) strict: bool,
    reconnected: bool,
    /// Clusters whose latest form was refused: no route has to wait for them.
    refused_clusters: BTreeSet<String>,
    /// Versions of routes that were taken before a cluster of theirs, for want of patience, and the cluster.
    premature: BTreeSet<(u64, String)>,
    /// Whether the server once waited in vain to hear which routes it holds.
    pub(super) unheard: bool,
}

impl Client {
    pub(super) fn new(protocol: Protocol) -> Self {
        let mut client = Client {
            protocol,
            kinds: Default::default(),
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            warming: None,
            strict: true,
            reconnected: false,
            refused_clusters: BTreeSet::new(),
            premature: BTreeSet::new(),
            unheard: false,
        };
        client.ask_wildcard(TypeUrl::Cluster);
        client
    }

    pub(super) fn kind(&mut self, type_url: TypeUrl) -> &mut Kind {
        &mut self.kinds[type_url as usize]
    }

    /// Begins a new stream; what was on the way is lost.
    pub(super) fn reconnect(&mut self) {
        self.reconnected = true;
        self.outbox.clear();
        self.inbox.clear();
        self.warming = None;
        // Clusters come first, as they do from Envoy; then whatever else it had asked.
        let cluster_first = [TypeUrl::Cluster, TypeUrl::ClusterLoadAssignment, TypeUrl::Secret];
        let others = TypeUrl::ALL.into_iter().filter(|t| !cluster_first.contains(t));
        for type_url in cluster_first.into_iter().chain(others) {
            let kind = &mut self.kinds[type_url as usize];
            kind.nonce = String::new();
            if !kind.asked {
                continue;
            }
            let mut subscribe: Vec<String> = kind.names.iter().cloned().collect();
            if kind.wildcard && !subscribe.is_empty() {
                subscribe.push("*".into());
            }
            if !kind.wildcard && subscribe.is_empty() {
                kind.asked = false;
                continue;
            }
            let versions = kind.view.iter().map(|(name, v)| (name.clone(), Version(*v).to_string()));
            let ask = match self.protocol {
                Protocol::Delta => {
                    Ask::Delta { subscribe, unsubscribe: vec![], initial_versions: versions.collect() }
                }
                Protocol::Sotw => Ask::Sotw { names: subscribe },
            };
            self.outbox.push_back(Request { type_url, nonce: String::new(), error: None, ask });
        }
    }

    pub(super) fn ask_wildcard(&mut self, type_url: TypeUrl) {
        let kind = self.kind(type_url);
        if kind.wildcard {
            return;
        }
        let first = !kind.asked;
        kind.wildcard = true;
        let subscribe = if first { vec![] } else { vec!["*".to_owned()] };
        self.ask(type_url, subscribe, vec![]);
    }

    pub(super) fn drop_wildcard(&mut self, type_url: TypeUrl) {
        let kind = self.kind(type_url);
        if !std::mem::take(&mut kind.wildcard) {
            return;
        }
        let names = kind.names.clone();
        kind.view.retain(|name, _| names.contains(name));
        self.ask(type_url, vec![], vec!["*".to_owned()]);
    }

    pub(super) fn subscribe(&mut self, type_url: TypeUrl, name: &str) {
        if self.kind(type_url).names.insert(name.to_owned()) {
            self.ask(type_url, vec![name.to_owned()], vec![]);
        }
    }

    pub(super) fn unsubscribe(&mut self, type_url: TypeUrl, name: &str) {
        let kind = self.kind(type_url);
        if kind.names.remove(name) {
            kind.view.remove(name);
            self.ask(type_url, vec![], vec![name.to_owned()]);
        }
    }

    /// In the state-of-the-world variant every request repeats all names, and the latest nonce.
    fn ask(&mut self, type_url: TypeUrl, subscribe: Vec<String>, unsubscribe: Vec<String>) {
        let protocol = self.protocol;
        let kind = self.kind(type_url);
        kind.asked = true;
        let request = match protocol {
            Protocol::Delta => {
                let ask = Ask::Delta { subscribe, unsubscribe, initial_versions: Default::default() };
                Request { type_url, nonce: String::new(), error: None, ask }
            }
            Protocol::Sotw => {
                let nonce = kind.nonce.clone();
                Request { type_url, nonce, error: None, ask: sotw_ask(kind) }
            }
        };
        // While the answer to clusters is held back, so is everything else about clusters.
        match &mut self.warming {
            Some(_) if type_url == TypeUrl::Cluster => {}
            _ => self.outbox.push_back(request),
        }
    }

    /// Takes the next response. Of one that it refuses it takes the good resources for which `luck` has a bit.
    pub(super) fn receive(&mut self, luck: u32) {
        if self.warming.is_some() && self.inbox.front().is_some_and(|r| r.type_url == TypeUrl::Cluster) {
            panic!("a second response of clusters while the first is not answered");
        }
        let Some(response) = self.inbox.pop_front() else { return };
        let type_url = response.type_url;
        let refused: Vec<_> = response.resources.iter().filter(|(_, r)| is_refused(r.version().0)).collect();
        let takes = |at: usize| refused.is_empty() || luck >> (at % 31) & 1 == 1;

        if type_url == TypeUrl::Cluster {
            let sent = response.resources.iter().map(|(name, _)| name.to_string());
            self.refused_clusters.retain(|name| !sent.clone().any(|sent| sent == *name));
            self.refused_clusters.extend(refused.iter().map(|(name, _)| name.to_string()));
        }
        let before: BTreeSet<String> = self.kind(type_url).view.keys().cloned().collect();
        self.take_removals(&response, takes);
        for (at, (name, resource)) in response.resources.iter().enumerate() {
            let version = resource.version().0;
            if takes(at) && !is_refused(version) && self.kind(type_url).wants(name) {
                self.take(type_url, name, version);
            }
        }
        // Names the culprit, as Envoy does for some types, or not.
        let sotw = self.protocol == Protocol::Sotw;
        let error = refused.first().map(|(name, _)| match luck & 1 {
            0 if !sotw => "refused".to_owned(),
            _ => format!("{name} is refused"),
        });
        let kind = &mut self.kinds[type_url as usize];
        kind.nonce = response.nonce.clone();
        let ask = match self.protocol {
            Protocol::Delta => {
                Ask::Delta { subscribe: vec![], unsubscribe: vec![], initial_versions: Default::default() }
            }
            Protocol::Sotw => sotw_ask(kind),
        };
        let added = kind.view.keys().filter(|name| !before.contains(*name)).cloned().collect();
        let answer = Request { type_url, nonce: response.nonce.clone(), error, ask };
        self.answer(answer, added, &response);
    }

    /// Sends the answer, or holds it back while clusters warm.
    fn answer(&mut self, answer: Request, added: BTreeSet<String>, response: &Response) {
        let (type_url, accepted) = (answer.type_url, answer.error.is_none());
        if type_url == TypeUrl::Cluster {
            if self.protocol == Protocol::Delta && accepted && !added.is_empty() {
                self.warming = Some((answer, added));
            } else {
                self.outbox.push_back(answer);
            }
            self.follow_clusters();
            return;
        }
        self.outbox.push_back(answer);
        if type_url == TypeUrl::ClusterLoadAssignment
            && let Some((_, cold)) = &mut self.warming
        {
            let view = &self.kinds[type_url as usize].view;
            cold.retain(|name| !view.contains_key(name) && !response.removed.iter().any(|r| **r == **name));
            if cold.is_empty() {
                self.outbox.extend(self.warming.take().map(|(answer, _)| answer));
            }
        }
    }

    /// Wants the endpoints of the clusters that it has.
    fn follow_clusters(&mut self) {
        let endpoints = TypeUrl::ClusterLoadAssignment;
        let clusters: BTreeSet<String> = self.kind(TypeUrl::Cluster).view.keys().cloned().collect();
        let names = self.kind(endpoints).names.clone();
        for name in names.difference(&clusters) {
            self.unsubscribe(endpoints, name);
        }
        for name in clusters.difference(&names) {
            self.subscribe(endpoints, name);
        }
    }

    fn take(&mut self, type_url: TypeUrl, name: &str, version: u64) {
        let before = self.kind(type_url).view.insert(name.to_owned(), version);
        if before != Some(version) && type_url == TypeUrl::RouteConfiguration {
            let clusters = &self.kinds[TypeUrl::Cluster as usize].view;
            for cluster in requires(version).into_iter().filter(|cluster| !clusters.contains_key(*cluster)) {
                let may_come = !self.strict || self.refused_clusters.contains(cluster);
                assert!(may_come, "{name}@{version} came before its cluster {cluster}");
                self.premature.insert((version, cluster.to_owned()));
            }
        }
    }

    fn take_removals(&mut self, response: &Response, takes: impl Fn(usize) -> bool) {
        let type_url = response.type_url;
        let gone: Vec<String> = if self.protocol == Protocol::Delta {
            response.removed.iter().map(|name| name.to_string()).collect()
        } else if type_url.has_wildcard() {
            let set: BTreeSet<&str> = response.resources.iter().map(|(name, _)| &**name).collect();
            self.kind(type_url).view.keys().filter(|name| !set.contains(name.as_str())).cloned().collect()
        } else {
            return;
        };
        for (at, name) in gone.into_iter().enumerate() {
            if takes(at + 7) && self.kind(type_url).view.remove(&name).is_some() {
                self.check_unused(type_url, &name);
            }
        }
    }

    fn check_unused(&self, type_url: TypeUrl, gone: &str) {
        // A set cannot hold the unknown form of a cluster that is refused now, so it is lost with the stream; nor one
        // that the client may have taken or not, and that a route was sent without, for want of patience.
        let lost = self.protocol == Protocol::Sotw && (self.reconnected || !self.strict) || self.unheard;
        let users = match type_url {
            TypeUrl::Cluster => TypeUrl::RouteConfiguration,
            TypeUrl::RouteConfiguration => TypeUrl::ScopedRouteConfiguration,
            _ => return,
        };
        // Of a form of an earlier stream the server knows but that its clusters came before it.
        let unknown = |version: u64| self.reconnected && self.premature.contains(&(version, gone.to_owned()));
        for (user, version) in &self.kinds[users as usize].view {
            if lost || unknown(*version) {
                continue;
            }
            assert!(!requires(*version).contains(&gone), "{gone} went while {user}@{version} requires it");
        }
    }
}

fn sotw_ask(kind: &Kind) -> Ask {
    let mut names: Vec<String> = kind.names.iter().cloned().collect();
    if kind.wildcard && !names.is_empty() {
        names.push("*".into());
    }
    Ask::Sotw { names }
}
