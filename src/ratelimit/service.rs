//! Envoy's rate limit service, RLS v3: one call a request, one descriptor a limit.
//!
//! Every descriptor gets a status, in order. The request is let through if every limit allows it, and only then is
//! any charged. A descriptor that names no limit in force is let through and counted: Envoy may still hold a route
//! whose limit has just gone, or already hold one whose limit is about to come.
//!
//! Descriptors of the domain [`crate::model::limit::DOMAIN`] whose first entry names a limit are ours; all others are
//! looked up in the rules of a folder ([`super::envoyproxy`]), if there is one.

use std::sync::Arc;

use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::answer::{self, Decided};
use super::counters::{Ask, Counters, Outcome, admitted};
use super::decisions::Decisions;
use super::envoyproxy::Rules;
use super::subject::{Origin, Subject, subjects};
use crate::model::limit::{DOMAIN, LimitSet};

/// What the service adds to its answers, and when it refuses at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What holds for every limit.
    pub modes: Modes,
    /// The names of headers that tell clients what is left; none are sent without.
    pub headers: Option<Headers>,
    /// Whether the dynamic metadata says of what there is some left.
    pub metadata: bool,
}

/// What holds for every limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// No request is refused.
    pub shadow: bool,
    /// Every limit is a quota: a request is refused only if every group of them is used up.
    pub quota: bool,
}

/// The names of headers that tell clients what is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The requests of the limit.
    pub limit: String,
    /// What is left of them.
    pub remaining: String,
    /// Seconds until there is more.
    pub reset: String,
}

/// The service. A clone is another handle to the same.
pub struct RateLimit<C> {
    limits: watch::Receiver<Arc<LimitSet>>,
    rules: watch::Receiver<Arc<Rules>>,
    counters: Arc<C>,
    decisions: Arc<Decisions>,
    options: Arc<Options>,
}

impl<C> Clone for RateLimit<C> {
    fn clone(&self) -> Self {
        Self {
            limits: self.limits.clone(),
            rules: self.rules.clone(),
            counters: self.counters.clone(),
            decisions: self.decisions.clone(),
            options: self.options.clone(),
        }
    }
}

impl<C: Counters> RateLimit<C> {
    /// The service that decides by the limits of `limits`, as they are at each call, and keeps its counts in
    /// `decisions`.
    pub fn new(limits: watch::Receiver<Arc<LimitSet>>, counters: Arc<C>, decisions: Arc<Decisions>) -> Self {
        let rules = watch::channel(Arc::default()).1;
        Self { limits, rules, counters, decisions, options: Arc::default() }
    }

    /// The same with rules for other domains.
    #[must_use]
    pub fn with_rules(self, rules: watch::Receiver<Arc<Rules>>, options: Options) -> Self {
        Self { rules, options: Arc::new(options), ..self }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.borrow().clone()
    }

    /// Decides on one request.
    ///
    /// # Errors
    /// When the request is none that can be decided, or the counters are not available.
    pub async fn decide(&self, request: &RateLimitRequest) -> Result<RateLimitResponse, Status> {
        if request.domain.is_empty() {
            return Err(Status::invalid_argument("rate limit domain must not be empty"));
        }
        if request.descriptors.is_empty() && request.domain != DOMAIN {
            return Err(Status::invalid_argument("rate limit descriptor list must not be empty"));
        }
        let (limits, rules) = (self.limits.borrow().clone(), self.rules());
        let subjects = subjects(&limits, &rules, request, self.options.modes)?;
        let asks: Vec<Ask<'_>> = subjects
            .iter()
            .filter_map(|subject| match subject {
                Subject::Limited(limited) => Some(limited.ask()),
                _ => None,
            })
            .collect();
        let outcomes = self.count(&asks).await?;
        let allowed = admitted(asks.iter().zip(&outcomes).map(|(ask, outcome)| (ask.role, outcome.allowed)));
        let mut answers = outcomes.iter();
        let decided: Vec<Decided<'_>> = subjects
            .iter()
            .map(|subject| match subject {
                Subject::Limited(_) => (subject, answers.next()),
                _ => (subject, None),
            })
            .collect();
        self.tally(&limits, &decided, allowed);
        Ok(answer::answer(request, &decided, allowed, &self.options))
    }

    async fn count(&self, asks: &[Ask<'_>]) -> Result<Vec<Outcome>, Status> {
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        self.counters.decide(asks).await.map_err(|error| {
            self.decisions.count_failed();
            Status::unavailable(error.to_string())
        })
    }

    fn tally(&self, limits: &LimitSet, decided: &[Decided<'_>], allowed: bool) {
        self.decisions.count_request(allowed);
        for (subject, outcome) in decided {
            match (subject, outcome) {
                (Subject::Limited(limited), Some(outcome)) if allowed || !outcome.allowed => {
                    match limited.origin {
                        Origin::Rule(rule) => rule.tally.count(outcome.allowed),
                        Origin::Ours => {
                            self.decisions.count_limit(limits, &limited.limit.id, outcome.allowed)
                        }
                        Origin::Caller | Origin::Settled => {}
                    }
                }
                (Subject::Unlimited(rule), _) if allowed => rule.tally.count(true),
                (Subject::Unknown, _) => self.decisions.count_unknown(),
                _ => {}
            }
        }
    }
}

#[tonic::async_trait]
impl<C: Counters> RateLimitService for RateLimit<C> {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        self.decide(request.get_ref()).await.map(Response::new)
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
