//! Random histories against the model of Envoy. `PROPTEST_CASES` makes for more of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::client::{Client, FORMS, askable, is_refused, requires, resource, stand_in, universe};
use crate::xds::message::{Ask, Protocol, Request, Response};
use crate::xds::session::{Session, Settings};
use crate::xds::snapshot::Found;
use crate::xds::{Snapshot, TypeUrl, Update};

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// Resources change at once: type, name and form, or none.
    Change(Vec<(TypeUrl, usize, Option<u64>)>),
    Subscribe(TypeUrl, usize),
    Unsubscribe(TypeUrl, usize),
    Wildcard(TypeUrl, bool),
    /// The server reads a request.
    Request,
    /// The client reads a response.
    Response(u32),
    Wait(u64),
    Reconnect,
}

fn type_url() -> impl Strategy<Value = TypeUrl> {
    prop::sample::select(TypeUrl::ALL.to_vec())
}

fn step(clock: bool, wildcards: bool) -> impl Strategy<Value = Step> {
    let form = prop::option::weighted(0.7, 0..FORMS);
    let change = prop::collection::vec((type_url(), 0..8usize, form), 1..6);
    let named = [
        TypeUrl::Secret,
        TypeUrl::TypedExtensionConfig,
        TypeUrl::RouteConfiguration,
        TypeUrl::ScopedRouteConfiguration,
    ];
    let named = prop::sample::select(named[..if wildcards { 4 } else { 3 }].to_vec());
    let all =
        prop::sample::select(vec![TypeUrl::Listener, TypeUrl::ScopedRouteConfiguration, TypeUrl::LimitSet]);
    prop_oneof![
        4 => change.prop_map(Step::Change),
        3 => (named.clone(), 0..8usize).prop_map(|(t, n)| Step::Subscribe(t, n)),
        1 => (named, 0..8usize).prop_map(|(t, n)| Step::Unsubscribe(t, n)),
        1 => (all, prop::bool::weighted(if wildcards { 0.7 } else { 1.0 })).prop_map(|(t, on)| Step::Wildcard(t, on)),
        6 => Just(Step::Request),
        6 => any::<u32>().prop_map(Step::Response),
        u32::from(clock) => (1..12u64).prop_map(Step::Wait),
        1 => prop::bool::weighted(0.3).prop_map(|yes| if yes { Step::Reconnect } else { Step::Request }),
    ]
}

/// A server's session and a client, with a network between.
struct World {
    protocol: Protocol,
    now: Instant,
    snapshot: Arc<Snapshot>,
    session: Session,
    client: Client,
    unanswered: [usize; TypeUrl::COUNT],
    /// What was sent last of each name; forgotten where the client may be sent the same again.
    sent: BTreeMap<(TypeUrl, String), Option<u64>>,
    /// When the client had a cluster and a route to it last, on this stream.
    used: BTreeMap<&'static str, Instant>,
}

/// How many names may share a secret.
const SHARED: usize = 2;
/// How long clusters stay after their last use.
const LINGER: Duration = Duration::from_secs(4);
/// The name to which that does not apply.
const DECLARED: &str = "b.x";

fn settings() -> Settings {
    Settings {
        cluster_wait: Duration::from_secs(10),
        cluster_linger: LINGER,
        default_secret: Some("*"),
        default_secret_names: SHARED,
        wildcard_secret_names: SHARED,
        declares: |_, name| name == DECLARED,
        stand_in,
        ..Settings::default()
    }
}

impl World {
    fn new(protocol: Protocol) -> Self {
        let now = Instant::now();
        let snapshot = Arc::new(Snapshot::empty());
        World {
            protocol,
            now,
            session: Session::new(protocol, settings(), snapshot.clone(), now),
            snapshot,
            client: Client::new(protocol),
            unanswered: Default::default(),
            sent: BTreeMap::new(),
            used: BTreeMap::new(),
        }
    }

