//! Envoy's rate limit service, RLS v3: one call a request, one descriptor a limit.
//!
//! Every descriptor gets a status, in order. The request is let through if every limit allows it, and only then is
//! any charged. A descriptor that names no limit in force is let through and counted: Envoy may still hold a route
//! whose limit has just gone, or already hold one whose limit is about to come.

use std::borrow::Cow;
use std::sync::Arc;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit as CurrentLimit, rate_limit::Unit,
};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::Duration;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::counters::{Ask, Counters, Hits, Outcome};
use super::decisions::Decisions;
use crate::model::limit::{Algorithm, DOMAIN, LIMIT_ENTRY, Limit, LimitSet};

/// The service.
pub struct RateLimit<C> {
    limits: watch::Receiver<Arc<LimitSet>>,
    counters: Arc<C>,
    decisions: Arc<Decisions>,
}

/// The gRPC service that decides by the limits of `limits`, as they are at each call, and keeps its counts in
/// `decisions`.
pub fn service<C: Counters>(
    limits: watch::Receiver<Arc<LimitSet>>,
    counters: Arc<C>,
    decisions: Arc<Decisions>,
) -> RateLimitServiceServer<RateLimit<C>> {
    RateLimitServiceServer::new(RateLimit { limits, counters, decisions })
}

#[tonic::async_trait]
impl<C: Counters> RateLimitService for RateLimit<C> {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let limits = self.limits.borrow().clone();
        self.decide(&limits, request.get_ref()).await.map(Response::new)
    }
}

impl<C: Counters> RateLimit<C> {
    async fn decide(
        &self,
        limits: &LimitSet,
        request: &RateLimitRequest,
    ) -> Result<RateLimitResponse, Status> {
        let named: Vec<Option<Named<'_>>> =
            request.descriptors.iter().map(|descriptor| named(limits, request, descriptor)).collect();
        let asks: Vec<Ask<'_>> = named.iter().flatten().map(Named::ask).collect();
        let outcomes = self.outcomes(&asks).await?;
        let refused = |(ask, outcome): (&Ask<'_>, &Outcome)| !outcome.allowed && !ask.limit.shadow;
        let allowed = !asks.iter().zip(&outcomes).any(refused);
        self.tally(limits, &asks, &outcomes, allowed);
        let mut answers = asks.iter().zip(&outcomes);
        let statuses = named.iter().map(|named| match named.as_ref().and_then(|_| answers.next()) {
            Some((ask, outcome)) => status(ask.limit, outcome),
            None => {
                self.decisions.count_unknown();
                DescriptorStatus { code: Code::Ok.into(), ..DescriptorStatus::default() }
            }
        });
        Ok(RateLimitResponse {
            overall_code: code(allowed).into(),
            statuses: statuses.collect(),
            ..RateLimitResponse::default()
        })
    }

    /// What the counters say. Limits in shadow are asked by themselves, so that what they refuse is charged by others.
    async fn outcomes(&self, asks: &[Ask<'_>]) -> Result<Vec<Outcome>, Status> {
        let (shadows, binding): (Vec<_>, Vec<_>) = asks.iter().copied().partition(|ask| ask.limit.shadow);
        let mut said = [Vec::new().into_iter(), Vec::new().into_iter()];
        for (asks, said) in [binding, shadows].iter().zip(&mut said).filter(|(asks, _)| !asks.is_empty()) {
            let outcomes = self.counters.decide(asks).await.map_err(|error| {
                self.decisions.count_failed();
                Status::unavailable(error.to_string())
            })?;
            *said = outcomes.into_iter();
        }
        let [mut binding, mut shadows] = said;
        let outcome = |ask: &Ask<'_>| if ask.limit.shadow { shadows.next() } else { binding.next() };
        Ok(asks.iter().filter_map(outcome).collect())
    }

    fn tally(&self, limits: &LimitSet, asks: &[Ask<'_>], outcomes: &[Outcome], allowed: bool) {
        self.decisions.count_request(allowed);
        for (ask, outcome) in asks.iter().zip(outcomes) {
            if allowed || !outcome.allowed {
                self.decisions.count_limit(limits, &ask.limit.id, outcome.allowed);
            }
        }
    }
}

/// What a descriptor names.
struct Named<'a> {
    limit: Cow<'a, Limit>,
    key: &'a [Entry],
    hits: Hits,
}

impl Named<'_> {
    fn ask(&self) -> Ask<'_> {
        Ask { limit: &self.limit, key: self.key, hits: self.hits }
    }
}

/// What a descriptor asks for, if it names a limit in force: that of its key's plan. Its own addend goes before the
/// request's, of which 0 stands for 1; a descriptor's own 0 only asks.
fn named<'a>(
    limits: &'a LimitSet,
    request: &'a RateLimitRequest,
    descriptor: &'a RateLimitDescriptor,
) -> Option<Named<'a>> {
    let (first, key) = descriptor.entries.split_first()?;
    if request.domain != DOMAIN || first.key != LIMIT_ENTRY {
        return None;
    }
    let value = key.first().map_or("", |entry| &entry.value);
    let limit = limits.get(&first.value)?.for_value(value);
    let hits = match &descriptor.hits_addend {
        Some(own) => own.value,
        None => u64::from(request.hits_addend.max(1)),
    };
    let hits = if descriptor.is_negative_hits { Hits::Return(hits) } else { Hits::Take(hits) };
    Some(Named { limit, key, hits })
}

fn code(allowed: bool) -> Code {
    if allowed { Code::Ok } else { Code::OverLimit }
}

fn status(limit: &Limit, outcome: &Outcome) -> DescriptorStatus {
    DescriptorStatus {
        code: code(outcome.allowed || limit.shadow).into(),
        current_limit: Some(current_limit(&limit.algorithm)),
        limit_remaining: u32::try_from(outcome.remaining).unwrap_or(u32::MAX),
        duration_until_reset: Some(whole_seconds(outcome.reset_ms)),
        ..DescriptorStatus::default()
    }
}

/// RLS knows only units; Envoy leaves the window out of its headers where the period is none of them. The limit has
/// no name here, since Envoy would show that to clients.
fn current_limit(algorithm: &Algorithm) -> CurrentLimit {
    let (requests_per_unit, period_ms) = algorithm.quota();
    let unit = match period_ms {
        1_000 => Unit::Second,
        60_000 => Unit::Minute,
        3_600_000 => Unit::Hour,
        86_400_000 => Unit::Day,
        604_800_000 => Unit::Week,
        _ => Unit::Unknown,
    };
    CurrentLimit { name: String::new(), requests_per_unit, unit: unit.into() }
}

/// Rounded up, because Envoy cuts fractions off in `x-ratelimit-reset` and `retry-after`, and a client that comes
/// back then must not be too early.
fn whole_seconds(ms: u64) -> Duration {
    Duration { seconds: i64::try_from(ms.div_ceil(1_000)).unwrap_or(i64::MAX), nanos: 0 }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
