//! Every kind of Redis that there is, and what becomes of requests without one.

use std::time::Instant;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use futures::future::join_all;
use rustix::process::Signal;
use tokio::runtime;

use super::link::LATE;
use super::server::{Server, free_port};
use super::*;
use crate::model::limit::{Algorithm, Key, Limit};
use crate::ratelimit::algorithms::State;

pub(super) fn options(url: &str) -> RedisOptions {
    RedisOptions {
        address: url.parse().unwrap(),
        authority: None,
        identity: None,
        mode: RedisMode::Exact,
        deadline: Duration::from_secs(60),
        failure_mode: FailureMode::Local,
    }
}

pub(super) fn window(id: &str, requests: u32) -> Limit {
    let algorithm = Algorithm::SlidingWindow { requests, window_ms: 3_600_000 };
    Limit::new(id.into(), Key::ClientAddress, algorithm)
}

pub(super) fn key(value: &str) -> [Entry; 1] {
    [Entry { key: "key".into(), value: value.into() }]
}

pub(super) async fn take(store: &Shared, asks: &[(&Limit, &str, u64)]) -> Vec<(bool, u64)> {
    let keys: Vec<[Entry; 1]> = asks.iter().map(|(_, value, _)| key(value)).collect();
    let asks: Vec<Ask<'_>> = asks
        .iter()
        .zip(&keys)
        .map(|((limit, _, n), key)| Ask { limit, key, hits: Hits::Take(*n), role: Role::Binding })
        .collect();
    store.decide(&asks).await.unwrap().iter().map(|outcome| (outcome.allowed, outcome.remaining)).collect()
}

/// Two keys in one request, of which one refuses: nothing is taken of the other, wherever it is.
pub(super) async fn all_or_none(store: &Shared) {
    let (wide, narrow) = (window("wide", 9), window("narrow", 2));
    for left in [(8, 1), (7, 0)] {
        let taken = take(store, &[(&wide, "one", 1), (&narrow, "two", 1)]).await;
        assert_eq!(taken, [(true, left.0), (true, left.1)]);
    }
    for _ in 0..3 {
        let taken = take(store, &[(&wide, "one", 1), (&narrow, "two", 1)]).await;
        assert_eq!(taken.iter().map(|(allowed, _)| *allowed).collect::<Vec<_>>(), [true, false]);
    }
    assert_eq!(take(store, &[(&wide, "one", 0), (&wide, "two", 2)]).await, [(true, 7), (true, 7)]);
}

#[tokio::test]
async fn the_server_that_sentinels_name() {
    let server = Server::start();
    let of = server.port;
    let sentinel = Server::with(|_, port| format!("port {port}\nsentinel monitor main 127.0.0.1 {of} 1\n"));
    let store =
        Shared::connected(options(&format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port))).await;
    all_or_none(&store).await;
}

#[tokio::test]
async fn a_server_with_tls() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), made.cert.pem()).unwrap();
    let server = Server::with(|folder, port| {
        let (certificate, key) = (folder.join("certificate"), folder.join("key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let (certificate, key) = (certificate.display(), key.display());
        format!(
            "port 0\ntls-port {port}\ntls-cert-file {certificate}\ntls-key-file {key}\n\
             tls-ca-cert-file {certificate}\ntls-auth-clients no\n"
        )
    });
    let url = format!("rediss://127.0.0.1:{}", server.port);
    let trusted = RedisOptions { authority: Some(authority.path().to_owned()), ..options(&url) };
    all_or_none(&Shared::connected(trusted).await).await;
    let unknown = Shared::open(options(&url)).unwrap();
    assert!(unknown.connect().await.is_err(), "nobody has signed it");
}

/// What the files hold when a connection is made counts.
#[tokio::test]
async fn a_server_that_asks_for_a_certificate() {
    let made = || rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (known, unknown) = (made(), made());
    let server = Server::with(|folder, port| {
        let (certificate, key) = (folder.join("certificate"), folder.join("key"));
        std::fs::write(&certificate, known.cert.pem()).unwrap();
        std::fs::write(&key, known.signing_key.serialize_pem()).unwrap();
        let (certificate, key) = (certificate.display(), key.display());
        format!(
            "port 0\ntls-port {port}\ntls-cert-file {certificate}\ntls-key-file {key}\n\
             tls-ca-cert-file {certificate}\ntls-auth-clients yes\n"
        )
    });
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("authority"), known.cert.pem()).unwrap();
    let nobody = RedisOptions {
        authority: Some(file("authority")),
        ..options(&format!("rediss://127.0.0.1:{}", server.port))
    };
    assert!(Shared::open(nobody.clone()).unwrap().connect().await.is_err(), "without one");
    let somebody = RedisOptions { identity: Some((file("certificate"), file("key"))), ..nobody };
    assert!(matches!(Shared::open(somebody.clone()), Err(OpenError::File(..))), "there are no files");
    let write = |of: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        std::fs::write(file("certificate"), of.cert.pem()).unwrap();
        std::fs::write(file("key"), of.signing_key.serialize_pem()).unwrap();
    };
    write(&unknown);
    let store = Shared::open(somebody).unwrap();
    assert!(store.connect().await.is_err(), "nobody knows it");
    write(&known);
    store.connect().await.unwrap();
    all_or_none(&store).await;
}

