//! The protocol's rules, one script each.
//!
//! A line is something that happens; the lines after it that begin with `<` are all the responses that it leads to.
//!
//! ```text
//! snap +C/a@1 -C/b +R/r@1[a,b]   resources are set (with a version, and the clusters they require) and removed
//! ask R +r -s =t@1               the client subscribes, unsubscribes, names what it holds; sotw: ask R r s
//! ack C [+r -s]                  it accepts the latest response of a type, and may ask in the same breath
//! nack C words                   it rejects it
//! old C                          it answers a response that is not the latest
//! wait 10                        seconds pass
//! reconnect                      a new stream begins
//! < C a@1 -b                     a response
//! ! rejected C/a@2               something that is reported, in order, since the last such line
//! ```
//!
//! Types: E endpoints, C clusters, S secrets, X extension configurations, L listeners, R route configurations, P scopes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::xds::message::{Ask, Protocol, Request, Response};
use crate::xds::session::{Event, Session, Settings};
use crate::xds::{Resource, Snapshot, TypeUrl, Update, Version};

const LETTERS: [&str; TypeUrl::COUNT] = ["E", "C", "S", "X", "L", "R", "P"];

fn type_of(letter: &str) -> TypeUrl {
    TypeUrl::ALL[LETTERS.iter().position(|l| *l == letter).unwrap_or_else(|| panic!("no type {letter}"))]
}

struct Play {
    protocol: Protocol,
    settings: Settings,
    now: Instant,
    snapshot: Arc<Snapshot>,
    session: Session,
    last: HashMap<TypeUrl, Response>,
}

impl Play {
    fn new(protocol: Protocol) -> Self {
        let settings = Settings { default_secret_names: 2, ..Settings::default() };
        let (now, snapshot) = (Instant::now(), Arc::new(Snapshot::empty()));
        let session = Session::new(protocol, settings.clone(), snapshot.clone(), now);
        Play { protocol, settings, now, snapshot, session, last: HashMap::new() }
    }

    fn act(&mut self, line: &str) -> Vec<Response> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "snap" => {
                self.snapshot = Arc::new(self.snapshot.apply(update(&words[1..])));
                self.session.on_snapshot(self.snapshot.clone(), self.now)
            }
            "wait" => {
                self.now += Duration::from_secs(words[1].parse().unwrap());
                self.session.on_deadline(self.now)
            }
            "reconnect" => {
                let (settings, snapshot) = (self.settings.clone(), self.snapshot.clone());
                self.session = Session::new(self.protocol, settings, snapshot, self.now);
                self.last.clear();
                Vec::new()
            }
            verb => self.request(verb, type_of(words[1]), &words[2..]),
        }
    }

    fn request(&mut self, verb: &str, type_url: TypeUrl, words: &[&str]) -> Vec<Response> {
        let last = self.last.get(&type_url);
        let nonce = match verb {
            "ask" if self.protocol == Protocol::Delta => String::new(),
            "ask" => last.map_or_else(String::new, |last| last.nonce.clone()),
            "old" => "999".to_owned(),
            _ => last.expect("something to answer").nonce.clone(),
        };
        let error = (verb == "nack").then(|| words.join(" "));
        let words = if error.is_some() { &[] } else { words };
        let pick = |sign: char| words.iter().filter_map(move |w| w.strip_prefix(sign)).map(str::to_owned);
        let ask = match self.protocol {
            Protocol::Delta => Ask::Delta {
                subscribe: pick('+').collect(),
                unsubscribe: pick('-').collect(),
                initial_versions: pick('=').map(|w| claim(&w)).collect(),
            },
            Protocol::Sotw => Ask::Sotw { names: words.iter().map(|w| w.to_string()).collect() },
        };
        self.session.on_request(Request { type_url, nonce, error, ask }, self.now)
    }
}

fn claim(word: &str) -> (String, String) {
    let (name, version) = word.split_once('@').unwrap();
    (name.to_owned(), Version(version.parse().unwrap()).to_string())
}

