//! One echo server: a listener on an address of its own.

use super::{Shared, answer, next_address};
use crate::case::Protocol;
use anyhow::{Context as _, Result};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A running echo server. Dropped, it is gone at once; [`EchoServer::finish`] ends it in order.
pub(crate) struct EchoServer {
    pub(crate) address: SocketAddr,
    finish: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Listens on a fresh address and the given port.
    pub(crate) async fn start(shared: Arc<Shared>, port: u16) -> Result<EchoServer> {
        let address = SocketAddr::from((next_address(), port));
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let (finish, finished) = watch::channel(false);
        let task = tokio::spawn(serve(listener, address, shared, finished));
        Ok(EchoServer { address, finish, task: Some(task) })
    }

    /// Takes no more connections, finishes what is in flight, then closes; returns at once.
    pub(crate) fn finish(mut self) {
        self.finish.send_replace(true);
        self.task = None;
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    mut finished: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    // Aborted with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, address, shared.clone(), graceful.watcher()));
                }
                while connections.try_join_next().is_some() {}
            }
            _ = finished.wait_for(|finished| *finished) => break,
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn connection(stream: TcpStream, address: SocketAddr, shared: Arc<Shared>, watcher: Watcher) {
    // Small answers go at once.
    let _ = stream.set_nodelay(true);
    match &shared.tls {
        None => speak_http(stream, address, shared, watcher).await,
        Some(tls) => {
            // A client that does not like the certificate has nothing more to say.
            if let Ok(stream) = TlsAcceptor::from(tls.clone()).accept(stream).await {
                speak_http(stream, address, shared, watcher).await;
            }
        }
    }
}

async fn speak_http<S>(stream: S, address: SocketAddr, shared: Arc<Shared>, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let protocol = shared.options.protocol;
    let service = service_fn(move |request| answer::answer(shared.clone(), address, request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if protocol == Protocol::Grpc {
        builder = builder.http2_only();
    }
    builder.http1().max_buf_size(1 << 20).max_headers(1000);
    builder.http2().max_header_list_size(1 << 20).max_concurrent_streams(10_000);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    // How a connection ended is seen by the client.
    let _ = watcher.watch(connection.into_owned()).await;
}
