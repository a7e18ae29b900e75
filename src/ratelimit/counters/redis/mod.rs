//! Counters that replicas share, in a Redis or a Valkey.
//!
//! One script decides on all counters of a request at once, with Redis's clock. While Redis is away, every limit's
//! [`FailureMode`] says what becomes of requests. What is counted here meanwhile goes on from what Redis said last, and
//! is told Redis when it is back.
//!
//! A cluster runs a script on the counters of one slot, so a request with several keys is decided key by key there
//! (`split`).

mod away;
mod call;
#[cfg(test)]
mod cluster_tests;
mod grants;
mod lease;
mod link;
mod own;
#[cfg(test)]
pub(crate) mod server;
mod slots;
mod source;
mod split;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use away::Ledger;
#[cfg(test)]
use call::Name;
use call::{Answer, Question, Terms};
use grants::Grants;
use lease::{Leases, Taken, is_lent};
use link::{CallError, Link, Live};
pub use source::OpenError;

use super::memory::Memory;
use super::{Ask, Counters, Hits, Outcome, Role, SharedState, StoreState, Unavailable, admitted};
use crate::model::limit::FailureMode;
use crate::options::{RedisMode, RedisOptions};
use crate::ratelimit::algorithms::{Now, charges_refusals};

/// How often Redis is tried while it is away, and asked whether it is there while it is.
const RETRY_EVERY: Duration = Duration::from_millis(100);
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// How long the first connection is waited for.
const FIRST_WITHIN: Duration = Duration::from_secs(2);

/// Counters that Redis is told of at once when it is back, and how long it may take.
const TOLD_AT_ONCE: usize = 256;
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// The store.
pub struct Shared {
    options: RedisOptions,
    link: Link,
    /// What Redis said last of each counter, to go on from while it is away.
    local: Memory,
    ledger: Ledger,
    leases: Leases,
    grants: Grants,
    /// The time to count at, for tests.
    #[cfg(test)]
    at: std::sync::atomic::AtomicU64,
}

impl Shared {
    /// A store at this Redis. It is asked once [`Self::run`] runs.
    ///
    /// # Errors
    /// When a file cannot be read, or there can be no such Redis.
    pub fn open(options: RedisOptions) -> Result<Self, OpenError> {
        Ok(Self {
            link: Link::open(&options)?,
            options,
            local: Memory::default(),
            ledger: Ledger::default(),
            leases: Leases::new(),
            grants: Grants::default(),
            #[cfg(test)]
            at: std::sync::atomic::AtomicU64::new(0),
        })
    }

