//! The table's promises, most of them against the algorithms alone or under a flood of keys.

use std::collections::HashMap;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proptest::prelude::*;

use super::super::Role;
use super::*;
use crate::model::limit::{Algorithm, Key, Limit};
use crate::values::calendar::{CalendarUnit, TimeZone};

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

fn take(table: &Memory, asks: &[(&Limit, &str, u64)], now: u64) -> Vec<bool> {
    let keys: Vec<[Entry; 1]> = asks.iter().map(|(_, value, _)| key(value)).collect();
    let asks: Vec<Ask<'_>> = asks
        .iter()
        .zip(&keys)
        .map(|((limit, _, n), key)| Ask { limit, key, hits: Hits::Take(*n), role: Role::Binding })
        .collect();
    table.decide_at(&asks, now).iter().map(|outcome| outcome.allowed).collect()
}

#[test]
fn one_refusal_charges_nobody() {
    let table = Memory::default();
    let (wide, narrow) = (window("wide", 10), window("narrow", 2));
    for _ in 0..2 {
        assert_eq!(take(&table, &[(&wide, "k", 1), (&narrow, "k", 1)], 5), [true, true]);
    }
    for _ in 0..20 {
        assert_eq!(take(&table, &[(&wide, "k", 1), (&narrow, "k", 1)], 5), [true, false]);
    }
    let key = key("k");
    let left =
        table.decide_at(&[Ask { limit: &wide, key: &key, hits: Hits::Take(0), role: Role::Binding }], 5);
    assert_eq!(left[0].remaining, 8);
}

