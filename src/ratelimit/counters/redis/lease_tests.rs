//! The bound on what leases let through, against the algorithms alone.

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proptest::prelude::*;

use super::*;
use crate::model::limit::{Key, Limit};
use crate::ratelimit::algorithms::{State, count};
use crate::values::calendar::{CalendarUnit, TimeZone};

/// Redis with one counter, as the script does it, and what was charged to it when.
#[derive(Default)]
struct Redis {
    state: State,
    charged: Vec<(u64, u64)>,
    given_back: Vec<(u64, u64)>,
    calls: usize,
}

impl Redis {
    fn ask(&mut self, question: &Question, now: u64) -> Answer {
        self.calls += 1;
        let count = |hits| count(&question.algorithm, self.state, hits, now);
        let (verdict, charged) = match question.wanted {
            Wanted::Block { needed, block, free } => {
                let remaining = count(Hits::Take(0)).remaining;
                let lent = needed.max(block.min(remaining).min((remaining / 8).max(free)));
                let verdict = count(Hits::Take(lent));
                if verdict.allowed {
                    self.charged.push((now, lent));
                }
                (verdict, lent)
            }
            Wanted::GiveBack { left, until } if now < until => {
                self.given_back.push((now, left));
                (count(Hits::Return(left)), left)
            }
            Wanted::GiveBack { .. } => (count(Hits::Return(0)), 0),
            Wanted::Hits(_) | Wanted::Past { .. } | Wanted::Undo { .. } => panic!("leases ask for blocks"),
        };
        self.state = verdict.state;
        let outcome =
            Outcome { allowed: verdict.allowed, remaining: verdict.remaining, reset_ms: verdict.reset_ms };
        Answer { outcome, charged, idle_ms: 0, state: verdict.state }
    }
}

fn decide(leases: &Leases, redis: &mut Redis, ask: Ask<'_>, now: u64) -> Outcome {
    for _ in 0..2 {
        match leases.take(&[ask], now).unwrap() {
            Taken::Decided(outcomes) => return outcomes[0],
            Taken::Lacks(lacks) => {
                for lack in lacks {
                    leases.answer(&lack, &redis.ask(&lack.question, now), now);
                }
            }
        }
    }
    panic!("an answer of Redis decides");
}

fn algorithms(requests: u32, window_ms: u64) -> [Algorithm; 4] {
    [
        Algorithm::AlignedWindow { requests, window_ms },
        Algorithm::FixedWindow { requests, window_ms },
        Algorithm::SlidingWindow { requests, window_ms },
        Algorithm::Gcra { requests, period_ms: window_ms, burst: requests - 1 },
    ]
}

fn key() -> [Entry; 1] {
    [Entry { key: "key".into(), value: "k".into() }]
}

fn between(hits: &[(u64, u64)], from: u64, to: u64) -> u64 {
    hits.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, n)| n).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes to whichever replica: in no span are more let through than were charged in it and a block of each
    /// replica. Windows with a beginning and an end see no more than their limit.
    #[test]
    fn no_more_than_a_block_each_is_let_through_beyond_the_limit(
        which in 0usize..4, requests in 1u32..400, window_ms in 200u64..5_000, replicas in 1usize..4,
        steps in prop::collection::vec((prop_oneof![9 => 0u64..60, 1 => 900u64..1_500], 0usize..4, 1u64..4, 1usize..60), 1..120),
        sweeps_each in 1usize..9,
    ) {
        let algorithm = algorithms(requests, window_ms)[which];
        let limit = Limit::new("l".into(), Key::ClientAddress, algorithm);
        let all: Vec<Leases> = (0..replicas).map(|_| Leases::new()).collect();
        let (mut redis, mut served, key) = (Redis::default(), Vec::new(), key());
        // What one request may lack is lent on top of what is left of a block.
        let most = i128::from(replicas as u64 * (largest_block(&algorithm) + 3));
        let (mut now, mut ahead, mut least) = (1_700_000_000_000, 0i128, 0i128);
        for (step, (gap, replica, n, times)) in steps.into_iter().enumerate() {
            now += gap;
            let leases = &all[replica % replicas];
            let ask = Ask { limit: &limit, key: &key, hits: Hits::Take(n), role: Role::Binding };
            let charged = between(&redis.charged, 0, u64::MAX);
            let allowed = (0..times).filter(|_| decide(leases, &mut redis, ask, now).allowed).count() as u64;
            served.push((now, allowed * n));
            least = least.min(ahead);
            ahead += i128::from(allowed * n) - i128::from(between(&redis.charged, 0, u64::MAX) - charged);
            prop_assert!(ahead - least <= most, "{ahead} - {least} of {most}");
            for leases in all.iter().filter(|_| step % sweeps_each == 0) {
                for question in leases.sweep(now, false) {
                    redis.ask(&question, now);
                }
            }
            // Where no window takes it along, what was lent was given out, given back or is still there.
            if let Algorithm::SlidingWindow { .. } | Algorithm::Gcra { .. } = algorithm {
                let left: u64 = all.iter().flat_map(|leases| leases.lock().values().map(|lease| lease.left).collect::<Vec<_>>()).sum();
                let known = between(&served, 0, u64::MAX) + between(&redis.given_back, 0, u64::MAX) + left;
                prop_assert_eq!(between(&redis.charged, 0, u64::MAX), known);
            }
        }
        if let Algorithm::AlignedWindow { .. } = algorithm {
            for (at, _) in &served {
                let start = at / window_ms * window_ms;
                let given = between(&served, start, start + window_ms);
                prop_assert!(given <= u64::from(requests), "{given} of {requests} in a window");
            }
        }
    }
}

