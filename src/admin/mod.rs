//! The debug endpoint: health, metrics, and everything that the control plane knows, read-only and without secrets.
//!
//! Handlers read published values and write nothing. Answers are JSON, errors too: `{"error": "…"}` with a status.

pub mod changes;
pub mod csds;
pub mod dump;
mod error;
mod findings;
mod health;
mod metrics;
mod nodes;
mod ratelimits;
mod routes;
mod scrape;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::compile::Published;
use crate::fleet::Fleet;
use crate::ratelimit::counters::Store;
use crate::ratelimit::decisions::Decisions;
use crate::tls::MutualTls;
use crate::xds::snapshot;
use changes::Changes;
use error::Error;
pub use metrics::Metrics;

/// What the handlers read.
#[derive(Clone)]
pub struct State {
    /// What Envoys are sent; none until every source was read once.
    pub snapshots: snapshot::Receiver,
    /// The model, the findings and the limits behind it.
    pub published: watch::Receiver<Arc<Published>>,
    /// The connected Envoys.
    pub fleet: Fleet,
    /// The latest changes.
    pub changes: Changes,
    /// The rate limit service of this process, if it has one.
    pub ratelimit: Option<RateLimit>,
    /// What is counted where it happens; the rest is counted when metrics are asked for.
    pub metrics: Metrics,
    /// The certificate that Envoys are shown, if they are shown one.
    pub tls: Option<MutualTls>,
}

/// The rate limit service of this process.
#[derive(Clone)]
pub struct RateLimit {
    /// What it decided.
    pub decisions: Arc<Decisions>,
    /// Its counters.
    pub counters: Arc<Store>,
}

const PATHS: [&str; 9] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/debug/config_dump?type=&name=&node=",
    "/debug/nodes",
    "/debug/routes?host=",
    "/debug/findings?severity=&kind=&namespace=&name=",
    "/debug/changes",
    "/debug/ratelimits",
];

/// What machines ask: probes, a monitoring system.
const MACHINES_PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// What machines ask, as a service. Nothing else is there, so that whoever asks need not be let see everything.
fn machines_router(state: State) -> Router {
    for_machines()
        .fallback(async || Error::not_found("no such page").with("paths", json!(MACHINES_PATHS)))
        .method_not_allowed_fallback(async || Error::method_not_allowed())
        .with_state(state)
}

fn for_machines() -> Router<State> {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
}

/// The endpoint as a service.
pub fn router(state: State) -> Router {
    for_machines()
        .route("/debug/config_dump", get(dump::config_dump))
        .route("/debug/nodes", get(nodes::nodes))
        .route("/debug/routes", get(routes::routes))
        .route("/debug/findings", get(findings::findings))
        .route("/debug/changes", get(changes::changes))
        .route("/debug/ratelimits", get(ratelimits::ratelimits))
        .fallback(async || Error::not_found("no such page").with("paths", json!(PATHS)))
        .method_not_allowed_fallback(async || Error::method_not_allowed())
        .with_state(state)
}

/// Serves the endpoint until `shutdown` ends, and the quota API of the rate limit service in this process beside it.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    state: State,
    quota: Option<Router>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router(state).merge(quota.unwrap_or_default());
    let service = service.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await
}

/// Serves what machines ask until `shutdown` ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve_machines(
    listener: TcpListener,
    state: State,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, machines_router(state)).with_graceful_shutdown(shutdown).await
}

#[cfg(test)]
mod tests;