#[test]
fn what_has_no_say_refuses_nobody_and_what_is_charged_stays() {
    let table = Memory::default();
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

#[test]
fn the_same_counter_twice_in_one_request_counts_twice() {
    let table = Memory::default();
    let three = window("three", 3);
    assert_eq!(take(&table, &[(&three, "k", 1), (&three, "k", 1)], 5), [true, true]);
    assert_eq!(take(&table, &[(&three, "k", 1), (&three, "k", 1)], 5), [true, false]);
    assert_eq!(take(&table, &[(&three, "k", 1)], 5), [true]);
    assert_eq!(take(&table, &[(&three, "k", 1)], 5), [false]);
}

#[test]
fn what_is_given_back_in_a_refused_request_stays_given() {
    let table = Memory::default();
    let (two, none) = (window("two", 2), window("none", 0));
    assert_eq!(take(&table, &[(&two, "k", 2)], 5), [true]);
    let key = key("k");
    let asks = [
        Ask { limit: &two, key: &key, hits: Hits::Return(1), role: Role::Binding },
        Ask { limit: &none, key: &key, hits: Hits::Take(1), role: Role::Binding },
    ];
    assert!(!table.decide_at(&asks, 5)[1].allowed);
    assert_eq!(take(&table, &[(&two, "k", 1)], 5), [true]);
}

/// As Envoy gives back what any request was charged, whichever limit refused it.
#[test]
fn a_gauge_is_charged_whoever_refuses() {
    let table = Memory::default();
    let (gauge, none) = (gauge(2), window("none", 0));
    let key = key("k");
    let left = |hits| {
        table.decide_at(&[Ask { limit: &gauge, key: &key, hits, role: Role::Binding }], 5)[0].remaining
    };
    assert_eq!(take(&table, &[(&gauge, "k", 1), (&none, "k", 1)], 5), [true, false]);
    assert_eq!(left(Hits::Take(0)), 1);
    assert_eq!(take(&table, &[(&none, "k", 1), (&gauge, "k", 2)], 5), [false, false]);
    assert_eq!(left(Hits::Take(0)), 0);
    assert_eq!(left(Hits::Return(2)), 1);
    assert_eq!(left(Hits::Return(1)), 2);
}

#[test]
fn a_gauge_whose_limit_changes_knows_what_is_under_way() {
    let table = Memory::default();
    assert_eq!(take(&table, &[(&gauge(2), "k", 2)], 5), [true]);
    assert_eq!(take(&table, &[(&gauge(3), "k", 1)], 5), [true]);
    assert_eq!(take(&table, &[(&gauge(3), "k", 1)], 5), [false]);
}

/// Keys without a counter share one, and give back to it what they took of it, be there room for them by then.
#[test]
fn what_the_overflow_gauge_was_charged_comes_back_to_it() {
    let table = Memory::new(1);
    let short = limit("short", Algorithm::FixedWindow { requests: 1, window_ms: 300 });
    assert_eq!(take(&table, &[(&short, "fills the table", 1)], 1_000), [true]);
    let gauge = gauge(2);
    let left = |name, hits, now| {
        let key = key(name);
        table.decide_at(&[Ask { limit: &gauge, key: &key, hits, role: Role::Binding }], now)[0].remaining
    };
    assert_eq!(left("a", Hits::Take(2), 1_001), 0);
    assert_eq!(left("b", Hits::Take(0), 1_002), 0);
    assert_eq!(left("a", Hits::Return(2), 2_000), 2);
    assert_eq!(left("b", Hits::Take(0), 2_001), 2);
}

#[test]
fn a_changed_limit_starts_anew_and_an_unchanged_one_goes_on() {
    let table = Memory::default();
    assert_eq!(take(&table, &[(&window("l", 1), "k", 1)], 5), [true]);
    assert_eq!(take(&table, &[(&window("l", 1), "k", 1)], 5), [false]);
    assert_eq!(take(&table, &[(&window("l", 2), "k", 1)], 5), [true]);
}

#[test]
fn idle_counters_make_room_for_new_ones() {
    let table = Memory::new(512);
    let one = window("one", 1);
    for round in 1..20u64 {
        for n in 0..400 {
            assert_eq!(
                take(&table, &[(&one, &format!("{round}-{n}"), 1)], round * 1_000),
                [true],
                "{round} {n}"
            );
        }
    }
    let usage = table.usage();
    assert!(usage.counters <= 512 && usage.overflowed == 0 && usage.evicted >= 18 * 400 - 512, "{usage:?}");
}

/// While the table is full of live counters, all keys beyond it together get no more than one key's limit. Not all of
/// its capacity is reached: once one shard is full, new keys of the others begin with what the overflow has used.
#[test]
fn a_flood_of_keys_shares_one_counter() {
    let table = Memory::new(512);
    let (five, other) = (window("five", 5), window("other", 5));
    let flood = |prefix: &str, now| {
        (0..20_000).filter(|n| take(&table, &[(&five, &format!("{prefix}{n}"), 1)], now)[0]).count()
    };
    let first = flood("a", 1_000);
    assert!((400..=512 + 5).contains(&first), "{first} of 20,000 keys were allowed");
    assert!(flood("b", 1_100) <= 5);
    assert_eq!(
        take(&table, &[(&other, "k", 1)], 1_100),
        [true],
        "another limit has an overflow counter of its own"
    );
    let later = flood("c", 2_500);
    assert!((400..=512 + 5).contains(&later), "{later} keys were allowed once the counters were idle");
    assert!(table.usage().counters <= 512);
}

#[test]
fn a_key_that_gets_room_begins_with_what_the_overflow_has_used() {
    let table = Memory::new(1);
    let short = limit("short", Algorithm::FixedWindow { requests: 1, window_ms: 300 });
    let long = limit("long", Algorithm::FixedWindow { requests: 3, window_ms: 60_000 });
    assert_eq!(take(&table, &[(&short, "fills the table", 1)], 1_000), [true]);
    assert_eq!(take(&table, &[(&long, "k", 2)], 1_001), [true]);
    assert_eq!(table.usage().overflowed, 1);
    assert_eq!(take(&table, &[(&long, "k", 1)], 1_400), [true], "has a counter of its own now");
    assert_eq!(take(&table, &[(&long, "k", 1)], 1_401), [false]);
    assert_eq!(table.usage().overflowed, 1);
}

/// Requests of several limits from several threads: exactly the limit is let through.
#[test]
fn threads_cannot_get_more() {
    let table = Memory::default();
    let (total, each) = (window("total", 1_000), window("each", 300));
    let allowed: Vec<usize> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let (table, total, each) = (&table, &total, &each);
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

fn every_algorithm(requests: u32, window_ms: u64) -> [Algorithm; 6] {
    let time_zone = TimeZone::parse("UTC").unwrap();
    [
        Algorithm::Gcra { requests, period_ms: window_ms, burst: requests - 1 },
        Algorithm::FixedWindow { requests, window_ms },
        Algorithm::AlignedWindow { requests, window_ms },
        Algorithm::SlidingWindow { requests, window_ms },
        Algorithm::Calendar { requests, unit: CalendarUnit::Day, time_zone },
        Algorithm::Concurrency { limit: requests, lease_ms: window_ms },
    ]
}

/// Ten times as many keys as fit, each asking for more than it may have: those that have a counter get their limit, and
/// all others together what one of them would. When all have been idle, that begins anew.
#[test]
fn a_flood_gets_no_more_than_its_counters_whatever_the_algorithm() {
    const DAY_MS: u64 = 86_400_000;
    for algorithm in every_algorithm(3, DAY_MS) {
        let (table, flooded) = (Memory::new(512), limit("flooded", algorithm));
        for day in [2, 5, 9] {
            let now = day * DAY_MS;
            let key_gets =
                |n| (0..5).filter(|_| take(&table, &[(&flooded, &format!("{day}-{n}"), 1)], now)[0]).count();
            let each: Vec<usize> = (0..5_000).map(key_gets).collect();
            assert!(each.iter().all(|got| *got <= 3), "{algorithm:?}");
            let all: usize = each.iter().sum();
            assert!((3 * 400..=3 * 512 + 3).contains(&all), "{algorithm:?}: {all}");
            assert!(table.usage().counters <= 512, "{algorithm:?}");
        }
    }
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// A table of any size agrees with a plain map of states as long as it is not full, and never allows what that
    /// refuses when it is.
    #[test]
    fn equals_a_plain_map(steps in steps()) {
        let limits = [
            window("a", 3),
            limit("b", Algorithm::Gcra { requests: 2, period_ms: 1_000, burst: 1 }),
            limit("c", Algorithm::FixedWindow { requests: 2, window_ms: 5_000 }),
            gauge(3),
            limit("d", Algorithm::SlidingWindow { requests: 3, window_ms: 1_500 }),
            limit("e", Algorithm::AlignedWindow { requests: 3, window_ms: 700 }),
        ];
        let table = Memory::default();
        let mut plain: HashMap<(usize, u8), State> = HashMap::new();
        let mut now = 1;
        for step in steps {
            now += step.gap;
            let keys: Vec<[Entry; 1]> = step.asks.iter().map(|ask| key(&ask.1.to_string())).collect();
            let hits = |n, back| if back { Hits::Return(n) } else { Hits::Take(n) };
            let asks: Vec<Ask<'_>> = step.asks.iter().zip(&keys)
                .map(|(&(limit, _, n, back), key)| Ask { limit: &limits[limit], key, hits: hits(n, back), role: Role::Binding })
                .collect();
            let mut next = plain.clone();
            let mut returned = plain.clone();
            let expected: Vec<bool> = step.asks.iter().map(|&(limit, key, n, back)| {
                let verdict = |states: &mut HashMap<(usize, u8), State>| {
                    let state = states.entry((limit, key)).or_default();
                    let verdict = count(&limits[limit].algorithm, *state, hits(n, back), now);
                    *state = verdict.state;
                    verdict.allowed
                };
                if back || charges_refusals(&limits[limit].algorithm) {
                    verdict(&mut returned);
                }
                verdict(&mut next)
            }).collect();
            plain = if expected.iter().all(|ok| *ok) { next } else { returned };
            let got: Vec<bool> = table.decide_at(&asks, now).iter().map(|outcome| outcome.allowed).collect();
            prop_assert_eq!(got, expected);
        }
    }

    /// A table that has room for hardly any key allows nothing that a key's own state would refuse, whatever was dropped
    /// to make room. Not so where a window begins with the first hit: that of the overflow counter began with another's.
    #[test]
    fn a_full_table_allows_no_key_more_than_its_own_state_would(
        which in prop::sample::select(vec![0usize, 2, 3, 4, 5]), capacity in 1usize..5,
        steps in prop::collection::vec((0u64..500, 0u8..8, 1u64..3), 1..200),
    ) {
        let flooded = limit("flooded", every_algorithm(4, 1_600)[which]);
        let table = Memory::new(capacity);
        let mut plain: HashMap<u8, State> = HashMap::new();
        let mut now = 1_000_000;
        for (gap, name, n) in steps {
            now += gap;
            let allowed = take(&table, &[(&flooded, &name.to_string(), n)], now)[0];
            let state = plain.entry(name).or_default();
            let own = count(&flooded.algorithm, *state, Hits::Take(n), now);
            if allowed || charges_refusals(&flooded.algorithm) {
                prop_assert!(own.allowed || !allowed);
                *state = own.state;
            }
            prop_assert!(table.usage().counters <= capacity);
        }
    }
}