fn update(words: &[&str]) -> Update {
    let mut update = Update::default();
    for word in words {
        let (type_url, rest) = word[1..].split_once('/').unwrap();
        let type_url = type_of(type_url);
        if word.starts_with('-') {
            update.remove.push((type_url, rest.into()));
            continue;
        }
        let (name, rest) = rest.split_once('@').unwrap();
        let (version, requires) = rest.trim_end_matches(']').split_once('[').unwrap_or((rest, ""));
        let requires = requires.split(',').filter(|name| !name.is_empty()).map(Arc::from);
        let version = Version(version.parse().unwrap());
        update.set.push(Arc::new(Resource::from_bytes(type_url, name, version, b"").requiring(requires)));
    }
    update
}

fn describe(response: &Response) -> String {
    let mut text = format!("< {}", LETTERS[response.type_url as usize]);
    for (name, resource) in &response.resources {
        text += &format!(" {name}@{}", resource.version().0);
    }
    for name in &response.removed {
        text += &format!(" -{name}");
    }
    text
}

fn describe_event(event: Event) -> Option<String> {
    match event {
        Event::Rejected { type_url, name, version, .. } => {
            Some(format!("! rejected {}/{name}@{}", LETTERS[type_url as usize], version.0))
        }
        Event::Settled { type_url, name } => Some(format!("! settled {}/{name}", LETTERS[type_url as usize])),
        Event::Acked { .. } | Event::Nacked { .. } => None,
    }
}

/// Plays a script; returns it as it went, which is the script itself if all is well.
fn play(protocol: Protocol, script: &str) -> (String, String) {
    let mut play = Play::new(protocol);
    let (mut expected, mut actual) = (String::new(), String::new());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        expected += &format!("{line}\n");
        if line.starts_with('<') {
            continue;
        }
        if line.starts_with('!') {
            if !expected.ends_with(&format!("!\n{line}\n")) {
                for event in play.session.take_events().into_iter().filter_map(describe_event) {
                    actual += &format!("{event}\n");
                }
            }
            continue;
        }
        actual += &format!("{line}\n");
        for response in play.act(line) {
            actual += &format!("{}\n", describe(&response));
            play.last.insert(response.type_url, response);
        }
    }
    (expected, actual)
}

fn run(protocol: Protocol, scripts: &[(&str, &str)]) {
    for (name, script) in scripts {
        let (expected, actual) = play(protocol, script);
        assert_eq!(actual, expected, "\n--- {name}: should be\n{expected}--- is\n{actual}");
    }
}

#[test]
fn delta() {
    run(Protocol::Delta, DELTA);
    run(Protocol::Delta, ORDER);
    run(Protocol::Delta, NACK);
    run(Protocol::Delta, DOUBT);
    run(Protocol::Delta, SECRETS);
}

#[test]
fn sotw() {
    run(Protocol::Sotw, SOTW);
}

