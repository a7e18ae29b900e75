//! Connections to a management server, each with the certificates of its moment.

use std::error::Error;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use super::Server;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A server that is gone without a word is found out by these.
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_WITHIN: Duration = Duration::from_secs(5);

impl Server {
    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Channel, String> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        // The connector does what TLS there is.
        let endpoint = Endpoint::from_shared(format!("http://{host}:{}", self.port))
            .map_err(|error| in_full(&error))?
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN)
            .keep_alive_while_idle(true);
        endpoint.connect_with_connector(Connector(self.clone())).await.map_err(|error| in_full(&error))
    }

    async fn open(self) -> io::Result<TokioIo<Box<dyn Io>>> {
        let connection: Box<dyn Io> = match &self.tls {
            Some(tls) => Box::new(tls.connect(&self.host, self.port).await?),
            None => {
                let connection = TcpStream::connect((self.host.as_str(), self.port)).await?;
                connection.set_nodelay(true)?;
                Box::new(connection)
            }
        };
        Ok(TokioIo::new(connection))
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

struct Connector(Server);

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        self.0.clone().open().boxed()
    }
}

/// An error with what is behind it, which says more.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(behind) = source {
        let behind_says = behind.to_string();
        if !text.contains(&behind_says) {
            text = format!("{text}: {behind_says}");
        }
        source = behind.source();
    }
    text
}