/// One call for fifty decisions, before the limit is reached and after.
#[test]
fn a_hot_key_costs_few_calls() {
    let time_zone = TimeZone::parse("UTC").unwrap();
    let minute = algorithms(100_000, 60_000);
    let second = algorithms(2_000, 1_000);
    let calendar = Algorithm::Calendar { requests: 100_000, unit: CalendarUnit::Day, time_zone };
    for algorithm in minute.into_iter().chain(second).chain([calendar]) {
        let limit = Limit::new("l".into(), Key::ClientAddress, algorithm);
        let (leases, mut redis, key) = (Leases::new(), Redis::default(), key());
        let mut decisions = 0;
        // Five thousand a second for a minute.
        for ms in 0..60_000 {
            let now = 1_700_000_000_000 + ms;
            for _ in 0..5 {
                let ask = Ask { limit: &limit, key: &key, hits: Hits::Take(1), role: Role::Binding };
                decide(&leases, &mut redis, ask, now);
                decisions += 1;
            }
            for question in leases.sweep(now, false) {
                redis.ask(&question, now);
            }
        }
        assert!(redis.calls * 50 <= decisions, "{algorithm:?}: {} calls for {decisions}", redis.calls);
        let lent = between(&redis.charged, 0, u64::MAX) - between(&redis.given_back, 0, u64::MAX);
        assert!(lent >= 99_000, "{algorithm:?}: {lent}");
    }
}

/// Most keys are no hot ones.
#[test]
fn a_key_of_a_few_hits_a_second_costs_a_call_for_several() {
    for algorithm in algorithms(100_000, 60_000) {
        let limit = Limit::new("l".into(), Key::ClientAddress, algorithm);
        let (leases, mut redis, key) = (Leases::new(), Redis::default(), key());
        for turn in 0..2_400 {
            let now = 1_700_000_000_000 + turn * 250;
            let ask = Ask { limit: &limit, key: &key, hits: Hits::Take(1), role: Role::Binding };
            assert!(decide(&leases, &mut redis, ask, now).allowed);
            for question in leases.sweep(now, false) {
                redis.ask(&question, now);
            }
        }
        assert!(redis.calls * 4 <= 2_400, "{algorithm:?}: {} calls", redis.calls);
    }
}

#[test]
fn what_is_not_used_comes_back_and_is_forgotten() {
    let limit = Limit::new("l".into(), Key::ClientAddress, algorithms(8_000, 60_000)[0]);
    let (leases, mut redis, key) = (Leases::new(), Redis::default(), key());
    let ask = Ask { limit: &limit, key: &key, hits: Hits::Take(1), role: Role::Binding };
    let start = 60_000_000;
    for _ in 0..40 {
        assert!(decide(&leases, &mut redis, ask, start).allowed);
    }
    let charged = between(&redis.charged, 0, u64::MAX);
    let hold = hold_ms(&limit.algorithm);
    assert!(charged > 40 && leases.sweep(start + hold - 1, false).is_empty());
    let back = leases.sweep(start + hold, false);
    let wanted = Wanted::GiveBack { left: charged - 40, until: start + 60_000 };
    assert_eq!(back.iter().map(|question| question.wanted).collect::<Vec<_>>(), [wanted]);
    assert_eq!(leases.len(), 1);
    assert!(leases.sweep(start + FORGET_MS, false).is_empty());
    assert_eq!(leases.len(), 0);
    assert!(decide(&leases, &mut redis, ask, start + 59_999).allowed);
    assert!(leases.sweep(start + 60_000, false).is_empty(), "what is left of a window goes with it");
}

#[test]
fn a_refusal_of_many_does_not_refuse_few() {
    let limit = Limit::new("l".into(), Key::ClientAddress, algorithms(4, 60_000)[0]);
    let (leases, mut redis, key) = (Leases::new(), Redis::default(), key());
    let mut take = |n| {
        let ask = Ask { limit: &limit, key: &key, hits: Hits::Take(n), role: Role::Binding };
        decide(&leases, &mut redis, ask, 60_000_000)
    };
    assert!(take(2).allowed);
    assert!(!take(3).allowed);
    assert_eq!(take(2), Outcome { allowed: true, remaining: 0, reset_ms: 60_000 });
    assert_eq!(take(1), Outcome { allowed: false, remaining: 0, reset_ms: 60_000 });
}
