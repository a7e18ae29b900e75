//! Hits taken of Redis in blocks and given out here. Pure, but for the lock.
//!
//! Every hit that is given out was charged to the counter in Redis before. So in any span of time no more are let through
//! than were charged in it and what was lent at its beginning, which is at most a block for each replica: at most an
//! eighth of the limit. A window of the clock or the calendar, or one that began with a key's first hit, takes what is
//! left of a block with it when it ends, so that it never sees more than its limit.
//!
//! Near the end of a limit blocks are small, down to the one hit that is asked for. A block that lasts long gets smaller,
//! one that is used up at once larger; what is left of it after an eighth of the limit's time is given back.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as Gate;

use super::call::{Answer, Name, Question, Wanted};
use crate::model::limit::Algorithm;
use crate::ratelimit::counters::key::{AsIs, CounterKey, Secret};
use crate::ratelimit::counters::{Ask, Hits, Outcome, Role, admitted};

/// A block is given back after an eighth of the limit's time, but not before and not after so many milliseconds: a key
/// that comes a few times a second should not cost a call each time, and others should not miss for long what it leaves.
const HOLD_MS: (u64, u64) = (1_000, 8_000);
/// What comes in this time may be lent even if little else is left.
const SLACK_MS: u64 = 50;
/// A refusal is repeated without asking for so long at the least, where what comes meanwhile is not lost, and at the most.
const REPEAT_MS: (u64, u64) = (20, 1_000);
/// A lease that nobody asked for is forgotten after so many milliseconds.
const FORGET_MS: u64 = 16_000;
/// Keys with a lease; others are asked for one by one.
const CAPACITY: usize = 500_000;

struct Lease {
    name: Name,
    algorithm: Algorithm,
    /// Hits that may be given out, but not beyond the window that they were taken in.
    left: u64,
    ends: u64,
    /// What is left then is given back.
    until: u64,
    block: u64,
    granted_at: u64,
    asked_at: u64,
    /// What Redis had left beside, and when nothing would be used.
    beside: u64,
    free_at: u64,
    refused: Refused,
    /// Held by who asks Redis for more, so that one does.
    gate: Arc<Gate<()>>,
}

/// A refusal that holds for a while.
#[derive(Clone, Copy, Default)]
struct Refused {
    until: u64,
    needed: u64,
    remaining: u64,
    reset_at: u64,
}

/// All that is lent to this replica.
pub(super) struct Leases {
    secret: Secret,
    leases: Mutex<HashMap<CounterKey, Lease, BuildHasherDefault<AsIs>>>,
}

/// Whether a request can be decided here.
pub(super) enum Taken {
    Decided(Vec<Outcome>),
    /// Not before these asks have got more.
    Lacks(Vec<Lack>),
}

/// What is lacking for an ask.
pub(super) struct Lack {
    pub(super) at: usize,
    pub(super) key: CounterKey,
    pub(super) gate: Arc<Gate<()>>,
    pub(super) question: Question,
}

/// Whether what is asked may be lent. What is lent here says nothing of whether there is something left.
pub(super) fn is_lent(ask: &Ask<'_>) -> bool {
    matches!(ask.hits, Hits::Take(1..)) && !matches!(ask.limit.algorithm, Algorithm::Concurrency { .. })
}

/// Hits that fit at once, and the hits and milliseconds that they come back at.
fn shape(algorithm: &Algorithm) -> (u64, u64, u64) {
    let (requests, ms) = algorithm.quota();
    let fits = match *algorithm {
        Algorithm::Gcra { burst, .. } => u64::from(burst) + 1,
        _ => requests.into(),
    };
    (fits, requests.into(), ms.max(1))
}

/// The most that is lent at once.
pub(super) fn largest_block(algorithm: &Algorithm) -> u64 {
    (shape(algorithm).0 / 8).max(1)
}

/// How long a block is held.
fn hold_ms(algorithm: &Algorithm) -> u64 {
    let (_, _, ms) = shape(algorithm);
    (ms / 8).clamp(HOLD_MS.0, HOLD_MS.1)
}

