//! Grants that replicas share. What is left of one is in Redis, beside the counter of its key: the script that counts uses
//! it first, so a hit that was granted is used once, whoever is asked.
//!
//! Which keys have one is in an index, which each replica reads twice a second if its version is another. So while nothing is
//! granted that costs a decision nothing, then a look into the index here, and never a call more; but where hits are lent, a
//! key with a grant has each request asked for until the grant is used up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use redis::{Cmd, cmd};
use tokio::time::{sleep, timeout};

use super::Shared;
use super::call::{Answer, Name, Question, Wanted};
use super::link::{CallError, Live};
use crate::model::limit::{Algorithm, Limit};
use crate::ratelimit::counters::{Ask, Hits, MOST_GRANTS, Unavailable};

/// All in one slot of a cluster; grants are in those of their counters.
const INDEX: &str = "chancery:{grants}:index";
const VERSION: &str = "chancery:{grants}:version";

/// How often the index is looked at.
const READ_EVERY: Duration = Duration::from_millis(500);
/// How long an answer may take that no request waits for.
const WITHIN: Duration = Duration::from_secs(2);
/// The longest grant.
const MOST_MS: u64 = 366 * 86_400_000;
/// How long one that had nothing left is not used. It may have got more, or something back.
const REST_MS: u64 = 500;

/// Names a grant in the index, of which what has ended goes, and says when it ends by Redis's clock; nothing if there is no
/// room. What it names need not be there yet, or any more.
const ENTER: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return false end
local ends = now + ARGV[2]
redis.call('ZADD', KEYS[1], ends, ARGV[1])
redis.call('SET', KEYS[2], time[1] .. '.' .. time[2] .. ' ' .. ARGV[1])
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
redis.call('PEXPIREAT', KEYS[1], last)
redis.call('PEXPIREAT', KEYS[2], last)
return ends";

/// What is left of a grant goes on with the new one, and ends when the index says.
const ADD: &str = "
local left = redis.call('GET', KEYS[1]) or 0
redis.call('SET', KEYS[1], string.format('%.0f', left + ARGV[1]))
redis.call('PEXPIREAT', KEYS[1], ARGV[2])";

#[derive(Clone, Copy, Debug)]
struct Known {
    /// By Redis's clock, like all times here.
    ends: u64,
    rests_until: u64,
}

#[derive(Debug, Default)]
struct Index {
    version: Option<String>,
    known: HashMap<Name, Known>,
}

/// The index as it is known here. A grant of it may be used up.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// How many there are; tells without the lock that there are none.
    count: AtomicUsize,
    index: Mutex<Index>,
}

impl Grants {
    /// What may pay for this.
    fn of(&self, ask: &Ask<'_>, now: u64) -> Option<Name> {
        let pays = !matches!(ask.hits, Hits::Return(_))
            && !matches!(ask.limit.algorithm, Algorithm::Concurrency { .. });
        if self.count.load(Ordering::Acquire) == 0 || !pays {
            return None;
        }
        let name = Name::of_grant(ask.limit, ask.key);
        let known = self.lock().known.get(&name).copied()?;
        (now < known.ends && now >= known.rests_until).then_some(name)
    }

    /// Does not use for a while what had nothing left.
    pub(super) fn rest(&self, questions: &[Question], answers: &[Answer], now: u64) {
        for (question, answer) in questions.iter().zip(answers) {
            let Some(grant) = &question.grant else { continue };
            let (Wanted::Hits(Hits::Take(n)) | Wanted::Hits(Hits::Charge(n))) = question.wanted else {
                continue;
            };
            if n > 0
                && answer.charged == n
                && let Some(known) = self.lock().known.get_mut(grant)
            {
                known.rests_until = now.saturating_add(REST_MS);
            }
        }
    }

    fn is_at(&self, version: Option<&String>) -> bool {
        self.lock().version.as_ref() == version
    }

    /// Takes in the whole index. What it does not have any more goes when it ends.
    fn read(&self, version: Option<String>, listed: Vec<(String, u64)>, now: u64) {
        for (name, ends) in listed {
            self.add(Name(name.into()), ends, now);
        }
        self.lock().version = version;
    }

    fn add(&self, name: Name, ends: u64, now: u64) {
        let mut index = self.lock();
        // More than there can be, unless Redis forgets and is told others.
        let fits = index.known.len() < 2 * MOST_GRANTS || index.known.contains_key(&name);
        if now < ends && fits {
            index.known.insert(name, Known { ends, rests_until: 0 });
        }
        self.count.store(index.known.len(), Ordering::Release);
    }

