//! Grants of services that count in one Redis.

use std::ops::{ControlFlow, Deref};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::tests::{Rig, alice, granted_hits_come_first, granted_quota_is_not_used_up};
use crate::model::limit::FailureMode;
use crate::options::{RedisMode, RedisOptions};
use crate::ratelimit::counters::redis::server::{Cluster, Server};
use crate::ratelimit::counters::{MOST_GRANTS, Store};

/// A service with its connection, which ends with this value.
struct Replica {
    rig: Rig,
    _running: JoinSet<()>,
}

impl Deref for Replica {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.rig
    }
}

impl Replica {
    async fn at(url: &str) -> Self {
        Self::with(url, RedisMode::Exact).await
    }

    async fn with(url: &str, mode: RedisMode) -> Self {
        let options = RedisOptions {
            address: url.parse().unwrap(),
            authority: None,
            identity: None,
            mode,
            deadline: Duration::from_secs(60),
            failure_mode: FailureMode::Local,
        };
        let store = Arc::new(Store::open(Some(options), Arc::default()).unwrap());
        let (run, mut running) = (store.clone(), JoinSet::new());
        running.spawn(async move { run.run().await });
        store.ready().await;
        Self { rig: Rig::on(store), _running: running }
    }

    /// What a request says that is let through by a grant alone.
    async fn short(&self, hits: u32) -> bool {
        self.hit("chancery", hits, &[&[("limit", "short"), ("key", "/p")]]).await.0
    }

    async fn left_of(&self, subject: Value) -> (u64, u64) {
        let quota = self.quota("get", subject, None).await;
        (quota["remaining"].as_u64().unwrap(), quota["granted"].as_u64().unwrap())
    }
}

/// Asks again and again until there is an end.
async fn until<T>(what: &str, mut asked: impl AsyncFnMut() -> ControlFlow<T>) -> T {
    for _ in 0..3_000 {
        if let ControlFlow::Break(found) = asked().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} does not come");
}

