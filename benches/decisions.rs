//! A decision of the rate limit service's counters, in process: nanoseconds for each algorithm at a million keys, and
//! bytes a key as the process's resident memory grows.
//!
//! `cargo bench --bench decisions`; with `-- --quick` in a tenth of the time. Bytes are kept below `target/`, nanoseconds where
//! criterion keeps them: `cargo bench --bench change -- --report` writes the bytes into RESULTS.md.

mod records;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::Duration;

use chancery::model::limit::{Algorithm, Key, Limit};
use chancery::ratelimit::counters::memory::Memory;
use chancery::ratelimit::counters::{Ask, Hits, Role};
use chancery::values::calendar::{CalendarUnit, TimeZone};
use criterion::Criterion;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const KEYS: u64 = 1_000_000;
/// Room to spare: the table is measured, not its overflow.
const CAPACITY: usize = 4 * KEYS as usize;
/// Tells a process of this bench to say how many bytes a key of this algorithm takes, and no more.
const BYTES_OF: &str = "CHANCERY_BENCH_BYTES_OF";
const START_MS: u64 = 1_800_000_000_000;

fn algorithms() -> [(&'static str, Algorithm); 6] {
    let time_zone = TimeZone::parse("Europe/Berlin").expect("a zone of the database");
    [
        ("gcra", Algorithm::Gcra { requests: 100, period_ms: 60_000, burst: 20 }),
        ("fixed-window", Algorithm::FixedWindow { requests: 100, window_ms: 60_000 }),
        ("aligned-window", Algorithm::AlignedWindow { requests: 100, window_ms: 60_000 }),
        ("sliding-window", Algorithm::SlidingWindow { requests: 100, window_ms: 60_000 }),
        ("calendar", Algorithm::Calendar { requests: 100, unit: CalendarUnit::Month, time_zone }),
        ("concurrency", Algorithm::Concurrency { limit: 100, lease_ms: 60_000 }),
    ]
}

fn entry(number: u64) -> [Entry; 1] {
    [Entry { key: "key".into(), value: format!("user-{number}") }]
}

fn filled(limit: &Limit) -> Memory {
    let table = Memory::new(CAPACITY);
    for number in 0..KEYS {
        let outcome = table.decide_at(
            &[Ask { limit, key: &entry(number), hits: Hits::Take(1), role: Role::Binding }],
            START_MS,
        );
        assert!(outcome[0].allowed);
    }
    assert_eq!(table.usage().counters, KEYS as usize);
    table
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux tells of memory");
    let pages: usize = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4_096
}

fn limit(algorithm: Algorithm) -> Limit {
    Limit::new("Ingress/shop/api/limit".into(), Key::ClientAddress, algorithm)
}

fn say_bytes(of: &str) {
    let [(_, algorithm)] = algorithms().into_iter().filter(|(name, _)| *name == of).collect::<Vec<_>>()[..]
    else {
        panic!("{of} is no algorithm of this bench");
    };
    let before = resident_bytes();
    let table = filled(&limit(algorithm));
    println!("{}", (resident_bytes() - before) / KEYS as usize);
    drop(table);
}

/// Bytes a key by algorithm, each told by a process of its own, so that none uses what another has freed.
fn keep_bytes() {
    let bytes = algorithms().map(|(name, _)| {
        let this = std::env::current_exe().expect("this program has a path");
        let output = Command::new(this).env(BYTES_OF, name).stderr(Stdio::inherit()).output();
        let said = String::from_utf8(output.expect("this program runs").stdout).expect("a number");
        let bytes: usize = said.trim().parse().expect("a number");
        println!("{name}: {bytes} bytes a key");
        (name, bytes)
    });
    records::write("bytes_a_key.json", &BTreeMap::from(bytes)).expect("a writable folder");
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decision");
    for (name, algorithm) in algorithms() {
        let limit = limit(algorithm);
        let table = filled(&limit);
        let keys: Vec<[Entry; 1]> = (0..1 << 16).map(|number| entry(number * 15)).collect();
        let mut turn = 0u64;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                // No order that a cache could follow; some 100,000 decisions a second of the table's clock.
                turn += 1;
                let key = &keys[(turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as usize];
                let ask = Ask { limit: &limit, key, hits: Hits::Take(1), role: Role::Binding };
                black_box(table.decide_at(&[ask], START_MS + turn / 100))
            });
        });
    }
    group.finish();
}

fn main() {
    if let Ok(of) = std::env::var(BYTES_OF) {
        return say_bytes(&of);
    }
    keep_bytes();
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(5)).configure_from_args();
    decisions(&mut criterion);
    criterion.final_summary();
}
