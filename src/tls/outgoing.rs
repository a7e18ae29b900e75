//! Connections to those who show a certificate, and want to see one.

use std::io;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::MutualTls;

impl MutualTls {
    /// Connects to a server, which has to show a certificate for `host` and is shown the one of this moment.
    ///
    /// # Errors
    /// When it is not reached, or one of the two does not take the other's certificate.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connection = TcpStream::connect((host, port)).await?;
        connection.set_nodelay(true)?;
        TlsConnector::from(self.identity().client.clone()).connect(name, connection).await
    }
}