fn end_if(condition: bool) -> ControlFlow<()> {
    if condition { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn short() -> Value {
    json!({"limit": "short", "key": ["/p"]})
}

#[tokio::test]
async fn a_grant_in_redis_is_as_one_in_memory() {
    let server = Server::start();
    let exact = Replica::at(&server.url()).await.rig;
    granted_hits_come_first(&exact).await;
    granted_quota_is_not_used_up(&exact).await;
    server.say(&["FLUSHALL"]);
    granted_hits_come_first(&Replica::with(&server.url(), RedisMode::Leased).await.rig).await;
}

/// Where the keys of a request are asked for one by one.
#[tokio::test]
async fn a_cluster_gives_a_grant_back_too() {
    let cluster = Cluster::start();
    let (one, two) = (Replica::at(&cluster.url()).await, Replica::at(&cluster.url()).await);
    one.quota("grant", alice(), Some(3)).await;
    let named = [("limit", "keyed"), ("key", "alice")];
    let refused: &[&[(&str, &str)]] = &[&named, &[("limit", "none"), ("key", "/p")]];
    for hits in [2, 4] {
        assert!(!one.hit("chancery", hits, refused).await.0);
        assert_eq!(one.left_of(alice()).await, (5, 3));
    }
    assert_eq!(one.keyed(4, "alice").await, (true, vec![1]));
    assert_eq!(two.left_of(alice()).await, (1, 0));
    two.quota("grant", alice(), Some(2)).await;
    until("the grant", async || end_if(one.keyed(3, "alice").await.0)).await;
    assert_eq!(two.keyed(1, "alice").await, (false, vec![0]));
}

#[tokio::test]
async fn what_one_grants_acts_at_the_other() {
    let server = Server::start();
    for mode in [RedisMode::Exact, RedisMode::Leased] {
        server.say(&["FLUSHALL"]);
        let (one, two) = (Replica::with(&server.url(), mode).await, Replica::with(&server.url(), mode).await);
        assert_eq!(one.keyed(2, "alice").await, (true, vec![0]));
        one.quota("grant", alice(), Some(1_000)).await;
        // Without being asked for it.
        until("the grant", async || end_if(two.keyed(1, "alice").await.0)).await;
        assert_eq!(one.left_of(alice()).await, (999, 999));
        assert_eq!(two.quota("grant", alice(), Some(1)).await["granted"], 1_000, "they go together");
        let mut through = 0;
        while one.keyed(3, "alice").await.0 && two.keyed(2, "alice").await.0 {
            through += 1;
        }
        assert_eq!(through, 200, "each is used once");
        assert_eq!((one.left_of(alice()).await, two.left_of(alice()).await), ((0, 0), (0, 0)));
    }
}

/// What two replicas say of one Redis is what one says that has it all in its memory.
#[tokio::test]
async fn two_let_through_what_one_would_have() {
    let server = Server::start();
    let (one, two) = (Replica::at(&server.url()).await, Replica::at(&server.url()).await);
    let alone = Rig::on(Arc::default());
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for step in 0..400 {
        let key = ["alice", "pro_bob"][usize::try_from(next(2)).unwrap()];
        let subject = json!({"limit": "keyed", "key": [key]});
        let (at, hits) = ([&one, &two][usize::try_from(next(2)).unwrap()], next(5));
        let named = [("limit", "keyed"), ("key", key)];
        let several = [("limit", "several"), ("key", "g"), ("remote_address", key)];
        match next(10) {
            0 => {
                let granted = at.quota("grant", subject.clone(), Some(hits + 1)).await;
                let expected = alone.quota("grant", subject.clone(), Some(hits + 1)).await;
                assert_eq!(granted["remaining"], expected["remaining"], "{step}");
            }
            1 => {
                at.quota("reset", subject.clone(), None).await;
                alone.quota("reset", subject.clone(), None).await;
            }
            // Who looks knows of the grant at once.
            _ => {
                at.quota("get", subject.clone(), None).await;
                let hits = u32::try_from(hits + 1).unwrap();
                let asked: &[&[(&str, &str)]] = if next(2) == 0 { &[&named] } else { &[&named, &several] };
                let (said, expected) =
                    (at.hit("chancery", hits, asked).await, alone.hit("chancery", hits, asked).await);
                assert_eq!(said, expected, "{step}: {hits} for {key}");
            }
        }
        let (left, expected) =
            (at.quota("get", subject.clone(), None).await, alone.quota("get", subject, None).await);
        assert_eq!([&left["remaining"], &left["granted"]], [&expected["remaining"], &expected["granted"]]);
    }
}

#[tokio::test]
async fn a_grant_ends_for_all() {
    let server = Server::start();
    let (one, two) = (Replica::at(&server.url()).await, Replica::at(&server.url()).await);
    assert!(!one.short(1).await);
    until("the grant", async || {
        one.quota("grant", short(), Some(1_000_000)).await;
        end_if(two.short(1).await)
    })
    .await;
    until("its end", async || end_if(!one.short(1).await && !two.short(1).await)).await;
    for replica in [&one, &two] {
        until("nothing left", async || end_if(replica.left_of(short()).await == (0, 0))).await;
    }
    until("an empty Redis", async || {
        let names: Vec<String> = redis::from_redis_value(server.say(&["KEYS", "*"])).unwrap();
        end_if(names.is_empty())
    })
    .await;
}

/// The first request of whoever begins anew has it.
#[tokio::test]
async fn a_grant_outlives_who_was_asked() {
    let server = Server::start();
    let one = Replica::at(&server.url()).await;
    one.quota("grant", json!({"limit": "none", "key": ["/p"]}), Some(3)).await;
    let hit =
        async |replica: &Replica| replica.hit("chancery", 1, &[&[("limit", "none"), ("key", "/p")]]).await;
    assert_eq!(hit(&one).await, (true, vec![2]));
    drop(one);
    let again = Replica::at(&server.url()).await;
    assert_eq!(hit(&again).await, (true, vec![1]));
}

#[tokio::test]
async fn nothing_is_granted_while_redis_is_away() {
    let mut server = Server::start();
    let one = Replica::at(&server.url()).await;
    assert_eq!(one.quota("grant", alice(), Some(5)).await["granted"], 5);
    server.kill();
    let grant = async || {
        let (status, answer) =
            one.ask("/v1/quotas/grant", Some(json!({"subject": alice(), "hits": 5})), None).await;
        (status, answer["error"].as_str().unwrap_or_default().to_owned())
    };
    let words = until("words", async || {
        let (status, words) = grant().await;
        assert_eq!(status, 503, "{words}");
        if words.contains("is away") { ControlFlow::Break(words) } else { ControlFlow::Continue(()) }
    })
    .await;
    assert_eq!(words, "the counter store is not available: Redis is away; nothing is granted");
    assert_eq!(one.left_of(alice()).await, (2, 0), "what was granted is not used meanwhile");
    assert_eq!(one.keyed(1, "alice").await, (true, vec![1]));
    server.again();
    until("Redis", async || end_if(grant().await.0 == 200)).await;
    assert_eq!(one.left_of(alice()).await.1, 5, "it had forgotten the first");
}

#[tokio::test]
async fn redis_keeps_so_many_grants_at_a_time() {
    let server = Server::start();
    let one = Replica::at(&server.url()).await;
    one.quota("grant", alice(), Some(1)).await;
    let many: Vec<String> = (1..MOST_GRANTS).map(|n| format!("chancery:{{{n}}}:grant:{n}")).collect();
    let never = "9000000000000";
    let mut words = vec!["ZADD", "chancery:{grants}:index"];
    words.extend(many.iter().flat_map(|name| [never, name.as_str()]));
    server.say(&words);
    let eve = json!({"limit": "keyed", "key": ["eve"]});
    let (status, answer) = one.ask("/v1/quotas/grant", Some(json!({"subject": eve, "hits": 1})), None).await;
    assert_eq!(status, 429, "{answer}");
    assert_eq!(one.quota("grant", alice(), Some(1)).await["granted"], 2, "who has one may have more");
    server.say(&["ZADD", "chancery:{grants}:index", "1", &many[0]]);
    assert_eq!(one.quota("grant", eve, Some(1)).await["granted"], 1, "one has ended");
}
