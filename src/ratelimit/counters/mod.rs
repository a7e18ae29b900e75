//! Where counters live. The service asks through [`Counters`]; a store that several replicas share implements the
//! same trait.

mod cells;
mod key;
pub mod memory;
mod saved;

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

    /// What it holds, if that is in this process.
    fn usage(&self) -> Option<memory::Usage> {
        None
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