const DELTA: &[(&str, &str)] = &[
    (
        "a first request without names means all, where there is such a thing",
        "snap +C/a@1 +C/b@1 +R/r@1
         ask C
         < C a@1 b@1
         ack C
         ask R
         snap +C/c@1 +R/r@2
         < C c@1",
    ),
    (
        "the first answer to a wildcard comes even if there is nothing",
        "ask C
         < C
         ack C
         snap +C/a@1
         < C a@1",
    ),
    (
        "a client that comes back is told only what differs",
        "snap +C/a@1 +C/b@2
         ask C =a@1 =b@1 =c@1
         < C b@2
         ack C",
    ),
    (
        "a client that comes back and is up to date is told nothing",
        "snap +C/a@1 +E/a@1
         ask C =a@1
         ask E +a =a@1
         snap +E/a@2
         < E a@2",
    ),
    (
        "what a client holds counts in its first request only; a later subscription is answered",
        "snap +R/r@1 +R/s@1
         ask R +r =r@1
         ask R +s =s@1
         < R s@1
         ack R
         ask R +s
         < R s@1",
    ),
    (
        "a client that comes back is told what is gone",
        "snap +L/a@1
         ask L =a@1 =b@1
         < L -b",
    ),
    (
        "a name that does not exist is answered at once, and when it comes",
        "ask R +r
         < R -r
         ack R
         snap +R/r@1
         < R r@1",
    ),
    (
        "endpoints are answered while clusters are in flight",
        "snap +C/a@1 +E/a@1
         ask C
         < C a@1
         ask E +a
         < E a@1
         ack E
         ack C",
    ),
    (
        "changes merge while a response is in flight",
        "snap +L/a@1
         ask L
         < L a@1
         snap +L/a@2 +L/b@1
         snap +L/a@3 -L/b
         snap +L/c@1
         ack L
         < L a@3 c@1
         ack L",
    ),
    (
        "a change that is taken back in flight is none",
        "snap +L/a@1
         ask L
         < L a@1
         snap +L/a@2
         snap +L/a@1
         ack L",
    ),
    (
        "endpoints go before all else",
        "ask L
         < L
         ack L
         ask C
         < C
         ack C
         ask P
         < P
         ack P
         ask E +a
         < E -a
         ack E
         ask R +r
         < R -r
         ack R
         ask S +s
         < S -s
         ack S
         ask X +x
         < X -x
         ack X
         snap +P/p@1 +R/r@1 +L/l@1 +X/x@1 +S/s@1 +C/a@1 +E/a@1
         < E a@1
         < C a@1
         < S s@1
         < X x@1
         < L l@1
         < R r@1
         < P p@1",
    ),
    (
        "an answer to another response than the latest is none",
        "snap +L/a@1
         ask L
         < L a@1
         old L
         snap +L/a@2
         ack L
         < L a@2",
    ),
    (
        "what is not wanted any more is not sent any more",
        "snap +R/r@1 +R/s@1
         ask R +r +s
         < R r@1 s@1
         ack R -r
         snap +R/r@2 +R/s@2
         < R s@2",
    ),
    (
        "a name that is given up under a wildcard is sent again, since the client dropped it",
        "snap +P/p@1
         ask P +* +p
         < P p@1
         ack P
         ask P -p
         < P p@1
         ack P
         snap +P/p@2
         < P p@2",
    ),
    (
        "a wildcard that is given up leaves the names",
        "snap +P/p@1 +P/q@1
         ask P +* +p
         < P p@1 q@1
         ack P -*
         snap +P/p@2 +P/q@2
         < P p@2",
    ),
    (
        "a wildcard that is asked again is answered again",
        "snap +P/p@1
         ask P
         < P p@1
         ack P
         ask P +*
         < P p@1",
    ),
    (
        "subscribed again while in flight: answered once more, for the client may have dropped the first",
        "snap +R/r@1
         ask R +r
         < R r@1
         ask R -r
         ask R +r
         ack R
         < R r@1
         ack R",
    ),
    (
        "what changes between giving up and taking again is seen",
        "snap +L/a@1
         ask L
         < L a@1
         ask L -*
         snap -L/a
         ask L +*
         ack L
         < L -a",
    ),
    (
        "a star is no wildcard of types without one",
        "snap +R/r@1
         ask R +*
         < R -*",
    ),
];

