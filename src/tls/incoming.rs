//! Connections of those who have shown a certificate.

use std::io;
use std::time::Duration;

use futures::stream::{Stream, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::MutualTls;

/// Handshakes of one call under way at once. Who connects beyond that waits.
const HANDSHAKES: usize = 1024;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

impl MutualTls {
    /// The connections that come, once their handshakes are done.
    pub fn incoming<S: Stream<Item = io::Result<TcpStream>> + Send>(
        &self,
        connections: S,
    ) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> + Send + use<S> {
        let this = self.clone();
        connections
            .map(move |connection| this.clone().handshake(connection))
            .buffer_unordered(HANDSHAKES)
            .filter_map(std::future::ready)
    }

    /// Nothing, where it fails: that is said here, and no concern of the listener's.
    async fn handshake(self, connection: io::Result<TcpStream>) -> Option<io::Result<TlsStream<TcpStream>>> {
        let connection = match connection.and_then(|it| it.set_nodelay(true).map(|()| it)) {
            Ok(connection) => connection,
            Err(error) => return Some(Err(error)),
        };
        let peer = connection.peer_addr().ok();
        let acceptor = TlsAcceptor::from(self.identity().config.clone());
        match timeout(HANDSHAKE_WITHIN, acceptor.accept(connection)).await {
            Ok(Ok(connection)) => return Some(Ok(connection)),
            // What rustls has to say. All else is somebody who went away, as probes do.
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(?peer, "refused a connection: {error}");
            }
            Ok(Err(error)) => tracing::debug!(?peer, "no handshake: {error}"),
            Err(_) => tracing::debug!(?peer, "no handshake in time"),
        }
        None
    }
}
