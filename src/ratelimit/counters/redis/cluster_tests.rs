//! A cluster of several servers: keys of one request on any of them, slots that move, and servers that go.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use tokio::task::JoinSet;

use super::server::{Cluster, until};
use super::tests::{all_or_none, key, options, take, window};
use super::*;
use crate::model::limit::Limit;

/// A key of this limit on each of the servers, in their order.
fn keys(cluster: &Cluster, limit: &Limit) -> [String; 3] {
    [0, 1, 2].map(|server| {
        let is_there = |key: &String| cluster.place(&name(limit, key)).1 == server;
        (0..).map(|n: u32| n.to_string()).find(is_there).unwrap()
    })
}

fn name(limit: &Limit, value: &str) -> String {
    Name::of(limit, &key(value)).0.to_string()
}

fn asks<'a>(limits: &[(&'a Limit, &'a [Entry; 1])]) -> Vec<Ask<'a>> {
    let ask = |(limit, key): &(&'a Limit, &'a [Entry; 1])| Ask {
        limit,
        key: *key,
        hits: Hits::Take(1),
        role: Role::Binding,
    };
    limits.iter().map(ask).collect()
}

#[tokio::test]
async fn keys_of_a_request_are_on_several_servers() {
    let cluster = Cluster::start();
    let store = Shared::connected(options(&cluster.url())).await;
    assert!(store.link.is_cluster());
    all_or_none(&store).await;
    let (wide, narrow) = (window("wide", 10), window("narrow", 1));
    let [one, two, three] = keys(&cluster, &wide);
    let all = [(&wide, &*one, 1), (&wide, &*two, 1), (&wide, &*three, 1)];
    assert_eq!(take(&store, &all).await, [(true, 9); 3]);
    let refused = take(&store, &[&all[..], &[(&narrow, &one, 2)]].concat()).await;
    assert_eq!(refused.iter().map(|(allowed, _)| *allowed).collect::<Vec<_>>(), [true, true, true, false]);
    assert_eq!(take(&store, &all).await, [(true, 8); 3], "all was given back");
}

/// Nothing is counted twice or forgotten, whichever server has the counter and whatever was known of that.
#[tokio::test]
async fn a_slot_moves() {
    let cluster = Cluster::start();
    let limit = window("l", 100);
    let [one, ..] = keys(&cluster, &limit);
    let name = name(&limit, &one);
    let slot = cluster.place(&name).0.to_string();
    let ids: Vec<String> = cluster.0.iter().map(|server| server.text(&["CLUSTER", "MYID"])).collect();
    let (from, to) = (&cluster.0[0], &cluster.0[1]);
    let (store, other) =
        (Shared::connected(options(&cluster.url())).await, Shared::connected(options(&cluster.url())).await);
    let mut left = 100;
    let mut counts = async || {
        for store in [&store, &other] {
            left -= 1;
            assert_eq!(take(store, &[(&limit, &one, 1)]).await, [(true, left)]);
        }
    };
    counts().await;
    to.say(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]);
    from.say(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]);
    counts().await;
    from.say(&["MIGRATE", "127.0.0.1", &to.port.to_string(), &name, "0", "5000"]);
    counts().await;
    to.say(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]);
    from.say(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]);
    counts().await;
    for store in [&store, &other] {
        assert_eq!(store.link.calls().1, 0);
    }
}