const ORDER: &[(&str, &str)] = &[
    (
        "a route waits until its clusters are acknowledged",
        "snap +C/a@1 +R/r@1[a]
         ask C
         < C a@1
         ask R +r
         ack C
         < R r@1
         ack R
         snap +C/b@1 +C/c@1 +R/r@2[b,c]
         < C b@1 c@1
         ack C
         < R r@2",
    ),
    (
        "a route waits no longer than it must",
        "snap +C/a@1 +R/r@1[a,z]
         ask C
         < C a@1
         ack C
         ask R +r
         wait 9
         wait 1
         < R r@1",
    ),
    (
        "the time counts from the first change that waits",
        "ask C
         < C
         ack C
         ask R +r
         < R -r
         ack R
         snap +R/r@1[a]
         wait 5
         snap +R/r@2[a]
         wait 5
         < R r@2",
    ),
    (
        "a route that needs no missing cluster any more goes",
        "ask C
         < C
         ack C
         snap +R/r@1[a]
         ask R +r
         snap +R/r@2
         < R r@2",
    ),
    (
        "a client that gets its clusters elsewhere has no reason to wait",
        "snap +R/r@1[a]
         ask R +r
         < R r@1",
    ),
    (
        "a cluster goes after the route that used it, and its endpoints after it",
        "snap +C/a@1 +E/a@1 +R/r@1[a]
         ask C
         < C a@1
         ask E +a
         < E a@1
         ack E
         ack C
         ask R +r
         < R r@1
         ack R
         snap -C/a -E/a +C/b@1 +R/r@2[b]
         < C b@1
         ack C
         < R r@2
         ack R
         < C -a
         ack C
         < E -a
         ack E",
    ),
    (
        "a cluster that comes back before it went is not sent again",
        "snap +C/a@1 +R/r@1[a]
         ask C
         < C a@1
         ack C
         ask R +r
         < R r@1
         ack R
         snap -C/a
         snap +C/a@1
         snap +R/r@2
         < R r@2
         ack R",
    ),
    (
        "a route that is dropped lets its cluster go",
        "snap +C/a@1 +R/r@1[a]
         ask C
         < C a@1
         ack C
         ask R +r
         < R r@1
         ack R
         snap -C/a -R/r
         < R -r
         ack R
         < C -a",
    ),
    (
        "a route that the client gives up lets its cluster go",
        "snap +C/a@1 +R/r@1[a]
         ask C
         < C a@1
         ack C
         ask R +r
         < R r@1
         ack R
         snap -C/a
         ask R -r
         < C -a",
    ),
    (
        "a cluster whose removal is in flight is not there",
        "snap +C/a@1
         ask C
         < C a@1
         ack C
         ask R +r
         < R -r
         ack R
         snap -C/a
         < C -a
         snap +C/a@1 +R/r@1[a]
         ack C
         < C a@1
         ack C
         < R r@1",
    ),
    (
        "after a reconnect clusters stay until the routes of the earlier stream are known",
        "snap +C/a@1 +R/r@2[a]
         ask C =a@1 =b@1
         ask R +r =r@1
         < R r@2
         ack R
         < C -b",
    ),
    (
        "and the endpoints of these clusters",
        "snap +R/r@2
         ask C =b@1
         ask E +b =b@1
         ask R +r =r@1
         < R r@2
         ack R
         < C -b
         ack C
         < E -b",
    ),
    (
        "even those that we know",
        "snap +C/a@1 +R/r@1[a]
         ask C =a@1
         snap -C/a
         ask R +r =r@1
         snap -R/r
         < R -r
         ack R
         < C -a",
    ),
    (
        "unless the client never asks for routes",
        "snap +C/a@1
         ask C =a@1 =b@1
         wait 9
         wait 1
         < C -b",
    ),
    (
        "a route that is subscribed again does not wait, as it is held",
        "snap +C/a@1 +R/r@1[a]
         ask C
         < C a@1
         ack C
         ask R +r
         < R r@1
         ack R
         snap +C/a@2
         < C a@2
         ask R +r
         < R r@1",
    ),
    (
        "listeners wait for clusters too",
        "ask C
         < C
         ack C
         snap +C/a@1 +L/l@1[a]
         < C a@1
         ask L
         ack C
         < L l@1",
    ),
];

