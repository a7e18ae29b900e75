//! Where counters live. The service asks through [`Counters`]; a store that several replicas share implements the
//! same trait.

mod cells;
mod key;
pub mod memory;

use std::future::Future;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

use crate::model::limit::Limit;
pub use crate::ratelimit::algorithms::Hits;

/// Hits wanted of one counter of one limit.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The limit.
    pub limit: &'a Limit,
    /// The counter's key within the limit: names and values, in order.
    pub key: &'a [Entry],
    /// How much.
    pub hits: Hits,
}

/// The answer to one [`Ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether this limit allows the hits; they are charged only if every limit of the request does. A gauge's hits
    /// are charged in any case ([`charges_refusals`](crate::ratelimit::algorithms::charges_refusals)).
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
    /// Answers each ask, in order. All are charged, or, if any is refused, none: returns and gauges alone always are.
    fn decide(&self, asks: &[Ask<'_>]) -> impl Future<Output = Result<Vec<Outcome>, Unavailable>> + Send;
}
