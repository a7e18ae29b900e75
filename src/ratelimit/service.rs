//! Envoy's rate limit service, RLS v3: one call a request, one descriptor a limit.
//!
//! Every descriptor gets a status, in order. The request is let through if every limit allows it, and only then is
//! any charged. A descriptor that names no limit in force is let through and counted: Envoy may still hold a route
//! whose limit has just gone, or already hold one whose limit is about to come.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
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

use super::counters::{Ask, Counters, Hits, Outcome, Role, admitted};
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
        let named: Vec<Option<Ask<'_>>> =
            request.descriptors.iter().map(|descriptor| ask(limits, request, descriptor)).collect();
        let asks: Vec<Ask<'_>> = named.iter().flatten().copied().collect();
        let outcomes = if asks.is_empty() {
            Vec::new()
        } else {
            self.counters.decide(&asks).await.map_err(|error| {
                self.decisions.count_failed();
                Status::unavailable(error.to_string())
            })?
        };
        let allowed = admitted(asks.iter().zip(&outcomes).map(|(ask, outcome)| (ask.role, outcome.allowed)));
        self.tally(limits, &asks, &outcomes, allowed);
        let mut answers = asks.iter().zip(&outcomes);
        let statuses = named.iter().map(|ask| match ask.as_ref().and_then(|_| answers.next()) {
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

    fn tally(&self, limits: &LimitSet, asks: &[Ask<'_>], outcomes: &[Outcome], allowed: bool) {
        self.decisions.count_request(allowed);
        for (ask, outcome) in asks.iter().zip(outcomes) {
            if allowed || !outcome.allowed {
                self.decisions.count_limit(limits, &ask.limit.id, outcome.allowed);
            }
        }
    }
}

/// What a descriptor asks for, if it names a limit in force. Its own addend goes before the request's, of which 0
/// stands for 1; a descriptor's own 0 only asks.
fn ask<'a>(
    limits: &'a LimitSet,
    request: &'a RateLimitRequest,
    descriptor: &'a RateLimitDescriptor,
) -> Option<Ask<'a>> {
    let (first, key) = descriptor.entries.split_first()?;
    if request.domain != DOMAIN || first.key != LIMIT_ENTRY {
        return None;
    }
    let limit = limits.get(&first.value)?;
    let hits = match &descriptor.hits_addend {
        Some(own) => own.value,
        None => u64::from(request.hits_addend.max(1)),
    };
    let hits = if descriptor.is_negative_hits { Hits::Return(hits) } else { Hits::Take(hits) };
    Some(Ask { limit, key, hits, role: Role::Binding })
}

fn code(allowed: bool) -> Code {
    if allowed { Code::Ok } else { Code::OverLimit }
}

fn status(limit: &Limit, outcome: &Outcome) -> DescriptorStatus {
    DescriptorStatus {
        code: code(outcome.allowed).into(),
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