const NACK: &[(&str, &str)] = &[
    (
        "a resource that was never accepted does not exist",
        "snap +L/a@1
         ask L
         < L a@1
         nack L bad
         < L -a
         ! rejected L/a@1
         ack L
         snap +L/b@1
         < L b@1
         ack L
         snap +L/a@2
         < L a@2
         ! settled L/a
         ack L",
    ),
    (
        "one that was accepted before goes back to that",
        "snap +L/a@1
         ask L
         < L a@1
         ack L
         snap +L/a@2
         < L a@2
         nack L bad
         < L a@1
         ack L
         ! rejected L/a@2
         snap +L/a@1
         ! settled L/a
         snap +L/a@3
         < L a@3",
    ),
    (
        "which of several is bad is found by halving",
        "snap +L/a@1 +L/b@1 +L/c@1 +L/d@1
         ask L
         < L a@1 b@1 c@1 d@1
         nack L bad
         < L a@1 b@1
         ack L
         < L c@1 d@1
         nack L bad
         < L c@1
         nack L bad
         < L -c
         ! rejected L/c@1
         ack L
         < L d@1
         ack L",
    ),
    (
        "unless the client says which",
        "snap +C/aa@1 +C/bb@1 +C/cc@1 +C/dd@1
         ask C
         < C aa@1 bb@1 cc@1 dd@1
         nack C error adding cluster cc
         < C aa@1 bb@1 dd@1
         ack C
         < C cc@1
         nack C error adding cluster cc
         < C -cc
         ! rejected C/cc@1
         ack C",
    ),
    (
        "removals are taken out first, since they may make room",
        "snap +P/a@1
         ask P
         < P a@1
         ack P
         snap -P/a +P/b@1 +P/c@1
         < P b@1 c@1 -a
         nack P bad
         < P -a
         ack P
         < P b@1 c@1
         ack P",
    ),
    (
        "a removal cannot be refused",
        "snap +L/a@1
         ask L
         < L a@1
         ack L
         snap -L/a
         < L -a
         nack L no",
    ),
    (
        "everything else keeps flowing",
        "snap +L/a@1 +L/b@1
         ask L
         < L a@1 b@1
         nack L bad
         < L a@1
         snap +L/c@1 +L/d@1
         ack L
         < L c@1 d@1
         ack L
         < L b@1
         nack L bad
         < L -b
         ! rejected L/b@1
         ack L",
    ),
    (
        "a bad resource that changes while it is looked for is sent in its new form",
        "snap +L/a@1 +L/b@1
         ask L
         < L a@1 b@1
         nack L bad
         < L a@1
         snap +L/b@2
         ack L
         < L b@2
         ack L",
    ),
    (
        "one that is gone is not looked for",
        "snap +R/a@1 +R/b@1
         ask R +a +b
         < R a@1 b@1
         nack R bad
         < R a@1
         ask R -b
         nack R bad
         < R -a
         ! rejected R/a@1
         ack R",
    ),
    (
        "a form that was accepted and now is not: there is nothing else to offer",
        "snap +L/a@1
         ask L
         < L a@1
         ack L
         snap +L/a@2
         < L a@2
         nack L bad
         < L a@1
         nack L bad
         ! rejected L/a@2
         snap +L/a@3
         < L a@3",
    ),
    (
        "what a client holds from an earlier stream it keeps",
        "snap +L/a@2
         ask L =a@1
         < L a@2
         nack L bad
         ! rejected L/a@2
         snap -L/a
         < L -a
         ! settled L/a",
    ),
    (
        "a rejected resource that is subscribed again is answered with what was accepted",
        "snap +R/r@1
         ask R +r
         < R r@1
         nack R bad
         < R -r
         ack R
         ask R +r
         < R -r
         ack R",
    ),
    (
        "a route that is rejected keeps the cluster of the form before",
        "snap +C/a@1 +R/r@1[a]
         ask C
         < C a@1
         ack C
         ask R +r
         < R r@1
         ack R
         snap -C/a +C/b@1 +R/r@2[b]
         < C b@1
         ack C
         < R r@2
         nack R bad
         < R r@1
         ack R
         snap +R/r@3[b]
         < R r@3
         ack R
         < C -a",
    ),
];