/// What may be lent even if little is left.
fn slack(algorithm: &Algorithm) -> u64 {
    let (_, requests, ms) = shape(algorithm);
    let comes = u128::from(requests) * u128::from(SLACK_MS) / u128::from(ms);
    u64::try_from(comes).unwrap_or(u64::MAX).min(largest_block(algorithm))
}

impl Lease {
    fn new(ask: &Ask<'_>, now: u64) -> Self {
        Self {
            name: Name::of(ask.limit, ask.key),
            algorithm: ask.limit.algorithm,
            left: 0,
            until: 0,
            ends: 0,
            block: 1,
            granted_at: 0,
            asked_at: now,
            beside: 0,
            free_at: 0,
            refused: Refused::default(),
            gate: Arc::default(),
        }
    }

    fn available(&self, now: u64) -> u64 {
        if now < self.ends { self.left } else { 0 }
    }

    /// What is said of hits of which `spoken_for` more are given out by the same request; or how many are lacking.
    fn say(&self, n: u64, spoken_for: u64, now: u64) -> Result<Outcome, u64> {
        let (available, wanted) = (self.available(now).saturating_sub(spoken_for), n.max(1));
        if available >= wanted {
            let remaining = (available - n).saturating_add(self.beside);
            return Ok(Outcome { allowed: true, remaining, reset_ms: self.free_at.saturating_sub(now) });
        }
        let needed = wanted - available;
        if now < self.refused.until && needed >= self.refused.needed {
            let remaining = available.saturating_add(self.refused.remaining);
            let reset_ms = self.refused.reset_at.saturating_sub(now);
            return Ok(Outcome { allowed: false, remaining, reset_ms });
        }
        Err(needed)
    }

    fn grant(&mut self, charged: u64, outcome: &Outcome, now: u64) {
        let hold = hold_ms(&self.algorithm);
        self.block = match now.saturating_sub(self.granted_at) {
            soon if soon < hold / 8 => self.block.saturating_mul(2),
            late if late > hold / 2 => self.block / 2,
            _ => self.block,
        }
        .clamp(1, largest_block(&self.algorithm));
        self.left = self.available(now).saturating_add(charged);
        self.free_at = now.saturating_add(outcome.reset_ms);
        self.ends = match self.algorithm {
            Algorithm::FixedWindow { .. } | Algorithm::AlignedWindow { .. } | Algorithm::Calendar { .. } => {
                self.free_at
            }
            _ => u64::MAX,
        };
        self.until = now.saturating_add(hold);
        self.granted_at = now;
        self.beside = outcome.remaining;
        // Of what comes back bit by bit this was all: a call for each bit would be as many as decisions.
        let drained = outcome.remaining == 0 && self.ends == u64::MAX;
        self.refused = match repeats(&self.algorithm) {
            Some(1..) if drained => {
                let until = now.saturating_add(REPEAT_MS.0);
                Refused { until, needed: 1, remaining: 0, reset_at: until }
            }
            _ => Refused::default(),
        };
    }

    fn refuse(&mut self, needed: u64, outcome: &Outcome, now: u64) {
        let least = repeats(&self.algorithm).map_or(0, |_| REPEAT_MS.0);
        let reset_at = now.saturating_add(outcome.reset_ms);
        let until = now.saturating_add(outcome.reset_ms.clamp(least, REPEAT_MS.1));
        self.beside = outcome.remaining;
        self.refused = Refused { until, needed, remaining: outcome.remaining, reset_at };
    }
}

/// The hits that come back while a refusal is repeated, if none of them is lost by that.
fn repeats(algorithm: &Algorithm) -> Option<u128> {
    let (fits, requests, ms) = shape(algorithm);
    let comes = u128::from(requests) * u128::from(REPEAT_MS.0) / u128::from(ms);
    (comes * 8 <= u128::from(fits)).then_some(comes)
}

