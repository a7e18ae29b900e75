//! The protocol's rules, one script each, in `scripts/`. A title follows `==`.
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
//! linger 10                      for so many seconds a cluster stays after its last use; not at all without this line
//! reconnect                      a new stream begins
//! < C a@1 -b                     a response
//! ! rejected C/a@2               something that is reported, in order, since the last such line
//! ```
//!
//! A route configuration that is rejected, and none was accepted before, has a stand-in at version 503.
//!
//! Types: E endpoints, C clusters, S secrets, X extension configurations, L listeners, R route configurations, P scopes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::xds::message::{Ask, Protocol, Request, Response};
use crate::xds::session::{Event, Session, Settings};
use crate::xds::{Resource, Snapshot, TypeUrl, Update, Version};

const LETTERS: [&str; TypeUrl::COUNT] = ["E", "C", "S", "X", "L", "R", "P", "M", "G"];

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
        let settings = Settings {
            cluster_linger: Duration::ZERO,
            default_secret: Some("*"),
            default_secret_names: 2,
            wildcard_secret_names: 3,
            declares: |snapshot, name| snapshot.get(TypeUrl::ScopedRouteConfiguration, name).is_some(),
            stand_in,
            ..Settings::default()
        };
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
            "linger" => {
                self.settings.cluster_linger = Duration::from_secs(words[1].parse().unwrap());
                self.act("reconnect")
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

fn stand_in(type_url: TypeUrl, name: &str) -> Option<Resource> {
    (type_url == TypeUrl::RouteConfiguration).then(|| Resource::from_bytes(type_url, name, Version(503), b""))
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

fn run(protocol: Protocol, scripts: &str) {
    for script in scripts.split("\n== ").skip(1) {
        let (title, script) = script.split_once('\n').unwrap();
        let (expected, actual) = play(protocol, script);
        assert_eq!(actual, expected, "\n--- {title}: should be\n{expected}--- is\n{actual}");
    }
}

#[test]
fn delta() {
    run(Protocol::Delta, include_str!("scripts/delta.txt"));
}

#[test]
fn order() {
    run(Protocol::Delta, include_str!("scripts/order.txt"));
}

#[test]
fn nack() {
    run(Protocol::Delta, include_str!("scripts/nack.txt"));
    run(Protocol::Delta, include_str!("scripts/doubt.txt"));
}

#[test]
fn secrets() {
    run(Protocol::Delta, include_str!("scripts/secrets.txt"));
}

#[test]
fn sotw() {
    run(Protocol::Sotw, include_str!("scripts/sotw.txt"));
}

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
    assert!(fresh.changes_since(0).is_none());
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
