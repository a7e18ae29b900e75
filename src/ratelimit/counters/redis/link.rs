//! The connection to Redis: made again whenever it is lost, and only ever used while Redis answers in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::cluster_routing::Slot;
use redis::{Cmd, FromRedisValue, RedisError};
use tokio::sync::watch;
use tokio::time::timeout;

use super::call::{self, Question, Reply, Terms};
use super::own;
use super::slots::Slots;
use super::source::{CONNECT_WITHIN, Connection, OpenError, Server, Source};
use crate::options::RedisOptions;

/// So many answers in a row that do not come in time open the circuit; any other failure does at once.
pub(super) const LATE: u32 = 3;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// There is no connection.
    #[error("Redis is away")]
    Away,
    /// It may have been counted there, and may yet be.
    #[error("Redis did not answer in time")]
    Late,
    /// It was not counted there, unless the connection broke just then.
    #[error("Redis: {0}")]
    Failed(RedisError),
    /// Something else than this script answered.
    #[error("Redis answered something else")]
    Unreadable,
    /// There is nothing to connect to.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<RedisError> for CallError {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() { Self::Late } else { Self::Failed(error) }
    }
}

impl CallError {
    fn is_of_connection(&self) -> bool {
        matches!(self, Self::Failed(error) if error.is_connection_dropped() || error.is_io_error())
    }
}

/// A connection in use.
pub(super) struct Live {
    /// No other has it.
    pub(super) number: u64,
    /// Where more of the kind come from.
    pub(super) source: Source,
    /// The one that all threads share.
    connection: Connection,
}

impl Live {
    fn new(source: Source, connection: Connection) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), source, connection }
    }

    /// Asks, without a deadline.
    pub(super) async fn ask(&self, questions: &[Question], terms: Terms) -> Result<Reply, CallError> {
        ask(self.connection.clone(), questions, terms).await
    }

    /// Sends something else, and waits as long for the answer as it takes.
    pub(super) async fn send<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CallError> {
        let value = self.connection.clone().send(command).await?;
        redis::from_redis_value(value).map_err(|_| CallError::Unreadable)
    }
}

async fn ask(mut connection: Connection, questions: &[Question], terms: Terms) -> Result<Reply, CallError> {
    let known = connection.send(&call::by_name(questions, terms)).await;
    let value = match known {
        // Also of a server that has just come to a cluster, or that was a replica a moment ago.
        Err(error) if call::is_unknown(&error) => connection.send(&call::in_full(questions, terms)).await?,
        known => known?,
    };
    call::read(&value, questions.len()).ok_or(CallError::Unreadable)
}

/// The connection, if Redis answers. Whoever asks finds out that it does not; [`Link::connect`] makes a new one.
pub(super) struct Link {
    server: Server,
    deadline: Duration,
    live: watch::Sender<Option<Arc<Live>>>,
    slots: Slots,
    late: Late,
    calls: AtomicU64,
    failures: AtomicU64,
    clock: Clock,
}

impl Link {
    pub(super) fn open(options: &RedisOptions) -> Result<Self, OpenError> {
        Ok(Self {
            server: Server::open(options)?,
            deadline: options.deadline,
            live: watch::channel(None).0,
            slots: Slots::default(),
            late: Late::default(),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            clock: Clock::new(),
        })
    }

