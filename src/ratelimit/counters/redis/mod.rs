//! Counters that replicas share, in a Redis or a Valkey.
//!
//! One script decides on all counters of a request at once, with Redis's clock. While Redis is away, every limit's
//! [`FailureMode`] says what becomes of requests. What is counted here meanwhile goes on from what Redis said last, and
//! is told Redis when it is back.
//!
//! A cluster runs a script on the counters of one slot, which are those of one key. A request with several keys is
//! decided key by key there; if it does not go through, what the others took is given back. So for a moment it may have
//! taken what another would have been let through with; no more is let through.

mod away;
mod call;
mod lease;
mod link;
#[cfg(test)]
pub(super) mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use away::Ledger;
use call::{Answer, Question, Terms, Wanted};
use lease::{Leases, Taken, is_lent};
pub use link::OpenError;
use link::{CallError, Connection, Link};

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
        let mut connection = self.link.connect().await?;
        self.tell(&mut connection).await?;
        self.link.publish(connection.clone());
        // What was decided here in the meantime.
        self.tell(&mut connection).await
    }

    /// Until the connection is lost.
    async fn watch(&self) {
        let probing = async {
            loop {
                tokio::time::sleep(PROBE_EVERY).await;
                self.give_back(false).await;
                self.link.probe().await;
            }
        };
        tokio::select! {
            () = self.link.until_lost() => {}
            () = probing => {}
        }
    }

    /// Gives back what is lent and not used; at the end that is everything.
    pub async fn give_back(&self, end: bool) {
        let questions = self.leases.sweep(self.link.now(), end);
        let most = if self.link.is_cluster() { 1 } else { TOLD_AT_ONCE };
        for questions in questions.chunks(most) {
            // What cannot be given back is lost until its window ends, which refuses too much, not too little.
            if self.link.ask(questions, self.terms(true)).await.is_err() {
                return;
            }
        }
    }

    /// Tells Redis what was counted here.
    async fn tell(&self, connection: &mut Connection) -> Result<(), CallError> {
        loop {
            let most = if self.link.is_cluster() { 1 } else { TOLD_AT_ONCE };
            let questions = self.ledger.take(most, self.link.now());
            if questions.is_empty() {
                return Ok(());
            }
            let terms = Terms { near: self.link.now(), each: true, ..Terms::default() };
            let told = timeout(TOLD_WITHIN, connection.ask(&questions, terms)).await;
            match told.unwrap_or(Err(CallError::Late)) {
                Ok(_) => {}
                // It may have heard.
                Err(CallError::Late) => return Err(CallError::Late),
                Err(error) => {
                    self.ledger.put_back(questions, self.link.now());
                    return Err(error);
                }
            }
        }
    }

    fn terms(&self, each: bool) -> Terms {
        #[cfg(test)]
        let at = Some(self.at.load(std::sync::atomic::Ordering::Relaxed)).filter(|at| *at > 0);
        #[cfg(not(test))]
        let at = None;
        Terms { at, near: 0, each }
    }

    async fn exact(&self, asks: &[Ask<'_>]) -> Result<Vec<Answer>, CallError> {
        let questions: Vec<Question> = asks.iter().map(Question::of).collect();
        match self.slots(&questions) {
            slots if slots.len() > 1 => self.by_slots(&questions, slots).await,
            _ => Ok(self.link.ask(&questions, self.terms(false)).await?.answers),
        }
    }

    /// Decides slot by slot, and gives back what was taken if the request does not go through.
    async fn by_slots(
        &self,
        questions: &[Question],
        slots: Vec<Vec<usize>>,
    ) -> Result<Vec<Answer>, CallError> {
        let of_slot =
            |slot: &[usize]| -> Vec<Question> { slot.iter().map(|at| questions[*at].clone()).collect() };
        let replies = join_all(slots.iter().map(|slot| {
            let questions = of_slot(slot);
            async move { self.link.ask(&questions, self.terms(true)).await }
        }));
        let replies = replies.await;
        let mut answers: Vec<Option<Answer>> = vec![None; questions.len()];
        let mut failed = None;
        for (slot, reply) in slots.iter().zip(replies) {
            match reply {
                Ok(reply) => {
                    slot.iter().zip(reply.answers).for_each(|(at, answer)| answers[*at] = Some(answer))
                }
                Err(error) => failed = Some(error),
            }
        }
        let known =
            questions.iter().zip(&answers).filter_map(|(question, answer)| Some((question, (*answer)?)));
        let through = failed.is_none()
            && admitted(known.clone().map(|(question, answer)| (question.role, answer.outcome.allowed)));
        if !through {
            let back: Vec<Question> =
                known.filter_map(|(question, answer)| undone(question, &answer)).collect();
            let back = by_tag(&back)
                .into_iter()
                .map(|slot| -> Vec<Question> { slot.into_iter().map(|at| back[at].clone()).collect() });
            join_all(back.map(|questions| async move { self.link.ask(&questions, self.terms(true)).await }))
                .await;
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(answers.into_iter().flatten().collect()),
        }
    }

    /// Decides by what is lent, and has more lent where that is not enough.
    async fn leased(&self, asks: &[Ask<'_>]) -> Result<Vec<Outcome>, CallError> {
        // Others may be faster and leave nothing of what was lent.
        const ROUNDS: usize = 4;
        for _ in 0..ROUNDS {
            let lacks = match self.leases.take(asks, self.now()) {
                None => break,
                Some(Taken::Decided(outcomes)) => return Ok(outcomes),
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
                Some(Taken::Decided(outcomes)) => return Ok(outcomes),
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
        Ok(self.exact(asks).await?.into_iter().map(|answer| answer.outcome).collect())
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
        // What has happened counts, whatever becomes of requests.
        let counts = |ask: &Ask<'_>| mode(ask) == FailureMode::Local || !matches!(ask.hits, Hits::Take(_));
        let local: Vec<Ask<'_>> = asks.iter().filter(|ask| counts(ask)).copied().collect();
        let now = self.link.now();
        let outcomes = self.local.decide_at(&local, Now::from(now));
        // What was late may have been counted there, and is not to be counted twice.
        if !matches!(error, CallError::Late) {
            self.ledger.note(&local, &outcomes, now);
        }
        let mut outcomes = outcomes.into_iter();
        let outcome = |ask: &Ask<'_>| {
            let counted = if counts(ask) { outcomes.next() } else { None };
            counted.filter(|_| mode(ask) == FailureMode::Local).unwrap_or_else(|| {
                let remaining = ask.limit.algorithm.quota().0.into();
                Outcome { allowed: true, remaining, reset_ms: 0 }
            })
        };
        Ok(asks.iter().map(outcome).collect())
    }
}

/// What gives back what was taken for a request that does not go through.
fn undone(question: &Question, answer: &Answer) -> Option<Question> {
    match question.wanted {
        Wanted::Hits(Hits::Take(n))
            if n > 0 && answer.outcome.allowed && !charges_refusals(&question.algorithm) =>
        {
            Some(Question { wanted: Wanted::Hits(Hits::Return(n)), role: Role::Shadow, ..question.clone() })
        }
        _ => None,
    }
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
        let lent = self.options.mode == RedisMode::Leased && asks.iter().all(is_lent);
        let decided = if lent {
            // Who waits for another's call waits no longer than for its own.
            timeout(self.options.deadline, self.leased(asks)).await.unwrap_or(Err(CallError::Late))
        } else {
            self.exact(asks).await.map(|answers| {
                self.leases.forgive(asks);
                self.mirror(asks, &answers);
                answers.into_iter().map(|answer| answer.outcome).collect()
            })
        };
        decided.or_else(|error| self.without(asks, &error))
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
