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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

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