    fn run(&mut self, step: Step) {
        self.note_used();
        match step {
            Step::Change(changes) => self.change(changes),
            Step::Subscribe(t, n) => {
                let names = askable(t);
                self.client.subscribe(t, names[n % names.len()]);
            }
            Step::Unsubscribe(t, n) => {
                let names = askable(t);
                self.client.unsubscribe(t, names[n % names.len()]);
            }
            Step::Wildcard(t, true) => self.client.ask_wildcard(t),
            Step::Wildcard(t, false) => self.client.drop_wildcard(t),
            Step::Request => self.read_request(),
            Step::Response(luck) => self.client.receive(luck),
            Step::Wait(seconds) => self.wait(Duration::from_secs(seconds)),
            Step::Reconnect => self.reconnect(),
        }
    }

    fn change(&mut self, changes: Vec<(TypeUrl, usize, Option<u64>)>) {
        let mut update = Update::default();
        for (type_url, name, form) in changes {
            let names = universe(type_url);
            let name = names[name % names.len()];
            match form {
                Some(form) => update.set.push(resource(type_url, name, form)),
                None => update.remove.push((type_url, name.into())),
            }
            // Clusters come and go with their endpoints.
            if type_url == TypeUrl::Cluster {
                let endpoints = TypeUrl::ClusterLoadAssignment;
                match form {
                    Some(form) => update.set.push(resource(endpoints, name, form % 2)),
                    None => update.remove.push((endpoints, name.into())),
                }
            }
        }
        self.snapshot = Arc::new(self.snapshot.apply(update));
        let responses = self.session.on_snapshot(self.snapshot.clone(), self.now);
        self.send(responses);
    }

    fn read_request(&mut self) {
        let Some(request) = self.client.outbox.pop_front() else { return };
        self.note_request(&request);
        let responses = self.session.on_request(request, self.now);
        self.send(responses);
    }

    fn note_request(&mut self, request: &Request) {
        let type_url = request.type_url;
        if !request.nonce.is_empty() && self.unanswered[type_url as usize] > 0 && self.answers(request) {
            self.unanswered[type_url as usize] -= 1;
        }
        let asks = match &request.ask {
            Ask::Delta { subscribe, unsubscribe, .. } => {
                request.nonce.is_empty() || !subscribe.is_empty() || !unsubscribe.is_empty()
            }
            Ask::Sotw { .. } => true,
        };
        if asks || request.error.is_some() {
            self.sent.retain(|(t, _), _| *t != type_url);
        }
    }

    fn answers(&self, request: &Request) -> bool {
        let flight = &self.session.channel(request.type_url).flight;
        flight.as_ref().is_some_and(|flight| request.nonce == flight.nonce.to_string())
    }

    fn note_used(&mut self) {
        let clusters = &self.client.kinds[TypeUrl::Cluster as usize].view;
        let routes = &self.client.kinds[TypeUrl::RouteConfiguration as usize].view;
        for cluster in routes.values().flat_map(|form| requires(*form)) {
            if clusters.contains_key(cluster) {
                self.used.insert(cluster, self.now);
            }
        }
    }

    fn send(&mut self, responses: Vec<Response>) {
        for response in responses {
            let t = response.type_url;
            for name in response.removed.iter().filter(|_| t == TypeUrl::Cluster) {
                let used = self.used.get(&**name);
                assert!(used.is_none_or(|at| *at + LINGER <= self.now), "{name} went too early");
            }
            self.unanswered[t as usize] += 1;
            assert_eq!(self.unanswered[t as usize], 1, "two responses of {t} in flight");
            if self.protocol == Protocol::Delta {
                let set = response.resources.iter().map(|(name, r)| (name, Some(r.version().0)));
                let removed = response.removed.iter().map(|name| (name, None));
                for (name, version) in set.chain(removed) {
                    let before = self.sent.insert((t, name.to_string()), version);
                    assert_ne!(before, Some(version), "{t} {name} was sent twice");
                }
            }
            self.client.inbox.push_back(response);
        }
        // The set of waiting names is that of deadlines, and nothing waits past its time.
        assert!(self.session.order.next_deadline().is_none_or(|at| at > self.now));
    }