    /// Keeps the connection. Never ends.
    pub async fn run(&self) {
        let mut said = None;
        loop {
            match self.connect().await {
                Ok(()) => {
                    tracing::info!(redis = %self.options.address, "connected; counters are shared");
                    said = None;
                    self.watch().await;
                }
                Err(error) => {
                    let text = error.to_string();
                    if said.as_ref() != Some(&text) {
                        tracing::warn!(redis = %self.options.address, "cannot be used: {text}");
                        said = Some(text);
                    }
                }
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    /// Waits for the first connection, but not for long.
    pub async fn ready(&self) {
        // Without one, decisions are made here.
        let _ = timeout(FIRST_WITHIN, self.link.until_connected()).await;
    }

    async fn connect(&self) -> Result<(), CallError> {
        let live = self.link.connect().await?;
        // One server of a cluster that is away keeps nobody from the others.
        if !self.link.is_cluster() {
            self.tell(&live).await?;
            self.read_grants(&live).await;
        }
        self.link.publish(live.clone());
        // What was decided here in the meantime. What cannot be told now is told later.
        let _ = self.tell(&live).await;
        Ok(())
    }

    /// Until the connection is lost.
    async fn watch(&self) {
        let probing = async {
            loop {
                tokio::time::sleep(PROBE_EVERY).await;
                self.give_back(false).await;
                self.link.probe().await;
                if let Some(live) = self.link.live() {
                    // What was decided here when the connection was just made, or while one server was away.
                    let _ = self.tell(&live).await;
                }
            }
        };
        tokio::select! {
            () = self.link.until_lost() => {}
            () = probing => {}
            () = self.follow_grants() => {}
        }
    }

    /// Gives back what is lent and not used; at the end that is everything.
    pub async fn give_back(&self, end: bool) {
        let questions = self.leases.sweep(self.link.now(), end);
        for questions in self.together(questions) {
            // What cannot be given back is lost until its window ends, which refuses too much, not too little.
            if self.link.ask(&questions, self.terms(true)).await.is_err() && !self.link.is_cluster() {
                return;
            }
        }
    }

    /// Tells Redis what was counted here.
    async fn tell(&self, live: &Live) -> Result<(), CallError> {
        for peeks in self.together(self.ledger.peeks()) {
            if !self.hears(&peeks[0]).await {
                continue;
            }
            let (untold, now) = (self.ledger.take(&peeks), self.link.now());
            let questions: Vec<Question> =
                untold.iter().flat_map(|(name, entry)| entry.questions(name, now)).collect();
            if questions.is_empty() {
                continue;
            }
            let terms = Terms { near: now, each: true, ..Terms::default() };
            match timeout(TOLD_WITHIN, live.ask(&questions, terms)).await {
                Ok(Ok(_)) => {}
                // It may have heard.
                Ok(Err(CallError::Late)) | Err(_) => return Err(CallError::Late),
                Ok(Err(error)) => {
                    self.ledger.put_back(untold, self.link.now());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Whether the server that counts this answers: in a cluster others may, and it may not.
    async fn hears(&self, peek: &Question) -> bool {
        !self.link.is_cluster() || self.link.ask(std::slice::from_ref(peek), self.terms(true)).await.is_ok()
    }

    /// The questions that one call may ask.
    fn together(&self, questions: Vec<Question>) -> Vec<Vec<Question>> {
        if self.link.is_cluster() {
            let slots = by_tag(&questions).into_iter();
            return slots.map(|slot| slot.into_iter().map(|at| questions[at].clone()).collect()).collect();
        }
        questions.chunks(TOLD_AT_ONCE).map(<[_]>::to_vec).collect()
    }

    fn terms(&self, each: bool) -> Terms {
        #[cfg(test)]
        let at = Some(self.at.load(std::sync::atomic::Ordering::Relaxed)).filter(|at| *at > 0);
        #[cfg(not(test))]
        let at = None;
        Terms { at, near: 0, each }
    }

    async fn exact(&self, asks: &[Ask<'_>]) -> Result<Vec<Outcome>, Unavailable> {
        let questions: Vec<Question> = asks.iter().map(|ask| self.question(ask)).collect();
        let decided = match self.slots(&questions) {
            slots if slots.len() > 1 => self.by_slots(asks, &questions, slots).await,
            _ => match self.link.ask(&questions, self.terms(false)).await {
                Ok(reply) => {
                    self.mirror(asks, &reply.answers);
                    self.grants.rest(&questions, &reply.answers, reply.now);
                    Ok(reply.answers.into_iter().map(|answer| answer.outcome).collect())
                }
                Err(error) => self.without(asks, &error),
            },
        };
        self.leases.forgive(asks);
        decided
    }

    /// Decides by what is lent, and has more lent where that is not enough. None if that cannot tell.
    async fn leased(&self, asks: &[Ask<'_>]) -> Result<Option<Vec<Outcome>>, CallError> {
        // Others may be faster and leave nothing of what was lent.
        const ROUNDS: usize = 4;
        for _ in 0..ROUNDS {
            let lacks = match self.leases.take(asks, self.now()) {
                None => break,
                Some(Taken::Decided(outcomes)) => return Ok(Some(outcomes)),
                Some(Taken::Lacks(lacks)) => lacks,
            };
            let mut gates: Vec<_> = lacks.iter().map(|lack| (lack.key, lack.gate.clone())).collect();
            gates.sort_by_key(|(key, _)| *key);
            gates.dedup_by_key(|(key, _)| *key);
            let mut held = Vec::with_capacity(gates.len());
            for (_, gate) in gates {
                held.push(gate.lock_owned().await);
            }
            let lacks = match self.leases.take(asks, self.now()) {
                None => break,
                Some(Taken::Decided(outcomes)) => return Ok(Some(outcomes)),
                Some(Taken::Lacks(lacks)) => lacks,
            };
            let questions: Vec<Question> = lacks.iter().map(|lack| lack.question.clone()).collect();
            for slot in self.slots(&questions) {
                let asked: Vec<Question> = slot.iter().map(|at| questions[*at].clone()).collect();
                let reply = self.link.ask(&asked, self.terms(true)).await?;
                for (at, answer) in slot.into_iter().zip(&reply.answers) {
                    self.leases.answer(&lacks[at], answer, reply.now);
                    self.mirror(&asks[lacks[at].at..=lacks[at].at], std::slice::from_ref(answer));
                }
            }
        }
        Ok(None)
    }

    /// The time by which what is lent is told.
    fn now(&self) -> u64 {
        self.terms(true).at.unwrap_or_else(|| self.link.now())
    }

    /// The questions that one call may ask, by their place: all, but in a cluster.
    fn slots(&self, questions: &[Question]) -> Vec<Vec<usize>> {
        if self.link.is_cluster() { by_tag(questions) } else { vec![(0..questions.len()).collect()] }
    }

    /// Remembers what Redis said.
    fn mirror(&self, asks: &[Ask<'_>], answers: &[Answer]) {
        let now = self.link.now();
        for (ask, answer) in asks.iter().zip(answers) {
            self.local.put(ask, answer.state, now, now.saturating_add(answer.idle_ms));
        }
    }

    /// Decides without Redis, as each limit has it.
    fn without(&self, asks: &[Ask<'_>], error: &CallError) -> Result<Vec<Outcome>, Unavailable> {
        let mode = |ask: &Ask<'_>| ask.limit.failure_mode.unwrap_or(self.options.failure_mode);
        let decides = |ask: &Ask<'_>| ask.role != Role::Shadow && !matches!(ask.hits, Hits::Return(_));
        if asks.iter().any(|ask| decides(ask) && mode(ask) == FailureMode::Closed) {
            return Err(Unavailable(error.to_string()));
        }
        let (alone, others): (Vec<_>, Vec<_>) = (0..asks.len()).partition(|at| {
            mode(&asks[*at]) == FailureMode::Local || !matches!(asks[*at].hits, Hits::Take(_))
        });
        let alone: Vec<(usize, Ask<'_>)> = alone.into_iter().map(|at| (at, asks[at])).collect();
        let decided = self.count_here(&alone, error);
        let answers = alone.iter().zip(&decided).map(|((_, ask), outcome)| (ask.role, outcome.allowed));
        let goes_through = admitted(answers);
        // What is let through unasked is taken all the same, so that what it gives back later was there.
        let taken = others.into_iter().map(|at| (at, charged(&asks[at])));
        let is_taken = |ask: &Ask<'_>| goes_through || charges_refusals(&ask.limit.algorithm);
        let taken: Vec<_> = taken.filter(|(_, ask)| is_taken(ask)).collect();
        self.count_here(&taken, error);
        let mut outcomes: Vec<Outcome> = asks.iter().map(let_through).collect();
        for ((at, ask), outcome) in alone.iter().zip(decided) {
            if mode(ask) == FailureMode::Local {
                outcomes[*at] = outcome;
            }
        }
        Ok(outcomes)
    }

    /// Counts here, for Redis to be told later.
    fn count_here(&self, asks: &[(usize, Ask<'_>)], error: &CallError) -> Vec<Outcome> {
        let (asks, now): (Vec<Ask<'_>>, _) = (asks.iter().map(|(_, ask)| *ask).collect(), self.link.now());
        let outcomes = self.local.decide_at(&asks, Now::from(now));
        // What was late may have been counted there, and is not to be counted twice.
        if !matches!(error, CallError::Late) {
            self.ledger.note(&asks, &outcomes, now);
        }
        outcomes
    }
}

/// The same, taken whatever there is left.
fn charged<'a>(ask: &Ask<'a>) -> Ask<'a> {
    match ask.hits {
        Hits::Take(hits) => Ask { hits: Hits::Charge(hits), role: Role::Shadow, ..*ask },
        Hits::Charge(_) | Hits::Return(_) => *ask,
    }
}

/// What is said of what nobody was asked about.
fn let_through(ask: &Ask<'_>) -> Outcome {
    Outcome { allowed: true, remaining: ask.limit.algorithm.quota().0.into(), reset_ms: 0 }
}

/// The questions that one call may ask, by their place.
fn by_tag(questions: &[Question]) -> Vec<Vec<usize>> {
    let mut slots: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, question) in questions.iter().enumerate() {
        slots.entry(question.name.tag()).or_default().push(at);
    }
    slots.into_values().collect()
}

impl Counters for Shared {
    async fn decide(&self, asks: &[Ask<'_>]) -> Result<Vec<Outcome>, Unavailable> {
        let may_be_lent = |ask: &Ask<'_>| is_lent(ask) && !self.may_have_grant(ask);
        if self.options.mode != RedisMode::Leased || !asks.iter().all(may_be_lent) {
            return self.exact(asks).await;
        }
        let lent = async {
            match self.leased(asks).await {
                Ok(Some(outcomes)) => Ok(outcomes),
                Ok(None) => self.exact(asks).await,
                Err(error) => self.without(asks, &error),
            }
        };
        // Who waits for another's call waits no longer than for its own.
        let lent = timeout(self.options.deadline, lent).await;
        lent.unwrap_or_else(|_| self.without(asks, &CallError::Late))
    }

    fn state(&self) -> Option<StoreState> {
        let (calls, failures) = self.link.calls();
        let shared = SharedState {
            address: self.options.address.to_string(),
            available: self.link.is_connected(),
            calls,
            failures,
            untold: self.ledger.len() as u64,
            leases: self.leases.len() as u64,
        };
        Some(StoreState { kind: "redis", usage: self.local.usage(), shared: Some(shared) })
    }

    fn shared(&self) -> Option<&Shared> {
        Some(self)
    }
}

#[cfg(test)]
impl Shared {
    /// A store that is connected.
    pub(super) async fn connected(options: RedisOptions) -> Self {
        let shared = Self::open(options).unwrap();
        shared.connect().await.unwrap();
        shared
    }

    /// Answers as of the time `now`.
    pub(super) async fn decide_at(&self, asks: &[Ask<'_>], now: u64) -> Vec<Outcome> {
        self.at.store(now, std::sync::atomic::Ordering::Relaxed);
        self.decide(asks).await.unwrap()
    }
}