/// As on a machine that does too much else: the thread that made the connection has no time at all.
#[test]
fn a_thread_waits_for_no_other() {
    let server = Server::start();
    let runtime = || runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let busy = runtime();
    let deadline = Duration::from_secs(5);
    let store = busy.block_on(Shared::connected(RedisOptions { deadline, ..options(&server.url()) }));
    let limit = window("l", 5);
    runtime().block_on(async {
        let live = store.link.live().unwrap();
        while store.link.own(&live).is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(take(&store, &[(&limit, "k", 1)]).await, [(true, 4)]);
    });
    assert_eq!(store.link.calls(), (1, 0));
}

/// As somebody between does with those that are idle: the one that all share goes on, and there is another before long.
#[tokio::test]
async fn a_connection_of_a_thread_that_ends() {
    let server = Server::start();
    let store = Shared::connected(options(&server.url())).await;
    let live = store.link.live().unwrap();
    let until_own = async |has: bool| {
        while store.link.own(&live).is_some() != has {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    until_own(true).await;
    let id = loop {
        let clients = server.text(&["CLIENT", "LIST"]);
        let mut pings = clients.lines().filter(|client| client.contains("cmd=ping"));
        if let Some(id) = pings.find_map(|client| client.strip_prefix("id=")?.split(' ').next()) {
            break id.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    server.say(&["CLIENT", "KILL", "ID", &id]);
    until_own(false).await;
    let limit = window("l", 5);
    assert_eq!(take(&store, &[(&limit, "k", 1)]).await, [(true, 4)]);
    until_own(true).await;
    assert_eq!(take(&store, &[(&limit, "k", 1)]).await, [(true, 3)]);
    assert_eq!(store.link.calls(), (2, 0));
}

/// However many wait for it at once.
#[tokio::test]
async fn one_answer_that_is_late_loses_no_connection() {
    let server = Server::start();
    let deadline = Duration::from_millis(100);
    let store = Shared::connected(RedisOptions { deadline, ..options(&server.url()) }).await;
    let limit = window("l", 1_000);
    server.signal(Signal::STOP);
    let one = [(&limit, "k", 1)];
    join_all((0..50).map(|_| take(&store, &one))).await;
    assert_eq!(store.link.calls(), (50, 50), "nobody is answered");
    server.signal(Signal::CONT);
    assert!(store.link.is_connected());
    for _ in 0..LATE {
        take(&store, &[(&limit, "k", 1)]).await;
    }
    assert_eq!(store.link.calls(), (53, 50));
    server.signal(Signal::STOP);
    for _ in 0..LATE {
        assert!(store.link.is_connected());
        take(&store, &[(&limit, "k", 1)]).await;
    }
    assert!(!store.link.is_connected());
}

#[tokio::test]
async fn what_fails_on_a_connection_that_was_replaced_loses_no_other() {
    let server = Server::start();
    let store = Shared::connected(options(&server.url())).await;
    let old = store.link.live().unwrap();
    store.connect().await.unwrap();
    store.link.note(&old, &CallError::Unreadable, Instant::now());
    assert!(store.link.is_connected());
    let live = store.link.live().unwrap();
    store.link.note(&live, &CallError::Unreadable, Instant::now());
    assert!(!store.link.is_connected());
}

/// As one that was started again, at any time.
#[tokio::test]
async fn a_server_that_forgets_the_script() {
    let server = Server::start();
    let store = Shared::connected(options(&server.url())).await;
    let limit = window("l", 100);
    let one = [(&limit, "k", 1)];
    for left in [98, 96, 94] {
        server.say(&["SCRIPT", "FLUSH"]);
        let mut taken = join_all((0..2).map(|_| take(&store, &one))).await;
        taken.sort();
        assert_eq!(taken, [[(true, left)], [(true, left + 1)]]);
    }
    assert_eq!(store.link.calls(), (6, 0));
}

#[tokio::test]
async fn without_redis_each_limit_decides() {
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let store = Shared::open(options(&nowhere)).unwrap();
    let with = |id, mode| Limit { failure_mode: Some(mode), ..window(id, 1) };
    let (open, local, closed) =
        (with("o", FailureMode::Open), with("l", FailureMode::Local), with("c", FailureMode::Closed));
    for _ in 0..3 {
        assert_eq!(take(&store, &[(&open, "k", 1)]).await, [(true, 1)]);
    }
    assert_eq!(take(&store, &[(&local, "k", 1), (&open, "k", 1)]).await, [(true, 0), (true, 1)]);
    assert_eq!(take(&store, &[(&local, "k", 1)]).await, [(false, 0)]);
    // What is let through is counted, but not where another limit refuses the request.
    assert_eq!(take(&store, &[(&local, "k", 1), (&open, "l", 1)]).await, [(false, 0), (true, 1)]);
    let key = key("k");
    let ask = |role| [Ask { limit: &closed, key: &key, hits: Hits::Take(1), role }];
    assert!(store.decide(&ask(Role::Binding)).await.is_err());
    assert!(store.decide(&ask(Role::Shadow)).await.is_ok());
    let untold = || store.state().unwrap().shared.map(|shared| (shared.untold, shared.available));
    assert_eq!(untold(), Some((3, false)), "of each limit k");
    // What has happened is told later all the same.
    for (limit, value, hits, role) in [
        (&closed, "cost", Hits::Charge(3), Role::Shadow),
        (&closed, "given back", Hits::Return(1), Role::Binding),
        (&open, "charged", Hits::Charge(3), Role::Binding),
    ] {
        let key = self::key(value);
        assert!(store.decide(&[Ask { limit, key: &key, hits, role }]).await.unwrap()[0].allowed, "{value}");
    }
    assert_eq!(untold(), Some((6, false)));
}

/// What was counted alone goes when it would have, had Redis counted it.
#[tokio::test]
async fn what_was_counted_alone_is_as_old_as_it_is() {
    const SECOND_MS: u64 = 1_000;
    let server = Server::start();
    let store = Shared::open(options(&server.url())).unwrap();
    let now = store.link.now();
    let allowed = [Outcome { allowed: true, remaining: 0, reset_ms: 0 }];
    let algorithms = [
        Algorithm::SlidingWindow { requests: 100, window_ms: 8 * SECOND_MS },
        Algorithm::Concurrency { limit: 100, lease_ms: 8 * SECOND_MS },
    ];
    for algorithm in algorithms {
        let (limit, key) = (Limit::new("l".into(), Key::ClientAddress, algorithm), key("k"));
        for (ago, hits) in [(3, Hits::Take(5)), (20, Hits::Take(50))].into_iter().rev() {
            let ask = Ask { limit: &limit, key: &key, hits, role: Role::Binding };
            store.ledger.note(&[ask], &allowed, now - ago * SECOND_MS);
        }
    }
    let peeks = store.ledger.peeks();
    store.connect().await.unwrap();
    assert_eq!(store.ledger.len(), 0);
    for answer in store.link.ask(&peeks, store.terms(true)).await.unwrap().answers {
        let State { used, earlier, .. } = answer.state;
        assert_eq!((used, earlier[..2].iter().sum::<u32>(), earlier.iter().sum()), (0, 0, 5), "{answer:?}");
    }
}

/// What a replica holds of a block, and what it was refused, is not what there is.
#[tokio::test]
async fn a_lease_knows_not_what_is_left() {
    let server = Server::start();
    let leased = RedisOptions { mode: RedisMode::Leased, ..options(&server.url()) };
    let (one, two) = (Shared::connected(leased.clone()).await, Shared::connected(leased).await);
    let limit = window("l", 8_000);
    let key = key("k");
    let settle = async |store: &Shared, hits| {
        store.decide(&[Ask { limit: &limit, key: &key, hits, role: Role::Shadow }]).await.unwrap();
    };
    for _ in 0..40 {
        assert!(take(&one, &[(&limit, "k", 1)]).await[0].0);
    }
    settle(&two, Hits::Charge(8_000)).await;
    assert_eq!(take(&one, &[(&limit, "k", 0)]).await, [(false, 0)]);
    assert!(!take(&two, &[(&limit, "k", 1)]).await[0].0);
    settle(&two, Hits::Return(u64::from(u32::MAX))).await;
    assert_eq!(take(&two, &[(&limit, "k", 0)]).await, [(true, 8_000)]);
    assert!(take(&two, &[(&limit, "k", 1)]).await[0].0, "the refusal is not repeated");
}

/// What one has used the other knows, and what a lease of one leaves comes back.
#[tokio::test]
async fn leases_of_two_share_one_limit() {
    let server = Server::start();
    let leased = RedisOptions { mode: RedisMode::Leased, ..options(&server.url()) };
    let (one, two) = (Shared::connected(leased.clone()).await, Shared::connected(leased).await);
    let limit = window("l", 20_000);
    let mut allowed = 0;
    for _ in 0..15_000 {
        for store in [&one, &two] {
            allowed += usize::from(take(store, &[(&limit, "k", 1)]).await[0].0);
        }
    }
    for store in [&one, &two] {
        let (calls, failures) = store.link.calls();
        assert!(calls * 50 <= 15_000 && failures == 0, "{calls} calls, {failures} failures");
        store.give_back(true).await;
    }
    assert!((19_000..=20_000).contains(&allowed), "{allowed}");
    let exact = Shared::connected(options(&server.url())).await;
    let left = usize::try_from(take(&exact, &[(&limit, "k", 0)]).await[0].1).unwrap();
    assert_eq!(allowed + left, 20_000);
}
