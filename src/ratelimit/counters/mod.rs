//! Where counters live: in this process, or in a Redis that several replicas share. The service asks through
//! [`Counters`]; [`Store`] is either.

mod cells;
mod key;
pub mod memory;
pub mod redis;
mod saved;
#[cfg(test)]
mod suite;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

use memory::{Memory, Usage};
use redis::{OpenError, Shared};

use crate::model::limit::Limit;
use crate::options::RedisOptions;
pub use crate::ratelimit::algorithms::Hits;

/// Keys that may have a grant at a time.
pub const MOST_GRANTS: usize = 10_000;

/// Hits wanted of one counter of one limit.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The limit.
    pub limit: &'a Limit,
    /// The counter's key within the limit: names and values, in order.
    pub key: &'a [Entry],
    /// How much.
    pub hits: Hits,
    /// What a refusal means for the request.
    pub role: Role,
}

/// What the refusal of one ask means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is refused.
    Binding,
    /// Nothing.
    Shadow,
    /// It is refused if every group of its quotas has a refusal. The number is the group's.
    Quota(usize),
}

/// Whether a request goes through, by the roles of its asks and whether each was allowed.
pub fn admitted(answers: impl Iterator<Item = (Role, bool)> + Clone) -> bool {
    let mut refused_groups = answers.clone().filter_map(|answer| match answer {
        (Role::Quota(group), false) => Some(group),
        _ => None,
    });
    let refused = |group: usize| answers.clone().any(|answer| answer == (Role::Quota(group), false));
    let binding = answers.clone().all(|answer| answer != (Role::Binding, false));
    let exhausted = refused_groups.next().is_some()
        && answers.clone().all(|(role, _)| !matches!(role, Role::Quota(group) if !refused(group)));
    binding && !exhausted
}

/// The answer to one [`Ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether this limit allows the hits; they are charged only if the request goes through. A gauge's hits are
    /// charged in any case ([`charges_refusals`](crate::ratelimit::algorithms::charges_refusals)).
    pub allowed: bool,
    /// Hits that the limit would still allow at once.
    pub remaining: u64,
    /// Milliseconds until the refused hits would be allowed; if allowed, until nothing is used. 0 where that is for
    /// others to say.
    pub reset_ms: u64,
}

/// A store that could not be asked. Envoy's failure mode decides what becomes of the request.
#[derive(Debug, thiserror::Error)]
#[error("the counter store is not available: {0}")]
pub struct Unavailable(pub String);

/// A store of counters.
pub trait Counters: Send + Sync + 'static {
    /// Answers each ask, in order. Those allowed are charged if the request is [`admitted`], else none is: only gauges,
    /// what is to be charged regardless and returns always are.
    fn decide(&self, asks: &[Ask<'_>]) -> impl Future<Output = Result<Vec<Outcome>, Unavailable>> + Send;

    /// What it is like now, if that is known.
    fn state(&self) -> Option<StoreState> {
        None
    }

    /// Who keeps the grants that replicas share, which [`Self::decide`] then uses by itself. Without, each process keeps
    /// its own.
    fn shared(&self) -> Option<&Shared> {
        None
    }
}

/// What a store is like now.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreState {
    /// `memory` or `redis`.
    pub kind: &'static str,
    /// The counters in this process: all, or what is remembered here of those that are elsewhere.
    #[serde(flatten)]
    pub usage: Usage,
    /// How those that are elsewhere are reached.
    #[serde(flatten)]
    pub shared: Option<SharedState>,
}

/// What a store that replicas share is like now.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedState {
    /// Where it is.
    pub address: String,
    /// Whether it answers; if not, each limit's failure mode decides.
    pub available: bool,
    /// Calls so far.
    pub calls: u64,
    /// Calls that had no answer in time, or a bad one.
    pub failures: u64,
    /// Counters that were counted here while it was away, and that it has not been told of yet.
    pub untold: u64,
    /// Counters of which a block of hits is, or was a moment ago, given out here.
    pub leases: u64,
}

/// The store that was asked for.
pub enum Store {
    /// In this process.
    Memory(Arc<Memory>),
    /// In a Redis.
    Redis(Box<Shared>),
}

impl Store {
    /// The store at this Redis, or without one this table.
    ///
    /// # Errors
    /// When there can be no such Redis.
    pub fn open(redis: Option<RedisOptions>, memory: Arc<Memory>) -> Result<Self, OpenError> {
        Ok(match redis {
            Some(options) => Self::Redis(Box::new(Shared::open(options)?)),
            None => Self::Memory(memory),
        })
    }

    /// Keeps the connection to it, if there is one. Never ends.
    pub async fn run(&self) {
        match self {
            Self::Memory(_) => std::future::pending().await,
            Self::Redis(shared) => shared.run().await,
        }
    }

    /// Gives back what was lent to this process.
    pub async fn close(&self) {
        if let Self::Redis(shared) = self {
            shared.give_back(true).await;
        }
    }

    /// Waits until it can be asked, but not for long.
    pub async fn ready(&self) {
        if let Self::Redis(shared) = self {
            shared.ready().await;
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::Memory(Arc::default())
    }
}

impl Counters for Store {
    async fn decide(&self, asks: &[Ask<'_>]) -> Result<Vec<Outcome>, Unavailable> {
        match self {
            Self::Memory(memory) => Counters::decide(&**memory, asks).await,
            // Its future is large, and a decision in memory need not carry it.
            Self::Redis(shared) => Box::pin(shared.decide(asks)).await,
        }
    }

    fn state(&self) -> Option<StoreState> {
        match self {
            Self::Memory(memory) => memory.state(),
            Self::Redis(shared) => shared.state(),
        }
    }

    fn shared(&self) -> Option<&Shared> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(shared) => Some(shared),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.state()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_through_by_the_roles_of_what_is_refused() {
        use Role::{Binding, Quota, Shadow};
        for (answers, expected) in [
            (&[][..], true),
            (&[(Binding, true), (Binding, true)], true),
            (&[(Binding, true), (Binding, false)], false),
            (&[(Binding, true), (Shadow, false)], true),
            (&[(Quota(0), true)], true),
            (&[(Quota(0), false)], false),
            (&[(Quota(0), false), (Quota(1), true)], true),
            (&[(Quota(0), false), (Quota(1), false)], false),
            (&[(Quota(0), false), (Quota(0), true)], false),
            (&[(Quota(0), false), (Quota(0), true), (Quota(1), true)], true),
            (&[(Binding, false), (Quota(0), true)], false),
            (&[(Binding, true), (Quota(0), false)], false),
            (&[(Shadow, false), (Quota(0), true)], true),
        ] {
            assert_eq!(admitted(answers.iter().copied()), expected, "{answers:?}");
        }
    }
}
