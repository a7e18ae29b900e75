//! The service on the network: RLS and gRPC health on one port, and health on another for those who know no TLS.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, OptionFuture, try_join};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::counters::Counters;
use super::counters::memory::Memory;
use super::decisions::Decisions;
use super::{remote, service};
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
    pub calls: TcpListener,
    /// Mutual TLS for them; none means plain.
    pub tls: Option<MutualTls>,
    /// For probes: health alone, in plain.
    pub health: Option<TcpListener>,
}

/// Serves RLS and `grpc.health.v1` until `shutdown` ends, then finishes the calls under way.
///
/// Health is "serving" from the first moment, for the server as a whole and for the service: start it only once
/// limits are known, so that until then Envoy's failure mode decides and not an empty set of limits.
///
/// # Errors
/// When the listener fails.
pub async fn serve<C: Counters>(
    listeners: Listeners,
    limits: watch::Receiver<Arc<LimitSet>>,
    counters: Arc<C>,
    decisions: Arc<Decisions>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let shutdown = shutdown.shared();
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(SERVICE_NAME, tonic_health::ServingStatus::Serving).await;
    let calls = Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .add_service(service::service(limits, counters, decisions))
        .add_service(health_service.clone());
    let calls = match listeners.tls {
        Some(tls) => {
            Either::Left(calls.serve_with_incoming_shutdown(tls.incoming(listeners.calls), shutdown.clone()))
        }
        None => Either::Right(calls.serve_with_incoming_shutdown(plain(listeners.calls), shutdown.clone())),
    };
    let probes = listeners.health.map(|listener| {
        let probes = Server::builder().add_service(health_service);
        probes.serve_with_incoming_shutdown(plain(listener), shutdown.clone())
    });
    let probes = OptionFuture::from(probes).map(|probes| probes.unwrap_or(Ok(())));
    let drained = async {
        shutdown.await;
        tokio::time::sleep(DRAIN_WITHIN).await;
    };
    tokio::select! {
        served = try_join(calls, probes) => served.map(|_| ()),
        () = drained => Ok(()),
    }
}

fn plain(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// The service alone, with its limits followed from the control plane whose debug endpoint is at `server`
/// (`HOST:PORT`) and its counters in memory. Calls are taken once the first set of limits has come.
///
/// # Errors
/// When the address cannot be a part of a URL, or the listener fails.
pub async fn alone(
    listeners: Listeners,
    server: &str,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AloneError> {
    let shutdown = shutdown.shared();
    let (sender, mut limits) = watch::channel(Arc::new(LimitSet::default()));
    let follow = remote::follow(server, sender)?;
    let serving = async {
        tokio::select! {
            _ = limits.changed() => {}
            () = shutdown.clone() => return Ok(()),
        }
        tracing::info!(limits = limits.borrow_and_update().len(), "the limits are known; serving");
        serve(listeners, limits, Arc::new(Memory::default()), Arc::default(), shutdown).await
    };
    tokio::select! {
        served = serving => served.map_err(AloneError::from),
        () = follow => Ok(()),
    }
}

/// Why the service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// The control plane's address is not one.
    #[error(transparent)]
    Server(#[from] remote::AddressError),
    /// The listener failed.
    #[error("the rate limit service's listener failed")]
    Listener(#[from] tonic::transport::Error),
}
