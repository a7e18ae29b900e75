//! Two rate limit services, and a Redis whose place another takes: sentinels say which.

use std::sync::atomic::Ordering;

use redis::Value;
use serde_json::Value as Json;

use crate::cluster::process::{get, until};
use crate::redis::{LIMIT, Redis, Service, under_load};

/// A server, one that follows it, and three that watch them.
struct Set {
    master: Redis,
    replica: Redis,
    sentinels: Vec<Redis>,
}

impl Set {
    fn start() -> Self {
        let master = Redis::with("");
        let replica = Redis::with(&format!("replicaof 127.0.0.1 {}\n", master.port));
        let watch = format!(
            "sentinel monitor main 127.0.0.1 {} 2\nsentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 3000\n",
            master.port
        );
        let sentinels: Vec<Redis> = (0..3).map(|_| Redis::with(&watch)).collect();
        let this = Self { master, replica, sentinels };
        until("a replica that follows", || this.replicated());
        for sentinel in &this.sentinels {
            let known = |of: &str| match sentinel.say(&["SENTINEL", of, "main"]) {
                Value::Array(known) => known.len(),
                other => panic!("{other:?}"),
            };
            until("sentinels", || (known("SENTINELS") == 2 && known("REPLICAS") == 1).then_some(()));
        }
        this
    }

    fn url(&self) -> String {
        let sentinels: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("redis+sentinel://{}/main", sentinels.join(","))
    }

    /// Whether the replica has all that the master has.
    fn replicated(&self) -> Option<()> {
        let offset = |of: &Redis| {
            let info: String = redis::from_redis_value(of.say(&["INFO", "replication"])).unwrap();
            let is_up = info.contains("master_link_status:up") || info.contains("role:master");
            let offset = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
            offset.filter(|_| is_up).map(str::to_owned)
        };
        let master = offset(&self.master)?;
        (offset(&self.replica)? == master).then_some(())
    }
}

/// A number of what a service says of its store.
fn store(service: &Service, name: &str) -> u64 {
    let page = get(service.http, "/debug/ratelimits").unwrap();
    let page: Json = serde_json::from_str(page.split_once("\r\n\r\n").unwrap().1).unwrap();
    page["store"][name].as_u64().unwrap_or_else(|| panic!("{name}: {page}"))
}

/// Nobody is refused, and what the new one does not know of was either not replicated yet or not answered in time.
#[test]
fn a_master_that_is_killed_under_load() {
    let mut set = Set::start();
    let services = [Service::at(&set.url(), &[]), Service::at(&set.url(), &[])];
    let [one, two] = [&services[0], &services[1]];
    [one, two].iter().for_each(|service| service.until_connected(1));
    one.take(1_000);
    assert_eq!(two.take(0).1, LIMIT - 1_000, "counters are shared");
    until("what was counted", || set.replicated());
    let mut before = 0;
    let all = under_load(&[one, two], |sent| {
        until("some load", || (sent.load(Ordering::Relaxed) > 100).then_some(()));
        set.master.kill();
        for service in [one, two] {
            until("that it is missed", || service.program.said().contains("decided here").then_some(()));
        }
        before = sent.load(Ordering::Relaxed) + 2;
        [one, two].iter().for_each(|service| service.until_connected(2));
    });
    for service in [one, two] {
        until("that all is told", || (store(service, "untold") == 0).then_some(()));
    }
    let (left, other) = (one.take(0).1, two.take(0).1);
    assert_eq!(left, other, "counters are shared");
    let used = LIMIT - left;
    let failed = store(one, "failures") + store(two, "failures");
    println!(
        "{all} sent, {} of them since it was missed; {used} used, {failed} failed",
        all - before.min(all)
    );
    assert!(used + before + failed >= 1_000 + all, "lost what was counted here");
    assert!(used <= 1_000 + all + failed, "counted twice");
}