/// What only a rejection that was half taken can lead to.
const DOUBT: &[(&str, &str)] = &[
    (
        "a cluster that goes back to the form before is not taken for one that goes",
        "snap +C/a@1 +R/r@1[a]
         ask C
         < C a@1
         ack C
         ask R +r
         < R r@1
         ack R
         snap +C/a@2
         < C a@2
         snap -C/a
         nack C bad
         snap -R/r
         < R -r
         ack R
         < C -a",
    ),
    (
        "endpoints are answered while their cluster warms, though both are gone",
        "snap +C/a@1 +E/a@1
         ask C
         < C a@1
         ack C
         snap -C/a -E/a
         < C -a
         ask E +a
         < E -a",
    ),
    (
        "names that are looked for are not looked at twice",
        "snap +P/p@1 +P/q@1
         ask P +p +q
         < P p@1 q@1
         nack P bad
         < P p@1
         snap -P/q
         ack P
         < P -q
         ack P",
    ),
    (
        "a part that waits for a cluster keeps one place in the queue",
        "ask C
         < C
         ack C
         snap +R/r@1 +R/s@1
         ask R +r +s
         < R r@1 s@1
         snap +R/r@2[a]
         nack R bad
         < R s@1
         ack R
         wait 9
         wait 1
         < R r@2
         ack R",
    ),
];

