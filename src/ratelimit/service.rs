//! Envoy's rate limit service, RLS v3: one call a request, one descriptor a limit.
//!
//! Every descriptor gets a status, in order. The request is let through if every limit allows it, and only then is
//! any charged. A descriptor that names no limit in force is let through and counted: Envoy may still hold a route
//! whose limit has just gone, or already hold one whose limit is about to come.
//!
//! Descriptors of the domain [`crate::model::limit::DOMAIN`] whose first entry names a limit are ours; all others are
//! looked up in the rules of a folder ([`super::envoyproxy`]), if there is one.

use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use smallvec::SmallVec;
use tokio::sync::watch;
use tonic::{Code, Status};

use super::algorithms::charges_refusals;
use super::answer::{self, Decided};
use super::counters::{Ask, Counters, Hits, Outcome, Role, admitted};
use super::decisions::Decisions;
use super::envoyproxy::{NearLimitRatio, Rules, stats};
use super::ietf::Ietf;
use super::metrics;
use super::quota::{Covered, Grants};
use super::report::{self, Origins, Report};
use super::subject::{Origin, Subject, subjects};
use crate::model::limit::{DOMAIN, LimitSet};

/// What the service adds to its answers, and when it refuses at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// What holds for every limit.
    pub modes: Modes,
    /// The names of headers that tell clients what is left; none are sent without.
    pub headers: Option<Headers>,
    /// What clients are told in the headers of the IETF's draft, if anything.
    pub ietf: Option<Ietf>,
    /// Whether the dynamic metadata says of what there is some left.
    pub metadata: bool,
    /// The part of a rule's limit from which on metrics call it near.
    pub near_limit: NearLimitRatio,
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
    grants: Arc<Grants>,
    options: Arc<Options>,
}

impl<C> Clone for RateLimit<C> {
    fn clone(&self) -> Self {
        Self {
            limits: self.limits.clone(),
            rules: self.rules.clone(),
            counters: self.counters.clone(),
            decisions: self.decisions.clone(),
            grants: self.grants.clone(),
            options: self.options.clone(),
        }
    }
}

