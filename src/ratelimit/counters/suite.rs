//! What every store promises, held by each of them alike: the one in this process, a real Redis and a cluster of them, both
//! asked for every request.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use super::memory::Memory;
use super::redis::Shared;
use super::redis::server::{Cluster, Server};
use super::{Ask, Hits, Outcome, Role};
use crate::model::limit::{Algorithm, FailureMode, Key, Limit};
use crate::options::{RedisMode, RedisOptions};
use crate::ratelimit::algorithms::{State, charges_refusals, count};
use crate::values::calendar::{CalendarUnit, TimeZone};

/// A store that is told the time.
trait Table: Sync {
    fn decide_at(&self, asks: &[Ask<'_>], now: u64) -> Vec<Outcome>;

    /// The same with nothing counted.
    fn fresh(&self) -> Box<dyn Table + '_>;
}

impl Table for Memory {
    fn decide_at(&self, asks: &[Ask<'_>], now: u64) -> Vec<Outcome> {
        Self::decide_at(self, asks, now)
    }

    fn fresh(&self) -> Box<dyn Table + '_> {
        Box::new(Self::default())
    }
}

struct OnRedis {
    shared: Shared,
    runtime: Runtime,
    servers: Vec<Server>,
}

impl OnRedis {
    fn one() -> Self {
        let server = Server::start();
        Self::at(&server.url(), vec![server])
    }

    fn cluster() -> Self {
        let cluster = Cluster::start();
        Self::at(&cluster.url(), cluster.0)
    }

    fn at(url: &str, servers: Vec<Server>) -> Self {
        let runtime = Runtime::new().unwrap();
        let options = RedisOptions {
            address: url.parse().unwrap(),
            authority: None,
            identity: None,
            mode: RedisMode::Exact,
            deadline: Duration::from_secs(60),
            failure_mode: FailureMode::Closed,
        };
        let shared = runtime.block_on(Shared::connected(options));
        Self { shared, runtime, servers }
    }
}

impl Table for &OnRedis {
    fn decide_at(&self, asks: &[Ask<'_>], now: u64) -> Vec<Outcome> {
        self.runtime.block_on(self.shared.decide_at(asks, now))
    }

    fn fresh(&self) -> Box<dyn Table + '_> {
        for server in &self.servers {
            server.say(&["FLUSHALL"]);
        }
        Box::new(*self)
    }
}

fn limit(id: &str, algorithm: Algorithm) -> Limit {
    Limit::new(id.into(), Key::ClientAddress, algorithm)
}

fn window(id: &str, requests: u32) -> Limit {
    limit(id, Algorithm::FixedWindow { requests, window_ms: 1_000 })
}

fn gauge(limit: u32) -> Limit {
    self::limit("gauge", Algorithm::Concurrency { limit, lease_ms: 10_000 })
}

fn key(value: &str) -> [Entry; 1] {
    [Entry { key: "key".into(), value: value.into() }]
}

fn take(table: &dyn Table, asks: &[(&Limit, &str, u64)], now: u64) -> Vec<bool> {
    let keys: Vec<[Entry; 1]> = asks.iter().map(|(_, value, _)| key(value)).collect();
    let asks: Vec<Ask<'_>> = asks
        .iter()
        .zip(&keys)
        .map(|((limit, _, n), key)| Ask { limit, key, hits: Hits::Take(*n), role: Role::Binding })
        .collect();
    table.decide_at(&asks, now).iter().map(|outcome| outcome.allowed).collect()
}

macro_rules! for_every_store {
    ($($name:ident)*) => {
        mod memory {
            $(#[test]
            fn $name() {
                super::$name(&super::Memory::default());
            })*
        }
        mod redis {
            $(#[test]
            fn $name() {
                super::$name(&&super::OnRedis::one());
            })*
        }
        mod cluster {
            $(#[test]
            fn $name() {
                super::$name(&&super::OnRedis::cluster());
            })*
        }
    };
}

for_every_store! {
    one_refusal_charges_nobody
    what_has_no_say_refuses_nobody_and_what_is_charged_stays
    what_an_answer_has_cost_counts_beyond_the_limit
    the_same_counter_twice_in_one_request_counts_twice
    what_is_given_back_in_a_refused_request_stays_given
    a_gauge_is_charged_whoever_refuses
    a_gauge_whose_limit_changes_knows_what_is_under_way
    a_changed_limit_starts_anew_and_an_unchanged_one_goes_on
    threads_cannot_get_more
    equals_a_plain_map
    says_what_the_algorithms_say
}

fn one_refusal_charges_nobody(table: &dyn Table) {
    let (wide, narrow) = (window("wide", 10), window("narrow", 2));
    for _ in 0..2 {
        assert_eq!(take(table, &[(&wide, "k", 1), (&narrow, "k", 1)], 5), [true, true]);
    }
    for _ in 0..20 {
        assert_eq!(take(table, &[(&wide, "k", 1), (&narrow, "k", 1)], 5), [true, false]);
    }
    let key = key("k");
    let left =
        table.decide_at(&[Ask { limit: &wide, key: &key, hits: Hits::Take(0), role: Role::Binding }], 5);
    assert_eq!(left[0].remaining, 8);
}

fn what_has_no_say_refuses_nobody_and_what_is_charged_stays(table: &dyn Table) {
    let (wide, narrow) = (window("wide", 10), window("narrow", 1));
    let key = key("k");
    let ask = |limit, hits, role| Ask { limit, key: &key, hits, role };
    let left = |limit| table.decide_at(&[ask(limit, Hits::Take(0), Role::Binding)], 5)[0].remaining;
    for role in [Role::Shadow, Role::Quota(1)] {
        let asks = [
            ask(&wide, Hits::Take(1), Role::Quota(0)),
            ask(&narrow, Hits::Take(1), role),
            ask(&narrow, Hits::Take(1), role),
        ];
        drop(table.decide_at(&asks, 5));
    }
    assert_eq!((left(&wide), left(&narrow)), (8, 0), "charged, whatever has no say");
    let refused = [ask(&wide, Hits::Charge(3), Role::Binding), ask(&narrow, Hits::Charge(3), Role::Binding)];
    let outcomes = table.decide_at(&refused, 5);
    assert_eq!([outcomes[0].allowed, outcomes[1].allowed], [true, false]);
    assert_eq!(left(&wide), 5, "charged in a request that is refused");
    drop(table.decide_at(&[ask(&narrow, Hits::Return(3), Role::Binding)], 5));
    assert_eq!(left(&narrow), 0);
    drop(table.decide_at(&[ask(&narrow, Hits::Return(1), Role::Binding)], 5));
    assert_eq!(left(&narrow), 1);
}

/// As it comes when an answer has ended: what it has cost, and what was reserved for it.
fn what_an_answer_has_cost_counts_beyond_the_limit(table: &dyn Table) {
    let (five, key) = (window("five", 5), key("k"));
    let ask = |hits, role| Ask { limit: &five, key: &key, hits, role };
    let settle = |cost, reserved| {
        let asks = [ask(Hits::Charge(cost), Role::Shadow), ask(Hits::Return(reserved), Role::Shadow)];
        drop(table.decide_at(&asks, 5));
        let probe = table.decide_at(&[ask(Hits::Take(0), Role::Binding)], 5)[0];
        (probe.allowed, probe.remaining)
    };
    assert_eq!(settle(3, 0), (true, 2));
    assert_eq!(settle(9, 0), (false, 0));
    assert_eq!(settle(0, 8), (true, 1));
    assert_eq!(settle(1, 4), (true, 4));
}

fn the_same_counter_twice_in_one_request_counts_twice(table: &dyn Table) {
    let three = window("three", 3);
    assert_eq!(take(table, &[(&three, "k", 1), (&three, "k", 1)], 5), [true, true]);
    assert_eq!(take(table, &[(&three, "k", 1), (&three, "k", 1)], 5), [true, false]);
    assert_eq!(take(table, &[(&three, "k", 1)], 5), [true]);
    assert_eq!(take(table, &[(&three, "k", 1)], 5), [false]);
}

fn what_is_given_back_in_a_refused_request_stays_given(table: &dyn Table) {
    let (two, none) = (window("two", 2), window("none", 0));
    assert_eq!(take(table, &[(&two, "k", 2)], 5), [true]);
    let key = key("k");
    let asks = [
        Ask { limit: &two, key: &key, hits: Hits::Return(1), role: Role::Binding },
        Ask { limit: &none, key: &key, hits: Hits::Take(1), role: Role::Binding },
    ];
    assert!(!table.decide_at(&asks, 5)[1].allowed);
    assert_eq!(take(table, &[(&two, "k", 1)], 5), [true]);
}

/// As Envoy gives back what any request was charged, whichever limit refused it.
fn a_gauge_is_charged_whoever_refuses(table: &dyn Table) {
    let (gauge, none) = (gauge(2), window("none", 0));
    let key = key("k");
    let left = |hits| {
        table.decide_at(&[Ask { limit: &gauge, key: &key, hits, role: Role::Binding }], 5)[0].remaining
    };
    assert_eq!(take(table, &[(&gauge, "k", 1), (&none, "k", 1)], 5), [true, false]);
    assert_eq!(left(Hits::Take(0)), 1);
    assert_eq!(take(table, &[(&none, "k", 1), (&gauge, "k", 2)], 5), [false, false]);
    assert_eq!(left(Hits::Take(0)), 0);
    assert_eq!(left(Hits::Return(2)), 1);
    assert_eq!(left(Hits::Return(1)), 2);
}

fn a_gauge_whose_limit_changes_knows_what_is_under_way(table: &dyn Table) {
    assert_eq!(take(table, &[(&gauge(2), "k", 2)], 5), [true]);
    assert_eq!(take(table, &[(&gauge(3), "k", 1)], 5), [true]);
    assert_eq!(take(table, &[(&gauge(3), "k", 1)], 5), [false]);
}

fn a_changed_limit_starts_anew_and_an_unchanged_one_goes_on(table: &dyn Table) {
    assert_eq!(take(table, &[(&window("l", 1), "k", 1)], 5), [true]);
    assert_eq!(take(table, &[(&window("l", 1), "k", 1)], 5), [false]);
    assert_eq!(take(table, &[(&window("l", 2), "k", 1)], 5), [true]);
}

/// Requests of several limits from several threads: exactly the limit is let through.
fn threads_cannot_get_more(table: &dyn Table) {
    let (total, each) = (window("total", 1_000), window("each", 300));
    let allowed: Vec<usize> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let (total, each) = (&total, &each);
                scope.spawn(move || {
                    let own = format!("{worker}");
                    let ask = |n: usize| {
                        if n.is_multiple_of(2) {
                            [(total, "all", 1), (each, &*own, 1)]
                        } else {
                            [(each, &*own, 1), (total, "all", 1)]
                        }
                    };
                    (0..2_000).filter(|n| take(table, &ask(*n), 10).iter().all(|ok| *ok)).count()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(allowed.iter().sum::<usize>(), 1_000, "{allowed:?}");
    assert!(allowed.iter().all(|n| *n <= 300), "{allowed:?}");
}

#[derive(Debug, Clone)]
struct Step {
    gap: u64,
    asks: Vec<(usize, u8, u64, bool)>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ask = (0usize..6, 0u8..4, 0u64..3, prop::bool::weighted(0.2));
    let step = (0u64..400, prop::collection::vec(ask, 1..4)).prop_map(|(gap, asks)| Step { gap, asks });
    prop::collection::vec(step, 1..80)
}

/// A store agrees with a plain map of states.
fn equals_a_plain_map(table: &dyn Table) {
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let limits = [
        window("a", 3),
        limit("b", Algorithm::Gcra { requests: 2, period_ms: 1_000, burst: 1 }),
        limit("c", Algorithm::FixedWindow { requests: 2, window_ms: 5_000 }),
        gauge(3),
        limit("d", Algorithm::SlidingWindow { requests: 3, window_ms: 1_500 }),
        limit("e", Algorithm::AlignedWindow { requests: 3, window_ms: 700 }),
    ];
    let one = |steps: Vec<Step>| {
        let table = table.fresh();
        let mut plain: HashMap<(usize, u8), State> = HashMap::new();
        let mut now = 1;
        for step in steps {
            now += step.gap;
            let keys: Vec<[Entry; 1]> = step.asks.iter().map(|ask| key(&ask.1.to_string())).collect();
            let asks: Vec<Ask<'_>> = step
                .asks
                .iter()
                .zip(&keys)
                .map(|(&(limit, _, n, back), key)| Ask {
                    limit: &limits[limit],
                    key,
                    hits: if back { Hits::Return(n) } else { Hits::Take(n) },
                    role: Role::Binding,
                })
                .collect();
            let expected = of_plain_map(&mut plain, &step, &asks, now);
            let got: Vec<bool> = table.decide_at(&asks, now).iter().map(|outcome| outcome.allowed).collect();
            prop_assert_eq!(got, expected);
        }
        Ok(())
    };
    runner.run(&steps(), one).unwrap();
}

fn of_plain_map(
    plain: &mut HashMap<(usize, u8), State>,
    step: &Step,
    asks: &[Ask<'_>],
    now: u64,
) -> Vec<bool> {
    let (mut next, mut returned) = (plain.clone(), plain.clone());
    let mut expected = Vec::new();
    for (&(limit, key, _, back), ask) in step.asks.iter().zip(asks) {
        let verdict = |states: &mut HashMap<(usize, u8), State>| {
            let state = states.entry((limit, key)).or_default();
            let verdict = count(&ask.limit.algorithm, *state, ask.hits, now);
            *state = verdict.state;
            verdict.allowed
        };
        if back || charges_refusals(&ask.limit.algorithm) {
            verdict(&mut returned);
        }
        expected.push(verdict(&mut next));
    }
    *plain = if expected.iter().all(|ok| *ok) { next } else { returned };
    expected
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    let requests = prop_oneof![3 => 0u32..12, 1 => 1_000u32..=u32::MAX];
    let window = prop_oneof![3 => 1u64..3_000, 1 => 1u64..400_000_000_000];
    (0usize..6, requests, window, 0u32..8).prop_map(|(which, requests, window_ms, burst)| {
        let time_zone = TimeZone::parse("Europe/Berlin").unwrap();
        [
            Algorithm::Gcra { requests, period_ms: window_ms, burst },
            Algorithm::FixedWindow { requests, window_ms },
            Algorithm::AlignedWindow { requests, window_ms },
            Algorithm::SlidingWindow { requests, window_ms },
            Algorithm::Calendar { requests, unit: CalendarUnit::Day, time_zone },
            Algorithm::Concurrency { limit: requests, lease_ms: window_ms },
        ][which]
    })
}

/// Every number of every answer is the algorithm's, small or large, whatever was asked before.
fn says_what_the_algorithms_say(table: &dyn Table) {
    let n = || prop_oneof![4 => 0u64..5, 1 => 1u64..4_000_000_000];
    let hits = prop_oneof![
        4 => n().prop_map(Hits::Take),
        2 => n().prop_map(Hits::Charge),
        2 => n().prop_map(Hits::Return),
    ];
    let gap = prop_oneof![4 => 0u64..900, 1 => 0u64..90_000_000];
    let steps = prop::collection::vec((gap, hits), 1..60);
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    // What is never is as far away for all.
    let far = |outcome: Outcome| Outcome { reset_ms: outcome.reset_ms.min(1 << 52), ..outcome };
    let one = |(algorithm, steps): (Algorithm, Vec<(u64, Hits)>)| {
        let table = table.fresh();
        let (limit, key) = (limit("l", algorithm), key("k"));
        let (mut state, mut now) = (State::default(), 1_800_000_000_000);
        for (gap, hits) in steps {
            now += gap;
            let verdict = count(&algorithm, state, hits, now);
            state = verdict.state;
            let got = table.decide_at(&[Ask { limit: &limit, key: &key, hits, role: Role::Binding }], now)[0];
            let said = Outcome {
                allowed: verdict.allowed,
                remaining: verdict.remaining,
                reset_ms: verdict.reset_ms,
            };
            prop_assert_eq!(far(got), far(said), "{:?} at {}", hits, now);
        }
        Ok(())
    };
    runner.run(&(algorithm(), steps), one).unwrap();
}