const SECRETS: &[(&str, &str)] = &[
    (
        "a server name has its own certificate, its wildcard's, or the default",
        "snap +S/a.x@1 +S/*.x@2 +S/*@3
         ask S +a.x +b.x +d.y
         < S a.x@1 b.x@2 d.y@3
         ack S
         snap +S/b.x@4 -S/a.x
         < S a.x@2 b.x@4
         ack S
         snap -S/*.x
         < S a.x@3",
    ),
    (
        "a change of the wildcard is sent to the names that it serves",
        "snap +S/*.x@1 +S/a.x@2
         ask S +a.x +b.x +C.X +d.y
         < S C.X@1 a.x@2 b.x@1 -d.y
         ack S
         snap +S/*.x@3
         < S C.X@3 b.x@3
         ack S
         snap +S/c.x@4
         < S C.X@4
         ack S
         snap +S/*@5
         < S d.y@5",
    ),
    (
        "few names are served by the default, since clients make them up",
        "snap +S/*@1 +S/*.x@2
         ask S +a.y +b.y
         < S a.y@1 b.y@1
         ack S
         ask S +c.y
         < S -c.y
         ack S
         ask S +a.x
         < S a.x@2
         ack S
         ask S -a.y
         ask S +c.y
         < S c.y@1
         ack S
         snap +S/*@3
         < S b.y@3 c.y@3",
    ),
    (
        "a name that has lost its certificate and finds no room for the default has none",
        "snap +S/*@1 +S/a.x@2
         ask S +b.x +c.x +a.x
         < S a.x@2 b.x@1 c.x@1
         ack S
         snap -S/a.x
         < S -a.x",
    ),
];

const SOTW: &[(&str, &str)] = &[
    (
        "sets are sent whole, names as they change",
        "snap +C/a@1 +C/b@1 +E/a@1 +E/b@1
         ask C
         < C a@1 b@1
         ack C
         ask E a b
         < E a@1 b@1
         ack E a b
         snap +C/c@1 +E/b@2
         < E b@2
         < C a@1 b@1 c@1
         ack C
         snap -C/a -E/a
         < C b@1 c@1",
    ),
    (
        "an empty set is an answer",
        "ask C
         < C
         ack C
         snap +C/a@1
         < C a@1
         ack C
         snap -C/a
         < C",
    ),
    (
        "names that come are answered, names that go are forgotten",
        "snap +R/r@1 +R/s@1
         ask R r
         < R r@1
         ack R r
         ask R r s
         < R s@1
         ack R r s
         ask R s
         snap +R/r@2 +R/s@2
         < R s@2
         ack R s
         ask R r s
         < R r@2",
    ),
    (
        "names count even in a request that was written before the latest response",
        "snap +R/r@1 +R/s@1
         ask R r s
         < R r@1 s@1
         old R s
         old R r s
         ack R r s
         < R r@1",
    ),
    (
        "an empty list means all only until names were given",
        "snap +C/a@1 +C/b@1
         ask C a
         < C a@1
         ack C a
         ask C
         snap +C/a@2",
    ),
    (
        "a set without the bad resource",
        "snap +C/a@1
         ask C
         < C a@1
         ack C
         snap +C/a@2 +C/b@1
         < C a@2 b@1
         nack C
         < C a@2
         nack C
         < C a@1
         ! rejected C/a@2
         ack C
         < C a@1 b@1
         ack C",
    ),
    (
        "a client that comes back is told all, as nobody knows what it holds",
        "snap +C/a@1
         ask C
         < C a@1
         ack C
         reconnect
         ask C
         < C a@1",
    ),
    (
        "make before break",
        "snap +C/a@1 +R/r@1[a]
         ask C
         < C a@1
         ask R r
         ack C
         < R r@1
         ack R r
         snap -C/a +C/b@1 +R/r@2[b]
         < C a@1 b@1
         ack C
         < R r@2
         ack R r
         < C b@1",
    ),
    (
        "a route that is gone cannot be taken back, so its cluster stays until the client gives the route up",
        "snap +C/a@1 +R/r@1[a]
         ask C
         < C a@1
         ack C
         ask R r
         < R r@1
         ack R r
         snap -C/a -R/r
         ask R
         < C",
    ),
];

#[test]
fn a_stream_that_is_far_behind_compares_all() {
    let mut play = Play::new(Protocol::Delta);
    play.act("snap +C/a@1 +C/b@1 +C/c@1 +R/r@1");
    for line in ["ask C", "ack C", "ask R +r", "ack R"] {
        for response in play.act(line) {
            play.last.insert(response.type_url, response);
        }
    }
    // Other words for a log that begins too late: a snapshot of another history.
    let fresh = Snapshot::empty().apply(update(&["+C/a@1", "+C/b@2", "+C/d@1", "+R/r@2"]));
    let behind =
        (0..70_000).map(|i| Arc::new(Resource::from_bytes(TypeUrl::Secret, i.to_string(), Version(1), b"")));
    let fresh = fresh.apply(Update { set: behind.collect(), remove: vec![] });
    assert!(fresh.changes_since(1).is_some() && fresh.changes_since(0).is_none());
    play.session.snapshot = Arc::new(Snapshot::empty());
    let responses = play.session.on_snapshot(Arc::new(fresh), play.now);
    let responses: Vec<String> = responses.iter().map(describe).collect();
    assert_eq!(responses, ["< C b@2 d@1 -c", "< R r@2"]);
}

#[test]
fn progress_is_the_oldest_change_that_is_missing() {
    let mut play = Play::new(Protocol::Delta);
    let mut progress = |lines: &[&str]| {
        for line in lines {
            for response in play.act(line) {
                play.last.insert(response.type_url, response);
            }
        }
        let progress = play.session.progress();
        (progress.seen, progress.sent, progress.acked)
    };
    assert_eq!(progress(&["ask C", "ack C", "ask R +r", "ack R"]), (0, 0, 0));
    assert_eq!(progress(&["snap +C/a@1"]), (1, 1, 0));
    assert_eq!(progress(&["snap +R/r@1[a]"]), (2, 1, 0));
    assert_eq!(progress(&["snap +C/a@2"]), (3, 1, 0));
    assert_eq!(progress(&["ack C"]), (3, 3, 1));
    assert_eq!(progress(&["ack C"]), (3, 3, 1));
    assert_eq!(progress(&["nack R bad"]), (3, 3, 1));
    assert_eq!(progress(&["ack R"]), (3, 3, 3));
}