    fn wait(&mut self, time: Duration) {
        self.client.strict = false;
        self.now += time;
        if self.session.next_deadline().is_some_and(|at| at <= self.now) {
            let responses = self.session.on_deadline(self.now);
            let routes = self.session.channel(TypeUrl::RouteConfiguration);
            self.client.unheard |= self.session.users_awaited.is_none() && !routes.subscription.asked;
            self.send(responses);
        }
    }

    fn reconnect(&mut self) {
        self.session = Session::new(self.protocol, settings(), self.snapshot.clone(), self.now);
        self.unanswered = Default::default();
        self.sent.clear();
        self.used.clear();
        self.client.reconnect();
    }

    /// Whether time alone changes something, but for rejected listeners, which are tried again for ever.
    fn waits(&self) -> bool {
        let Session { order, linger, users_awaited, .. } = &self.session;
        order.next_deadline().or(linger.next_deadline()).or(*users_awaited).is_some()
    }

    /// Lets everything that is on the way arrive, and waits for what waits.
    fn come_to_rest(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "never comes to rest");
            if !self.client.outbox.is_empty() {
                self.read_request();
            } else if !self.client.inbox.is_empty() {
                self.client.receive(round);
            } else if self.waits() {
                self.wait(Duration::from_secs(11));
            } else {
                break;
            }
        }
        assert_eq!(self.unanswered, [0; TypeUrl::COUNT], "the client owes an answer");
        let progress = self.session.progress();
        assert_eq!((progress.sent, progress.acked), (progress.seen, progress.seen));
        assert_eq!(progress.seen, self.snapshot.sequence());
    }

    fn check_at_rest(&self) {
        for type_url in TypeUrl::ALL {
            let kind = &self.client.kinds[type_url as usize];
            if !kind.asked {
                continue;
            }
            let mut names: Vec<&str> = kind.names.iter().map(String::as_str).collect();
            names.extend(kind.view.keys().map(String::as_str));
            if kind.wildcard {
                names.extend(universe(type_url));
            }
            for name in names {
                self.check_name(type_url, name, kind.view.get(name).copied());
            }
            self.check_held(type_url);
        }
        self.check_shared();
    }

    /// As many names share a secret as may, at most.
    fn check_shared(&self) {
        let names = self.client.kinds[TypeUrl::Secret as usize].view.keys();
        let found = names
            .filter(|name| *name != DECLARED)
            .filter_map(|name| self.snapshot.find(TypeUrl::Secret, name, Some("*")).map(|(_, found)| found));
        let (by_default, others): (Vec<_>, Vec<_>) = found.partition(|found| *found == Found::Default);
        let by_wildcard = others.iter().filter(|found| **found != Found::Exact).count();
        // Of the other variant's clients none can be told that there is a secret no more.
        let bounded = by_default.len() <= SHARED && by_wildcard <= SHARED;
        assert!(bounded || self.protocol == Protocol::Sotw, "{by_default:?} {others:?}");
    }

    fn check_name(&self, type_url: TypeUrl, name: &str, has: Option<u64>) {
        let target = self.snapshot.find(type_url, name, Some("*")).map(|(r, _)| r.version().0);
        let is_out = self.session.channel(type_url).subscription.is_out(name);
        assert!(!is_out || name != DECLARED);
        let fine = match target {
            Some(_) if is_out => has.is_none() || self.protocol == Protocol::Sotw,
            // Requests to a host without routes would wait.
            Some(target) if is_refused(target) && type_url == TypeUrl::RouteConfiguration => {
                has.is_some_and(|has| !is_refused(has))
            }
            Some(target) if is_refused(target) => has.is_none_or(|has| !is_refused(has)),
            Some(target) => has == Some(target),
            None if has.is_none() => true,
            // It cannot be told.
            None if self.protocol == Protocol::Sotw && !type_url.has_wildcard() => true,
            None if type_url == TypeUrl::Cluster => self.is_in_use(name),
            None if type_url == TypeUrl::ClusterLoadAssignment => self.is_in_use(name),
            None if type_url == TypeUrl::RouteConfiguration => self.is_named_by_a_scope(name),
            None => false,
        };
        assert!(fine, "{type_url} {name}: has {has:?}, should have {target:?}");
    }

    fn is_in_use(&self, cluster: &str) -> bool {
        let routes = &self.client.kinds[TypeUrl::RouteConfiguration as usize].view;
        // Routes of which the client holds an unknown form, which may use whatever it held then.
        let unknown = !self.session.channel(TypeUrl::RouteConfiguration).foreign.is_empty()
            && self.session.channel(TypeUrl::Cluster).earlier.contains(cluster);
        // A form that the client may have taken before it went, which cannot be told.
        let in_doubt =
            self.protocol == Protocol::Sotw && self.session.order.is_used(TypeUrl::Cluster, cluster);
        routes.values().any(|v| requires(*v).contains(&cluster)) || unknown || in_doubt
    }

    fn is_named_by_a_scope(&self, routes: &str) -> bool {
        let scopes = &self.client.kinds[TypeUrl::ScopedRouteConfiguration as usize].view;
        let unknown = !self.session.channel(TypeUrl::ScopedRouteConfiguration).foreign.is_empty();
        scopes.values().any(|v| requires(*v).contains(&routes)) || unknown
    }

    /// What the server believes is true.
    fn check_held(&self, type_url: TypeUrl) {
        let channel = self.session.channel(type_url);
        let view = &self.client.kinds[type_url as usize].view;
        for (name, held) in channel.held.iter().filter(|(name, _)| !channel.doubtful.contains_key(*name)) {
            assert_eq!(view.get(&**name), Some(&held.version().0), "{type_url} {name} is not held");
        }
        // Of single names a client of the other variant cannot say that it holds them from an earlier stream.
        let says = self.protocol == Protocol::Delta || type_url.has_wildcard();
        for name in view.keys().filter(|_| says) {
            let name = name.as_str();
            let known = channel.held.contains_key(name)
                || channel.foreign.contains(name)
                || channel.doubtful.contains_key(name);
            assert!(known, "{type_url} {name} is held");
        }
        for name in channel.doubtful.keys() {
            let known = channel.deferred.contains(name) || channel.rejected.contains_key(name) || !says;
            assert!(known, "{type_url} {name} is in doubt");
        }
        assert!(channel.waiting.is_empty() && channel.suspects.is_empty());
    }
}

fn check(protocol: Protocol, steps: Vec<Step>) {
    let mut world = World::new(protocol);
    for step in steps {
        world.run(step);
    }
    world.come_to_rest();
    world.check_at_rest();
    // And again, now that nothing is new: the same snapshot after a reconnect.
    world.reconnect();
    world.come_to_rest();
    world.check_at_rest();
}

fn history(clock: bool, wildcards: bool) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(clock, wildcards), 1..120)
}

/// The environment wins over the number of cases here.
fn config() -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => default,
        None => ProptestConfig { cases: 1_000, ..default },
    }
}

proptest! {
    #![proptest_config(config())]

    /// While time stands still nothing is sent before its clusters, whatever happens.
    #[test]
    fn delta_converges(steps in history(false, true)) {
        check(Protocol::Delta, steps);
    }

    #[test]
    fn delta_converges_while_time_passes(steps in history(true, true)) {
        check(Protocol::Delta, steps);
    }

    #[test]
    fn sotw_converges(steps in history(false, false)) {
        check(Protocol::Sotw, steps);
    }

    #[test]
    fn sotw_converges_while_time_passes(steps in history(true, false)) {
        check(Protocol::Sotw, steps);
    }
}