    fn forget_ended(&self, now: u64) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut index = self.lock();
            index.known.retain(|_, known| now < known.ends);
            self.count.store(index.known.len(), Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn enter(name: &Name, lasts_ms: u64) -> Cmd {
    let mut call = cmd("EVAL");
    call.arg(ENTER).arg(2).arg(INDEX).arg(VERSION).arg(&*name.0).arg(lasts_ms).arg(MOST_GRANTS);
    call
}

fn add(name: &Name, hits: u64, ends: u64) -> Cmd {
    let mut call = cmd("EVAL");
    call.arg(ADD).arg(1).arg(&*name.0).arg(hits).arg(ends);
    call
}

fn of_name(command: &str, name: &str) -> Cmd {
    let mut call = cmd(command);
    call.arg(name);
    call
}

impl Shared {
    pub(super) fn may_have_grant(&self, ask: &Ask<'_>) -> bool {
        self.grants.of(ask, self.link.now()).is_some()
    }

    /// What is asked of Redis, with the grant that may pay.
    pub(super) fn question(&self, ask: &Ask<'_>) -> Question {
        Question { grant: self.grants.of(ask, self.link.now()), ..Question::of(ask) }
    }

    /// Reads which keys have a grant as long as there is a connection. Never ends.
    pub(super) async fn follow_grants(&self) {
        loop {
            if let Some(live) = self.link.live() {
                self.read_grants(&live).await;
            }
            sleep(READ_EVERY).await;
        }
    }

    /// Reads which keys have a grant, if that is not known. What cannot be read is read the next time.
    pub(super) async fn read_grants(&self, live: &Live) {
        let reading = async {
            let version: Option<String> = live.send(&of_name("GET", VERSION)).await?;
            // The version first: what comes in between is read again.
            if !self.grants.is_at(version.as_ref()) {
                let listed = live.send(cmd("ZRANGE").arg(INDEX).arg(0).arg(-1).arg("WITHSCORES")).await?;
                self.grants.read(version, listed, self.link.now());
            }
            Ok::<_, CallError>(())
        };
        match timeout(WITHIN, reading).await.unwrap_or(Err(CallError::Late)) {
            Ok(()) => self.grants.forget_ended(self.link.now()),
            Err(error) => tracing::debug!("cannot read which keys have a grant: {error}"),
        }
    }

    /// Grants more hits to a key of a limit, for so long; those that it has still go with the new ones. Whether there was
    /// room.
    ///
    /// # Errors
    /// When Redis is away, or does not say that it has taken it.
    pub(in crate::ratelimit) async fn grant(
        &self,
        limit: &Limit,
        key: &[Entry],
        hits: u64,
        lasts: Duration,
    ) -> Result<bool, Unavailable> {
        let Some(live) = self.link.live() else {
            return Err(Unavailable("Redis is away; nothing is granted".to_owned()));
        };
        let name = Name::of_grant(limit, key);
        let lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(MOST_MS).clamp(1, MOST_MS);
        let granting = async {
            // Whoever finds nothing there yet looks again.
            let Some(ends) = live.send::<Option<u64>>(&enter(&name, lasts_ms)).await? else {
                return Ok(false);
            };
            let () = live.send(&add(&name, hits, ends)).await?;
            self.grants.add(name, ends, self.link.now());
            Ok::<_, CallError>(true)
        };
        let granted = timeout(WITHIN, granting).await.unwrap_or(Err(CallError::Late));
        granted
            .map_err(|error| Unavailable(format!("{error}; look whether it is granted before it is again")))
    }

    /// What a key has left of what it was granted, which its next requests then use.
    ///
    /// # Errors
    /// When Redis does not say. While it is away no grant is used.
    pub(in crate::ratelimit) async fn granted(
        &self,
        limit: &Limit,
        key: &[Entry],
    ) -> Result<u64, Unavailable> {
        let Some(live) = self.link.live() else { return Ok(0) };
        let name = Name::of_grant(limit, key);
        let looking = async {
            let left: Option<u64> = live.send(&of_name("GET", &name.0)).await?;
            let left = left.unwrap_or(0);
            if left > 0 {
                let lasts: i64 = live.send(&of_name("PTTL", &name.0)).await?;
                let now = self.link.now();
                self.grants.add(name, now.saturating_add_signed(lasts), now);
            }
            Ok::<_, CallError>(left)
        };
        let left = timeout(WITHIN, looking).await.unwrap_or(Err(CallError::Late));
        left.map_err(|error| Unavailable(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limit::Key;
    use crate::ratelimit::algorithms::State;
    use crate::ratelimit::counters::{Outcome, Role};

    #[test]
    fn a_grant_pays_until_it_ends_and_rests_when_it_has_nothing() {
        let limit = |algorithm| Limit::new("l".into(), Key::ClientAddress, algorithm);
        let window = limit(Algorithm::FixedWindow { requests: 1, window_ms: 1 });
        let gauge = limit(Algorithm::Concurrency { limit: 1, lease_ms: 1 });
        let ask = |limit, hits| Ask { limit, key: &[], hits, role: Role::Binding };
        let grants = Grants::default();
        let pays = |limit, hits, now| grants.of(&ask(limit, hits), now).is_some();
        assert!(!pays(&window, Hits::Take(1), 0));
        let name = Name::of_grant(&window, &[]);
        grants.read(Some("1".to_owned()), vec![(name.0.to_string(), 10_000)], 0);
        assert!(grants.is_at(Some(&"1".to_owned())) && !grants.is_at(None));
        assert!(pays(&window, Hits::Take(1), 9_999) && pays(&window, Hits::Charge(1), 0));
        assert!(!pays(&window, Hits::Take(1), 10_000) && !pays(&window, Hits::Return(1), 0));
        assert!(!pays(&gauge, Hits::Take(1), 0), "what is under way cannot be granted");
        let rest = |hits, charged, now| {
            let question = Question { grant: Some(name.clone()), ..Question::of(&ask(&window, hits)) };
            let outcome = Outcome { allowed: true, remaining: 0, reset_ms: 0 };
            grants.rest(
                &[question],
                &[Answer { outcome, charged, idle_ms: 0, state: State::default() }],
                now,
            );
        };
        rest(Hits::Take(2), 1, 100);
        rest(Hits::Take(0), 0, 100);
        assert!(pays(&window, Hits::Take(1), 100), "it has paid, or was not asked to");
        rest(Hits::Take(2), 2, 100);
        assert!(!pays(&window, Hits::Take(1), 599) && pays(&window, Hits::Take(1), 600));
        grants.forget_ended(10_000);
        assert_eq!(grants.count.load(Ordering::Acquire), 0);
    }
}
