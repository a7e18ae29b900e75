//! The limitador library as a rate limit service: `limitador-service ADDRESS RULES`.
//!
//! As its own server does it: one descriptor is the CEL variable `descriptors[0]`, and every limit of the domain is
//! evaluated. Its own server runs on another framework; here it stands behind that of the one that decides nothing.

use std::collections::HashMap;

use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use limitador::RateLimiter;
use limitador::limit::{Context, Limit, Namespace};
use tikv_jemallocator::Jemalloc;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// More than there are keys, so that none is forgotten.
const COUNTERS: u64 = 100_000;

struct Limitador(RateLimiter);

#[tonic::async_trait]
impl RateLimitService for Limitador {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let RateLimitRequest { domain, descriptors, hits_addend } = request.into_inner();
        let descriptors = descriptors.into_iter().map(|descriptor| {
            descriptor.entries.into_iter().map(|entry| (entry.key, entry.value)).collect::<HashMap<_, _>>()
        });
        let mut context = Context::default();
        context.list_binding("descriptors".to_owned(), descriptors.collect());
        let domain: Namespace = domain.into();
        let result = self.0.check_rate_limited_and_update(&domain, &context, hits_addend.max(1).into());
        let limited = result.map_err(|error| Status::unavailable(error.to_string()))?.limited;
        let code = if limited { Code::OverLimit } else { Code::Ok };
        Ok(Response::new(RateLimitResponse { overall_code: code.into(), ..RateLimitResponse::default() }))
    }
}

fn main() -> Result<(), Error> {
    let [_, address, rules] = &std::env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: limitador-service ADDRESS RULES".into());
    };
    let limiter = RateLimiter::new(COUNTERS);
    for rule in 0..rules.parse::<usize>()? {
        let condition = format!("descriptors[0].route == 'r{rule}'");
        let condition = condition.try_into().map_err(|error| format!("{error:?}"))?;
        let variable = "descriptors[0].user".try_into().map_err(|error| format!("{error:?}"))?;
        limiter.add_limit(Limit::new("bench", 1_000_000_000, 60, [condition], [variable]));
    }
    let address = address.parse()?;
    let server = Server::builder().add_service(RateLimitServiceServer::new(Limitador(limiter)));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(server.serve(address))?;
    Ok(())
}