/// Keys of the others are counted in Redis as before; its own go on from what was known, and it is told when it is back.
#[tokio::test]
async fn a_server_of_a_cluster_is_killed() {
    let mut cluster = Cluster::start();
    let limit = window("l", 100);
    let [one, two, three] = keys(&cluster, &limit);
    let all = [(&limit, &*one, 1), (&limit, &*two, 1), (&limit, &*three, 1)];
    let deadline = Duration::from_millis(300);
    let redis = || RedisOptions { deadline, ..options(&cluster.url()) };
    let store = Arc::new(Shared::open(redis()).unwrap());
    let mut running = JoinSet::new();
    let run = store.clone();
    running.spawn(async move { run.run().await });
    store.link.until_connected().await;
    let watcher = Shared::connected(redis()).await;
    assert_eq!(take(&store, &all).await, [(true, 99); 3]);
    assert_eq!(take(&watcher, &all).await, [(true, 98); 3], "counters are shared");
    take(&store, &all).await;
    cluster.0[0].kill();
    let mut left = 97;
    for _ in 0..30 {
        left -= 1;
        assert_eq!(take(&store, &all).await, [(true, left); 3]);
    }
    assert!(store.link.is_connected());
    assert_eq!(take(&watcher, &all[1..]).await, [(true, left - 1); 2], "those of the others are shared");
    // What one refuses costs the others nothing, wherever they are counted.
    let none = window("none", 0);
    for refused in [&one, &two] {
        let taken = take(&store, &[&all[..], &[(&none, refused, 1)]].concat()).await;
        assert!(!taken[3].0);
    }
    let closed = Limit { failure_mode: Some(FailureMode::Closed), ..window("closed", 100) };
    let keys = [key(&one), key(&two)];
    assert!(store.decide(&asks(&[(&closed, &keys[0]), (&limit, &keys[1])])).await.is_err());
    assert_eq!(take(&store, &all).await, [(true, left - 1), (true, left - 2), (true, left - 2)]);
    let gone = 100 - (left - 1);
    cluster.0[0].again();
    cluster.until_whole();
    // It has forgotten all. It is told what it has not heard of, but for what was late.
    let peek = [(&limit, &*one, 0)];
    let mut heard = 0;
    for _ in 0..1_000 {
        heard = 100 - take(&watcher, &peek).await[0].1;
        if watcher.link.calls().1 > 0 && heard > 20 && heard < gone {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(heard > 20 && heard < gone, "{heard} of {gone}");
    running.shutdown().await;
}

/// Its replica takes over, and has what it had.
#[tokio::test]
async fn a_replica_takes_over() {
    let mut cluster = Cluster::start();
    let id = cluster.0[0].text(&["CLUSTER", "MYID"]);
    let replica = Cluster::server();
    cluster.meet(&replica);
    cluster.0.push(replica);
    cluster.until_whole();
    cluster.0[3].say(&["CLUSTER", "REPLICATE", &id]);
    let limit = window("l", 100);
    let [one, two, _] = keys(&cluster, &limit);
    let both = [(&limit, &*one, 1), (&limit, &*two, 1)];
    let deadline = Duration::from_millis(300);
    let store = Shared::connected(RedisOptions { deadline, ..options(&cluster.url()) }).await;
    assert_eq!(take(&store, &both).await, [(true, 99); 2]);
    let has = |server: &str| server.contains("master_link_status:up");
    until("a replica that follows", || has(&cluster.0[3].text(&["INFO", "replication"])));
    until("what was counted", || {
        let of = |server: usize| cluster.0[server].text(&["INFO", "replication"]);
        let at = |info: String| {
            info.lines().find_map(|line| line.strip_prefix("master_repl_offset:").map(str::to_owned))
        };
        at(of(0)) == at(of(3))
    });
    cluster.0[0].kill();
    until("a replica that takes over", || {
        cluster.0[3].text(&["INFO", "replication"]).contains("role:master")
    });
    let other = Shared::connected(options(&format!("{},{}", cluster.0[1].url(), cluster.0[2].url()))).await;
    let mut left = 0;
    for _ in 0..1_000 {
        left = take(&other, &[(&limit, &one, 0)]).await[0].1;
        if left == 99 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(left, 99);
    // So does who was there all the while: what it asks is counted where others see it.
    for _ in 0..1_000 {
        take(&store, &both).await;
        if take(&other, &[(&limit, &one, 0)]).await[0].1 < 99 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the new server is never asked");
}
