//! The service on the network: RLS, gRPC health and reflection on one port; health on another for those who know no TLS;
//! and on a third what those ask who speak no gRPC.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::future::{BoxFuture, OptionFuture, try_join, try_join_all};
use futures::{FutureExt, Stream, StreamExt, TryFutureExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{self, Server};

use super::calls;
use super::counters::{Counters, Store};
use super::envoyproxy::follow::Follower;
use super::envoyproxy::{Reading, Rules};
use super::http;
use super::quota::{self, Access};
use super::reflection;
use super::remote::{Server as ManagementServer, follow, follow_config};
use super::saved::Keeper;
use super::service::{Options, RateLimit};
use super::threads;
use crate::model::limit::LimitSet;
use crate::tls::MutualTls;

/// The name that health is asked for.
const SERVICE_NAME: &str = "envoy.service.ratelimit.v3.RateLimitService";

/// How long no connection is accepted after one could not be.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// How long calls under way may take at the end. Envoy waits for none nearly that long.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// Why the service ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Calls are not answered any more.
    #[error(transparent)]
    Calls(#[from] threads::Error),
    /// Nor are those who speak no gRPC.
    #[error(transparent)]
    Pages(#[from] transport::Error),
}

/// Where the service listens.
#[derive(Debug)]
pub struct Listeners {
    /// For Envoys.
    pub calls: Calls,
    /// Mutual TLS for them, not for a socket on this machine; none means plain.
    pub tls: Option<MutualTls>,
    /// For probes and monitoring: health and metrics, in plain.
    pub health: Option<TcpListener>,
    /// For those who speak no gRPC: everything of [`http`], in plain.
    pub http: Option<TcpListener>,
    /// Who may ask there for what single keys have left; nobody can without.
    pub quota: Option<Access>,
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

/// Serves RLS, `grpc.health.v1` and reflection until `shutdown` ends, then finishes the calls under way.
///
/// Health is "serving" from the first moment, for the server as a whole and for the service: start it only once
/// limits are known, so that until then Envoy's failure mode decides and not an empty set of limits.
///
/// # Errors
/// When a listener fails, or there are no threads for calls.
pub async fn serve<C: Counters>(
    listeners: Listeners,
    service: RateLimit<C>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let shutdown = shutdown.shared();
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(SERVICE_NAME, tonic_health::ServingStatus::Serving).await;
    let routes = Routes::new(reflection::current())
        .add_service(reflection::alpha())
        .add_service(health_service.clone());
    let envoys = Arc::new(service.clone());
    let calls = answer(listeners.calls, listeners.tls, envoys, routes.prepare(), shutdown.clone());
    let also = |listener: Option<TcpListener>, pages: Router| {
        let routes = Routes::from(pages).add_service(health_service.clone());
        let server = Server::builder().accept_http1(true).add_routes(routes);
        let incoming = listener.map(|listener| TcpIncoming::from(listener).with_nodelay(Some(true)));
        incoming.map(|incoming| server.serve_with_incoming_shutdown(incoming, shutdown.clone()))
    };
    let probes = also(listeners.health, http::for_machines(service.clone()));
    let quota = listeners.quota.map(|access| quota::router(service.clone(), access));
    let http = also(listeners.http, http::router(service).merge(quota.unwrap_or_default()));
    let others = async {
        tokio::select! {
            ended = try_join_all([probes, http].into_iter().flatten()) => Ok(ended.map(drop)?),
            () = async { shutdown.clone().await; tokio::time::sleep(DRAIN_WITHIN).await } => Ok(()),
        }
    };
    try_join(calls.err_into(), others).await.map(|_| ())
}

/// Answers calls until the end, on threads of their own.
async fn answer<C: Counters>(
    calls: Calls,
    tls: Option<MutualTls>,
    service: Arc<RateLimit<C>>,
    routes: Routes,
    end: impl Future,
) -> Result<(), threads::Error> {
    match calls {
        Calls::Unix(socket) => {
            let connections = UnixListenerStream::new(socket).map(|it| it.and_then(UnixStream::into_std));
            let server = move |dealt: ReceiverStream<_>, end: oneshot::Receiver<()>| {
                calls::serve(dealt.map(UnixStream::from_std), service.clone(), routes.clone(), end)
            };
            threads::serve(accepted(connections).take_until(end), DRAIN_WITHIN, server).await
        }
        Calls::Tcp(port) => {
            let connections = TcpListenerStream::new(port).map(|it| it.and_then(TcpStream::into_std));
            let server = move |dealt: ReceiverStream<_>, end: oneshot::Receiver<()>| {
                let (dealt, service, routes) =
                    (dealt.map(TcpStream::from_std), service.clone(), routes.clone());
                match &tls {
                    Some(tls) => calls::serve(tls.incoming(dealt), service, routes, end).left_future(),
                    None => calls::serve(plain(dealt), service, routes, end).right_future(),
                }
            };
            threads::serve(accepted(connections).take_until(end), DRAIN_WITHIN, server).await
        }
    }
}

/// Without those that cannot be accepted: their other end is gone, or there are too many open files.
fn accepted<C>(connections: impl Stream<Item = io::Result<C>>) -> impl Stream<Item = C> {
    connections.filter_map(async |connection| match connection {
        Ok(connection) => Some(connection),
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => None,
        Err(error) => {
            tracing::warn!("cannot accept a connection of the rate limit service: {error}");
            tokio::time::sleep(ACCEPT_AGAIN).await;
            None
        }
    })
}

/// Connections that send at once what is written.
fn plain<S: Stream<Item = io::Result<TcpStream>>>(
    connections: S,
) -> impl Stream<Item = io::Result<TcpStream>> + use<S> {
    connections.map(|connection| connection.and_then(|it| it.set_nodelay(true).map(|()| it)))
}

/// What a management server is followed for.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Limits of a control plane of ours.
    Limits,
    /// The rules of envoyproxy/ratelimit, in place of a folder.
    Rules(Reading),
}

/// Where the limits of a service of its own come from.
#[derive(Debug, Default)]
pub struct Sources {
    /// A management server, and what it is followed for.
    pub xds: Option<(ManagementServer, Kind)>,
    /// A folder of rules, and who follows it.
    pub folder: Option<(Follower, watch::Receiver<Arc<Rules>>)>,
    /// What is added to answers.
    pub options: Options,
    /// The counters.
    pub store: Store,
    /// Where those of quotas of a day and more are kept, if they are in this process.
    pub keeper: Option<Keeper>,
}

/// The service alone, with its limits followed from elsewhere. Calls are taken once the
/// first set of limits has come.
///
/// # Errors
/// As for [`serve`].
pub async fn alone(
    listeners: Listeners,
    sources: Sources,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let shutdown = shutdown.shared();
    let (sender, mut limits) = watch::channel(Arc::new(LimitSet::default()));
    let (follower, rules) = sources.folder.unzip();
    let (rules_sender, sent_rules) = watch::channel(Arc::default());
    let mut rules = rules.unwrap_or(sent_rules);
    let kind = sources.xds.as_ref().map(|(_, kind)| *kind);
    let following: Option<BoxFuture<'_, ()>> = sources.xds.map(|(server, kind)| match kind {
        Kind::Limits => follow(server, sender).boxed(),
        Kind::Rules(reading) => follow_config(server, reading, rules_sender).boxed(),
    });
    let store = Arc::new(sources.store);
    let (served, nobody_calls) = oneshot::channel::<()>();
    let keep = sources.keeper.map(|keeper| keeper.run(nobody_calls.map(drop)));
    let serving = async {
        let known = async {
            match kind {
                None => true,
                Some(Kind::Limits) => limits.changed().await.is_ok(),
                Some(Kind::Rules(_)) => rules.changed().await.is_ok(),
            }
        };
        tokio::select! {
            _ = known => {}
            () = shutdown.clone() => return Ok(()),
        }
        tracing::info!("the limits are known; serving");
        store.ready().await;
        let service = RateLimit::new(limits, store.clone(), Arc::default());
        let served = serve(listeners, service.with_rules(rules, sources.options), shutdown.clone()).await;
        store.close().await;
        served
    };
    let following = async {
        tokio::select! {
            served = serving => served,
            () = store.run() => Ok(()),
            Some(()) = OptionFuture::from(following) => Ok(()),
            Some(()) = OptionFuture::from(follower.map(Follower::run)) => Ok(()),
        }
    };
    // Counters are written once more when no call can change them.
    let all = async {
        let ended = following.await;
        drop(served);
        ended
    };
    futures::join!(all, OptionFuture::from(keep)).0
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