    /// Redis's clock, more or less.
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.live.borrow().is_some()
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.server.is_cluster()
    }

    /// Calls so far, and how many of them had no answer.
    pub(super) fn calls(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// Waits until there is a connection.
    pub(super) async fn until_connected(&self) {
        // The sender is here, so it does not end.
        let _ = self.live.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits until there is none any more.
    pub(super) async fn until_lost(&self) {
        let mut live = self.live.subscribe();
        let _ = live.wait_for(Option::is_none).await;
    }

    /// Asks within the deadline. In a cluster all is about one slot.
    pub(super) async fn ask(&self, questions: &[Question], terms: Terms) -> Result<Reply, CallError> {
        let live = self.live.borrow().clone().ok_or(CallError::Away)?;
        let slot = questions.first().filter(|_| self.is_cluster());
        let slot = slot.map(|question| Slot::for_key(question.name.0.as_bytes()));
        let begun = Instant::now();
        if slot.is_some_and(|slot| !self.slots.asks(slot, begun)) {
            return Err(CallError::Away);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        let own = self.own(&live);
        let is_own = own.is_some();
        let connection = own.unwrap_or_else(|| live.connection.clone());
        let terms = Terms { near: self.now(), ..terms };
        let asked =
            timeout(self.deadline, ask(connection, questions, terms)).await.unwrap_or(Err(CallError::Late));
        match &asked {
            Ok(reply) => {
                self.clock.set(reply.now);
                self.late.none();
                slot.inspect(|slot| self.slots.answered(*slot));
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                match slot {
                    Some(slot) => self.miss(slot, error, begun),
                    // That one broke says nothing of the others.
                    None if is_own && error.is_of_connection() => own::forget(&live),
                    None => self.note(&live, error, begun),
                }
            }
        }
        asked
    }

    /// This thread's connection beside the one in use, if it has one by now.
    pub(super) fn own(&self, live: &Arc<Live>) -> Option<Connection> {
        own::beside(live, &self.live)
    }

    /// One server of a cluster does not answer, which says nothing of the others.
    fn miss(&self, slot: Slot, error: &CallError, begun: Instant) {
        if self.slots.miss(slot, matches!(error, CallError::Late), begun, Instant::now()) {
            tracing::debug!("{error}; requests for {slot:?} are decided here until it is back");
        }
    }

    pub(super) fn note(&self, live: &Live, error: &CallError, begun: Instant) {
        // Whichever server of a cluster was asked, it says little of the others.
        let late = matches!(error, CallError::Late) || self.is_cluster();
        if !late || self.late.note(self.clock.micros(begun), self.clock.micros(Instant::now())) >= LATE {
            self.lose(live, error);
        }
    }

    /// What fails of a connection that has been replaced says nothing of the new one.
    fn lose(&self, lost: &Live, error: &CallError) {
        let of_it = |live: &Arc<Live>| live.number == lost.number;
        if self.live.send_if_modified(|live| live.take_if(|live| of_it(live)).is_some()) {
            tracing::warn!("{error}; requests are decided here until it is back");
        }
    }

    /// Connects, and makes sure that Redis answers as fast as decisions need it.
    pub(super) async fn connect(&self) -> Result<Arc<Live>, CallError> {
        let connecting = async {
            let source = self.server.source().await?;
            let connection = source.connect().await?;
            let live = Live::new(source, connection);
            // The first call brings the script, and what is cold is slow.
            live.ask(&[], Terms::default()).await?;
            Ok::<_, CallError>(live)
        };
        let live = timeout(CONNECT_WITHIN, connecting).await.map_err(|_| CallError::Late)??;
        let probe = timeout(self.deadline, live.ask(&[], Terms::default()));
        let reply = probe.await.map_err(|_| CallError::Late)??;
        self.clock.set(reply.now);
        Ok(Arc::new(live))
    }

    /// Has requests decided by Redis again.
    pub(super) fn publish(&self, live: Arc<Live>) {
        self.late.none();
        self.slots.clear();
        self.live.send_replace(Some(live));
    }

    /// The connection in use, if there is one.
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        self.live.borrow().clone()
    }

    /// Asks whether Redis is still there, so that it is known before a request comes.
    pub(super) async fn probe(&self) {
        let Some(live) = self.live() else { return };
        let begun = Instant::now();
        let asked = timeout(self.deadline, live.ask(&[], Terms::default())).await;
        match asked.unwrap_or(Err(CallError::Late)) {
            Ok(reply) => {
                self.clock.set(reply.now);
                self.late.none();
                self.slots.sweep(begun);
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                self.note(&live, &error, begun);
            }
        }
    }
}

/// Answers that did not come in time. Those that were waited for at once are one.
#[derive(Default)]
struct Late {
    count: AtomicU32,
    /// When the last one was given up.
    at: AtomicU64,
}

impl Late {
    fn none(&self) {
        // Every answer comes by here, and hardly any after a late one.
        if self.count.load(Ordering::Relaxed) > 0 {
            self.count.store(0, Ordering::Relaxed);
        }
    }

    /// How many there are now in a row, by when the call was begun and when it was given up.
    fn note(&self, begun: u64, now: u64) -> u32 {
        let at = self.at.load(Ordering::Relaxed);
        let next =
            begun >= at && self.at.compare_exchange(at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        self.count.fetch_add(u32::from(next), Ordering::Relaxed) + u32::from(next)
    }
}

/// The clock of Redis, by what it said last.
struct Clock {
    epoch: Instant,
    /// What Redis's clock showed at the epoch; 0 until it is known.
    offset: AtomicU64,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { epoch: Instant::now(), offset: AtomicU64::new(0) };
        // Until Redis has said, its clock is taken to be right, as ours is.
        let now = crate::clock::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        clock.set(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        clock
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }

    fn elapsed(&self) -> u64 {
        self.micros(Instant::now()) / 1_000
    }

    fn now(&self) -> u64 {
        self.offset.load(Ordering::Relaxed).saturating_add(self.elapsed())
    }

    fn set(&self, now: u64) {
        self.offset.store(now.saturating_sub(self.elapsed()), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_waited_for_at_once_is_late_once() {
        let late = Late::default();
        assert_eq!([1, 2, 3].map(|begun| late.note(begun, 10)), [1, 1, 1]);
        assert_eq!([9, 10, 11].map(|begun| late.note(begun, 20)), [1, 2, 2]);
        assert_eq!(late.note(20, 30), 3);
        late.none();
        assert_eq!(late.note(30, 40), 1);
    }
}