impl<C: Counters> RateLimit<C> {
    /// The service that decides by the limits of `limits`, as they are at each call, and keeps its counts in
    /// `decisions`.
    pub fn new(limits: watch::Receiver<Arc<LimitSet>>, counters: Arc<C>, decisions: Arc<Decisions>) -> Self {
        let rules = watch::channel(Arc::default()).1;
        Self { limits, rules, counters, decisions, grants: Arc::default(), options: Arc::default() }
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

    pub(super) fn limits(&self) -> Arc<LimitSet> {
        self.limits.borrow().clone()
    }

    pub(super) fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    pub(super) fn counters(&self) -> &C {
        &self.counters
    }

    pub(super) fn grants(&self) -> &Grants {
        &self.grants
    }

    /// What was decided, the limits in force and the keys with the most hits.
    #[must_use]
    pub fn report(&self) -> Report {
        let limits = self.limits();
        report::report(&self.decisions, &limits, &self.rules(), &Origins::new(), self.counters.state())
    }

    /// The metrics as text.
    ///
    /// # Errors
    /// When the text cannot be written.
    pub fn metrics(&self) -> Result<String, std::fmt::Error> {
        metrics::text(self.decisions.clone(), self.rules(), self.counters.state())
    }

    /// Decides on one request.
    ///
    /// # Errors
    /// When the request is none that can be decided, or the counters are not available.
    pub async fn decide(&self, request: &RateLimitRequest) -> Result<RateLimitResponse, Status> {
        let begun = Instant::now();
        let answer = self.decide_untimed(request).await;
        self.decisions.observe(begun.elapsed());
        if answer.as_ref().is_err_and(|status| status.code() == Code::InvalidArgument) {
            self.rules.borrow().stats.invalid();
        }
        answer
    }

    async fn decide_untimed(&self, request: &RateLimitRequest) -> Result<RateLimitResponse, Status> {
        if request.domain.is_empty() {
            return Err(Status::invalid_argument("rate limit domain must not be empty"));
        }
        if request.descriptors.is_empty() && request.domain != DOMAIN {
            return Err(Status::invalid_argument("rate limit descriptor list must not be empty"));
        }
        let (limits, rules) = (self.limits(), self.rules());
        let subjects = subjects(&limits, &rules, request, self.options.modes)?;
        let mut asks: SmallVec<[Ask<'_>; 4]> = subjects
            .iter()
            .filter_map(|subject| match subject {
                Subject::Limited(limited) => Some(limited.ask()),
                _ => None,
            })
            .collect();
        let (outcomes, allowed) = self.count(&mut asks).await?;
        let mut answers = outcomes.iter();
        let decided: SmallVec<[Decided<'_>; 4]> = subjects
            .iter()
            .map(|subject| match subject {
                Subject::Limited(_) => (subject, answers.next()),
                _ => (subject, None),
            })
            .collect();
        self.tally(&limits, &decided, allowed);
        self.count_hits(&rules, request, &decided, allowed);
        Ok(answer::answer(request, &decided, allowed, &self.options))
    }

    /// What the counters say of each ask, and whether the request goes through. What a key was granted is used first.
    async fn count(&self, asks: &mut [Ask<'_>]) -> Result<(Vec<Outcome>, bool), Status> {
        if asks.is_empty() {
            return Ok((Vec::new(), true));
        }
        let covered = match self.grants.is_empty() {
            true => Covered::default(),
            false => Covered::take(&self.grants, asks, |ask| {
                self.decisions.top.fingerprint(&ask.limit.id, ask.key)
            }),
        };
        let counted = self.counters.decide(asks).await;
        let mut outcomes = counted.map_err(|error| {
            covered.give_back(&self.grants);
            self.decisions.count_failed();
            Status::unavailable(error.to_string())
        })?;
        covered.allow(&mut outcomes);
        let allowed = admitted(asks.iter().zip(&outcomes).map(|(ask, outcome)| (ask.role, outcome.allowed)));
        if !allowed {
            covered.give_back(&self.grants);
        }
        covered.add_left(&self.grants, &mut outcomes);
        Ok((outcomes, allowed))
    }

    /// Gives back the requests under way that a call took whose answer nobody waited for.
    pub(super) async fn give_back(&self, request: &RateLimitRequest) {
        let (limits, rules) = (self.limits(), self.rules());
        let Ok(subjects) = subjects(&limits, &rules, request, self.options.modes) else { return };
        let asks: SmallVec<[Ask<'_>; 4]> = subjects.iter().filter_map(returned).collect();
        if !asks.is_empty() {
            // What cannot be given back counts until its lease ends.
            let _ = self.counters.decide(&asks).await;
        }
    }

    fn tally(&self, limits: &LimitSet, decided: &[Decided<'_>], allowed: bool) {
        self.decisions.count_request(allowed);
        for (subject, outcome) in decided {
            match (subject, outcome) {
                (Subject::Limited(limited), Some(outcome)) if allowed || !outcome.allowed => {
                    match limited.origin {
                        Origin::Rule(rule) => {
                            self.decisions.count(&rule.counts.tally, &limited.ask(), outcome)
                        }
                        Origin::Ours => self.decisions.count_ours(limits, &limited.ask(), outcome, None),
                        Origin::Told => {
                            let told = Some(limited.limit.algorithm);
                            self.decisions.count_ours(limits, &limited.ask(), outcome, told);
                        }
                        Origin::Caller | Origin::Settled => {}
                    }
                }
                (Subject::Unlimited(rule), _) if allowed => {
                    self.decisions.count_tally(&rule.counts.tally, true, Role::Binding);
                }
                (Subject::Unknown, _) => self.decisions.count_unknown(),
                _ => {}
            }
        }
    }
}

/// What gives back what this took of a gauge.
fn returned<'a>(subject: &'a Subject<'_>) -> Option<Ask<'a>> {
    let Subject::Limited(limited) = subject else { return None };
    match limited.hits {
        Hits::Take(hits) if charges_refusals(&limited.limit.algorithm) => {
            Some(Ask { hits: Hits::Return(hits), ..limited.ask() })
        }
        _ => None,
    }
}

impl<C> RateLimit<C> {
    /// Counts as envoyproxy/ratelimit does: each rule's hits, whatever became of the request.
    fn count_hits(&self, rules: &Rules, request: &RateLimitRequest, decided: &[Decided<'_>], allowed: bool) {
        let mut refused = false;
        for ((subject, outcome), descriptor) in decided.iter().zip(&request.descriptors) {
            let (Subject::Limited(limited), Some(outcome)) = (subject, outcome) else { continue };
            refused |= !outcome.allowed && !limited.is_shadow();
            let Origin::Rule(rule) = limited.origin else { continue };
            let (hits, charged) = match limited.hits {
                Hits::Take(hits) => (hits, allowed),
                Hits::Charge(hits) => (hits, true),
                Hits::Return(_) => continue,
            };
            if hits > 0 {
                let hits = stats::hits(rule, hits, outcome, charged, self.options.near_limit);
                rules.stats.count(rule, &descriptor.entries, &hits);
            }
        }
        if refused && self.options.modes.shadow {
            rules.stats.shadowed();
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
