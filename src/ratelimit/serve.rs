//! The service on the network: RLS, gRPC health and reflection on one port; health on another for those who know no TLS;
//! and on a third what those ask who speak no gRPC.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use futures::FutureExt;
use futures::future::{BoxFuture, OptionFuture, try_join_all};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::counters::redis::{OpenError, RedisOptions};
use super::counters::{Counters, Store};
use super::envoyproxy::Rules;
use super::envoyproxy::follow::Follower;
use super::service::{Options, RateLimit};
use super::{http, remote};
use crate::descriptors;
use crate::model::limit::LimitSet;
use crate::tls::MutualTls;

/// The name that health is asked for.
const SERVICE_NAME: &str = "envoy.service.ratelimit.v3.RateLimitService";

/// Open connections are pinged this often, so that those of an Envoy that vanished go.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long calls under way may take at the end. Envoy waits for none nearly that long.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// Where the service listens.
#[derive(Debug)]
pub struct Listeners {
    /// For Envoys.
    pub calls: Calls,
    /// Mutual TLS for them, not for a socket on this machine; none means plain.
    pub tls: Option<MutualTls>,
    /// For probes: health alone, in plain.
    pub health: Option<TcpListener>,
    /// For those who speak no gRPC: `/json`, `/rlconfig` and health, in plain.
    pub http: Option<TcpListener>,
}

/// Where Envoys call.
#[derive(Debug)]
pub enum Calls {
    /// A port.
    Tcp(TcpListener),
    /// A socket on this machine, whose file's permissions say who may.
    Unix(UnixListener),
}

impl From<TcpListener> for Calls {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

type Serving<'a> = BoxFuture<'a, Result<(), tonic::transport::Error>>;

/// Serves RLS, `grpc.health.v1` and reflection until `shutdown` ends, then finishes the calls under way.
///
/// Health is "serving" from the first moment, for the server as a whole and for the service: start it only once
/// limits are known, so that until then Envoy's failure mode decides and not an empty set of limits.
///
/// # Errors
/// When a listener fails.
pub async fn serve<C: Counters>(
    listeners: Listeners,
    service: RateLimit<C>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let shutdown = shutdown.shared();
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(SERVICE_NAME, tonic_health::ServingStatus::Serving).await;
    let calls = Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .add_service(RateLimitServiceServer::new(service.clone()))
        .add_service(reflected().build_v1().expect(READABLE))
        .add_service(reflected().build_v1alpha().expect(READABLE))
        .add_service(health_service.clone());
    let end = shutdown.clone();
    let calls: Serving<'_> = match (listeners.calls, listeners.tls) {
        (Calls::Unix(socket), _) => {
            calls.serve_with_incoming_shutdown(UnixListenerStream::new(socket), end).boxed()
        }
        (Calls::Tcp(port), Some(tls)) => calls.serve_with_incoming_shutdown(tls.incoming(port), end).boxed(),
        (Calls::Tcp(port), None) => calls.serve_with_incoming_shutdown(plain(port), end).boxed(),
    };
    let also = |listener: Option<TcpListener>, pages: Router| -> Option<Serving<'_>> {
        let routes = Routes::from(pages).add_service(health_service.clone());
        let server = Server::builder().accept_http1(true).add_routes(routes);
        listener
            .map(|listener| server.serve_with_incoming_shutdown(plain(listener), shutdown.clone()).boxed())
    };
    let probes = also(listeners.health, http::health());
    let http = also(listeners.http, http::router(service));
    let drained = async {
        shutdown.clone().await;
        tokio::time::sleep(DRAIN_WITHIN).await;
    };
    tokio::select! {
        served = try_join_all([Some(calls), probes, http].into_iter().flatten()) => served.map(|_| ()),
        () = drained => Ok(()),
    }
}

const READABLE: &str = "build.rs wrote the descriptor sets";

/// What the service tells of itself.
fn reflected() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors::RATE_LIMIT_SERVICE)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn plain(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Where the limits of a service of its own come from.
#[derive(Debug, Default)]
pub struct Sources {
    /// The control plane whose debug endpoint is at this `HOST:PORT`.
    pub server: Option<String>,
    /// A folder of rules, and who follows it.
    pub folder: Option<(Follower, watch::Receiver<Arc<Rules>>)>,
    /// What is added to answers.
    pub options: Options,
    /// Where the counters are, if not in this process.
    pub redis: Option<RedisOptions>,
}

/// The service alone, with its limits followed from elsewhere. Calls are taken once the
/// first set of limits has come.
///
/// # Errors
/// When the address cannot be a part of a URL, there can be no such Redis, or a listener fails.
pub async fn alone(
    listeners: Listeners,
    sources: Sources,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), AloneError> {
    let shutdown = shutdown.shared();
    let (sender, mut limits) = watch::channel(Arc::new(LimitSet::default()));
    let from_server = sources.server.is_some();
    let follow = sources.server.map(|server| remote::follow(&server, sender)).transpose()?;
    let (follower, rules) = sources.folder.unzip();
    let store = Arc::new(Store::open(sources.redis)?);
    let counters = store.clone();
    let rules = rules.unwrap_or_else(|| watch::channel(Arc::default()).1);
    let serving = async {
        if from_server {
            tokio::select! {
                _ = limits.changed() => {}
                () = shutdown.clone() => return Ok(()),
            }
            tracing::info!(limits = limits.borrow_and_update().len(), "the limits are known; serving");
        }
        store.ready().await;
        let service = RateLimit::new(limits, store.clone(), Arc::default());
        let served = serve(listeners, service.with_rules(rules, sources.options), shutdown.clone()).await;
        store.close().await;
        served
    };
    tokio::select! {
        served = serving => served.map_err(AloneError::from),
        () = counters.run() => Ok(()),
        Some(()) = OptionFuture::from(follow) => Ok(()),
        Some(()) = OptionFuture::from(follower.map(Follower::run)) => Ok(()),
    }
}

/// Why the service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// The control plane's address is not one.
    #[error(transparent)]
    Server(#[from] remote::AddressError),
    /// There can be no such Redis.
    #[error(transparent)]
    Redis(#[from] OpenError),
    /// A listener failed.
    #[error("the rate limit service's listener failed")]
    Listener(#[from] tonic::transport::Error),
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