impl Leases {
    pub(super) fn new() -> Self {
        Self { secret: Secret::random(), leases: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CounterKey, Lease, BuildHasherDefault<AsIs>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides a request by what is lent, if that is enough to tell. None if there is no room for its keys.
    pub(super) fn take(&self, asks: &[Ask<'_>], now: u64) -> Option<Taken> {
        let keys: Vec<CounterKey> = asks.iter().map(|ask| self.secret.counter(ask.limit, ask.key)).collect();
        let mut leases = self.lock();
        let mut given: Vec<u64> = vec![0; asks.len()];
        let (mut outcomes, mut lacks) = (Vec::with_capacity(asks.len()), Vec::new());
        for (at, (ask, key)) in asks.iter().zip(&keys).enumerate() {
            if leases.len() >= CAPACITY && !leases.contains_key(key) {
                return None;
            }
            let Hits::Take(n) = ask.hits else { return None };
            let spoken_for =
                keys[..at].iter().zip(&given).filter(|(other, _)| *other == key).map(|(_, n)| n).sum();
            let lease = leases.entry(*key).or_insert_with(|| Lease::new(ask, now));
            lease.asked_at = now;
            match lease.say(n, spoken_for, now) {
                Ok(outcome) => {
                    given[at] = if outcome.allowed { n } else { 0 };
                    outcomes.push(outcome);
                }
                Err(needed) => {
                    let (block, free) = (lease.block, slack(&lease.algorithm));
                    let question = Question {
                        name: lease.name.clone(),
                        algorithm: lease.algorithm,
                        wanted: Wanted::Block { needed, block, free },
                        role: Role::Shadow,
                        grant: None,
                    };
                    lacks.push(Lack { at, key: *key, gate: lease.gate.clone(), question });
                    // The next ask of the same counter needs its own.
                    given[at] = n;
                }
            }
        }
        if !lacks.is_empty() {
            return Some(Taken::Lacks(lacks));
        }
        if admitted(asks.iter().zip(&outcomes).map(|(ask, outcome)| (ask.role, outcome.allowed))) {
            for (key, n) in keys.iter().zip(given) {
                if let Some(lease) = leases.get_mut(key) {
                    lease.left = lease.left.saturating_sub(n);
                }
            }
        }
        Some(Taken::Decided(outcomes))
    }

    /// Takes in what Redis says of what was lacking.
    pub(super) fn answer(&self, lack: &Lack, answer: &Answer, now: u64) {
        let Wanted::Block { needed, .. } = lack.question.wanted else { return };
        if let Some(lease) = self.lock().get_mut(&lack.key) {
            if answer.outcome.allowed {
                lease.grant(answer.charged, &answer.outcome, now);
            } else {
                lease.refuse(needed, &answer.outcome, now);
            }
        }
    }

    /// Repeats no refusal of what got hits back.
    pub(super) fn forgive(&self, asks: &[Ask<'_>]) {
        let mut returned = asks.iter().filter(|ask| matches!(ask.hits, Hits::Return(_))).peekable();
        if returned.peek().is_none() {
            return;
        }
        let mut leases = self.lock();
        for ask in returned {
            if let Some(lease) = leases.get_mut(&self.secret.counter(ask.limit, ask.key)) {
                lease.refused = Refused::default();
            }
        }
    }

    /// What is to be given back by now; at the end that is everything.
    pub(super) fn sweep(&self, now: u64, end: bool) -> Vec<Question> {
        let mut back = Vec::new();
        self.lock().retain(|_, lease| {
            if lease.left > 0 && (end || now >= lease.until.min(lease.ends)) {
                let left = std::mem::take(&mut lease.left);
                lease.block = (lease.block / 2).max(1);
                if now < lease.ends {
                    back.push(Question {
                        name: lease.name.clone(),
                        algorithm: lease.algorithm,
                        wanted: Wanted::GiveBack { left, until: lease.ends },
                        role: Role::Shadow,
                        grant: None,
                    });
                }
            }
            let idle = now >= lease.asked_at.saturating_add(FORGET_MS);
            lease.left > 0 || !idle || Arc::strong_count(&lease.gate) > 1
        });
        back
    }

    /// Keys with a lease.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
