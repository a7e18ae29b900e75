//! Connections to Envoy.

use super::exchange::Error;
use super::{Handshake, Plan};
use crate::case::step::HttpVersion;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

type Outgoing = Request<Full<Bytes>>;

/// An open connection.
pub(super) struct Connection {
    sender: Sender,
    pub(super) handshake: Option<Arc<Handshake>>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(super) async fn open(plan: &Plan) -> Result<Connection, Error> {
        let socket = TcpSocket::new_v4()?;
        if let Some(from) = plan.from {
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from((from, 0)))?;
        }
        let stream = socket.connect(plan.address).await?;
        stream.set_nodelay(true)?;
        let Some((config, name)) = &plan.tls else {
            return Ok(Connection { sender: Sender::open(stream, plan.version).await?, handshake: None });
        };
        let name: ServerName<'static> = name.clone();
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
        let handshake = Some(Arc::new(Handshake::of(stream.get_ref().1)));
        Ok(Connection { sender: Sender::open(stream, plan.version).await?, handshake })
    }

    /// Whether another request can go out; false once the server has closed.
    pub(super) async fn is_ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends; an error that still holds the request says that nothing of it has gone out.
    pub(super) async fn send(
        &mut self,
        request: Outgoing,
    ) -> Result<Response<Incoming>, TrySendError<Outgoing>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

impl Sender {
    /// Starts HTTP on a stream; the connection is driven in the background until the sender is gone.
    async fn open<S>(stream: S, version: HttpVersion) -> Result<Sender, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match version {
            HttpVersion::Http1 => {
                let (sender, connection) =
                    http1::Builder::new().max_headers(1000).handshake(TokioIo::new(stream)).await?;
                // How the connection ends is seen by the request that it carries.
                tokio::spawn(async move { drop(connection.with_upgrades().await) });
                Ok(Sender::Http1(sender))
            }
            HttpVersion::Http2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .max_header_list_size(1 << 20)
                    .handshake(TokioIo::new(stream))
                    .await?;
                tokio::spawn(async move { drop(connection.await) });
                Ok(Sender::Http2(sender))
            }
        }
    }
}
