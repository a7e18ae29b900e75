//! Every kind of Redis that there is, and what becomes of requests without one.

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

use super::server::{Server, free_port};
use super::*;
use crate::model::limit::{Algorithm, Key, Limit};

fn options(url: &str) -> RedisOptions {
    RedisOptions {
        address: url.parse().unwrap(),
        authority: None,
        mode: RedisMode::Exact,
        deadline: Duration::from_secs(60),
        failure_mode: FailureMode::Local,
    }
}

fn window(id: &str, requests: u32) -> Limit {
    let algorithm = Algorithm::SlidingWindow { requests, window_ms: 3_600_000 };
    Limit::new(id.into(), Key::ClientAddress, algorithm)
}

fn key(value: &str) -> [Entry; 1] {
    [Entry { key: "key".into(), value: value.into() }]
}

async fn take(store: &Shared, asks: &[(&Limit, &str, u64)]) -> Vec<(bool, u64)> {
    let keys: Vec<[Entry; 1]> = asks.iter().map(|(_, value, _)| key(value)).collect();
    let asks: Vec<Ask<'_>> = asks
        .iter()
        .zip(&keys)
        .map(|((limit, _, n), key)| Ask { limit, key, hits: Hits::Take(*n), role: Role::Binding })
        .collect();
    store.decide(&asks).await.unwrap().iter().map(|outcome| (outcome.allowed, outcome.remaining)).collect()
}

/// Two keys in one request, of which one refuses: nothing is taken of the other, wherever it is.
async fn all_or_none(store: &Shared) {
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
async fn a_cluster() {
    let bus = free_port();
    let server = Server::with(|_, port| format!("port {port}\ncluster-enabled yes\ncluster-port {bus}\n"));
    server.say(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    server.until(|| format!("{:?}", server.say(&["CLUSTER", "INFO"])).contains("cluster_state:ok"));
    let store = Shared::connected(options(&format!("{0},{0}", server.url()))).await;
    assert!(store.link.is_cluster());
    all_or_none(&store).await;
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

#[tokio::test]
async fn without_redis_each_limit_decides() {
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let store = Shared::open(options(&nowhere)).unwrap();
    let with = |mode| Limit { failure_mode: Some(mode), ..window("l", 1) };
    let (open, local, closed) =
        (with(FailureMode::Open), with(FailureMode::Local), with(FailureMode::Closed));
    for _ in 0..3 {
        assert_eq!(take(&store, &[(&open, "k", 1)]).await, [(true, 1)]);
    }
    assert_eq!(take(&store, &[(&local, "k", 1), (&open, "k", 1)]).await, [(true, 0), (true, 1)]);
    assert_eq!(take(&store, &[(&local, "k", 1)]).await, [(false, 0)]);
    let key = key("k");
    let ask = |role| [Ask { limit: &closed, key: &key, hits: Hits::Take(1), role }];
    assert!(store.decide(&ask(Role::Binding)).await.is_err());
    assert!(store.decide(&ask(Role::Shadow)).await.is_ok());
    let untold = || store.state().unwrap().shared.map(|shared| (shared.untold, shared.available));
    assert_eq!(untold(), Some((1, false)));
    // What has happened is told later all the same.
    for (limit, value, hits, role) in [
        (&closed, "cost", Hits::Charge(3), Role::Shadow),
        (&closed, "given back", Hits::Return(1), Role::Binding),
        (&open, "charged", Hits::Charge(3), Role::Binding),
    ] {
        let key = self::key(value);
        assert!(store.decide(&[Ask { limit, key: &key, hits, role }]).await.unwrap()[0].allowed, "{value}");
    }
    assert_eq!(untold(), Some((4, false)));
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
