//! Where Redis is: clients of it, made of the options and the files that they name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, RedisError,
    RedisResult, TlsCertificates, TlsMode, Value,
};

use crate::options::{RedisKind as Kind, RedisOptions};

/// How long a connection may take to be made.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// More than any answer is waited for: who asks has a deadline, and what it does not answer in time is not asked again.
const NEVER: Duration = Duration::from_secs(600);

/// How often a call of a cluster is sent again: to where its slot is said to be, or when its connection broke, where it may
/// be counted twice.
const REDIRECTS: u32 = 3;

/// Why Redis cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// It is no address, or what the files hold is of no use.
    #[error("cannot make a client of Redis: {0}")]
    Client(#[from] RedisError),
}

/// What is known of where Redis is.
pub(super) struct Server {
    options: RedisOptions,
    /// Looks for the server that sentinels name so far.
    looks: AtomicUsize,
}

/// A server, or a cluster, to connect to.
#[expect(clippy::large_enum_variant, reason = "there is one of it at a time")]
pub(super) enum Source {
    One(Client),
    Cluster(ClusterClient),
}

#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::One(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

impl Source {
    /// Connects. What the connection does runs on the runtime that this is called on.
    pub(super) async fn connect(&self) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(None);
        Ok(match self {
            Self::One(client) => {
                Connection::One(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Self::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        })
    }
}

impl Server {
    /// Tries whether there can be such a Redis.
    pub(super) fn open(options: &RedisOptions) -> Result<Self, OpenError> {
        let this = Self { options: options.clone(), looks: AtomicUsize::new(0) };
        let certificates = this.certificates()?;
        match &options.address.kind {
            Kind::One(server) => drop(one(server, certificates)?),
            Kind::Cluster(servers) => drop(cluster(servers, certificates)?),
            Kind::Sentinel { sentinels, name } => drop(sentinel(sentinels, name, certificates)?),
        }
        Ok(this)
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.options.address.kind, Kind::Cluster(_))
    }

    /// What to connect to now, by what the files hold now.
    pub(super) async fn source(&self) -> Result<Source, OpenError> {
        let certificates = self.certificates()?;
        Ok(match &self.options.address.kind {
            Kind::One(server) => Source::One(one(server, certificates)?),
            Kind::Cluster(servers) => Source::Cluster(cluster(servers, certificates)?),
            Kind::Sentinel { sentinels, name } => {
                let mut sentinels = sentinels.clone();
                // One that does not answer takes all the time there is: the next look begins with another.
                let first = self.looks.fetch_add(1, Ordering::Relaxed) % sentinels.len().max(1);
                sentinels.rotate_left(first);
                Source::One(sentinel(&sentinels, name, certificates)?.async_get_client().await?)
            }
        })
    }

    fn certificates(&self) -> Result<Option<TlsCertificates>, OpenError> {
        let read = |path: &Path| fs::read(path).map_err(|error| OpenError::File(path.to_owned(), error));
        let root_cert = self.options.authority.as_deref().map(read).transpose()?;
        let client_tls = match &self.options.identity {
            Some((certificate, key)) => {
                Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
            }
            None => None,
        };
        let given = root_cert.is_some() || client_tls.is_some();
        Ok(given.then_some(TlsCertificates { client_tls, root_cert }))
    }
}

/// What is written is sent at once, since somebody waits for it.
fn at_once() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn one(server: &ConnectionInfo, certificates: Option<TlsCertificates>) -> RedisResult<Client> {
    let server = server.clone().set_tcp_settings(at_once());
    match certificates {
        Some(certificates) => Client::build_with_tls(server, certificates),
        None => Client::open(server),
    }
}

fn cluster(servers: &[ConnectionInfo], certificates: Option<TlsCertificates>) -> RedisResult<ClusterClient> {
    let builder = ClusterClient::builder(servers.iter().cloned())
        .connection_timeout(CONNECT_WITHIN)
        .response_timeout(NEVER)
        .retries(REDIRECTS)
        .tcp_settings(at_once());
    match certificates {
        Some(certificates) => builder.certs(certificates).build(),
        None => builder.build(),
    }
}

fn sentinel(
    sentinels: &[ConnectionInfo],
    name: &str,
    certificates: Option<TlsCertificates>,
) -> RedisResult<SentinelClient> {
    let addresses = sentinels.iter().map(|server| server.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master)?;
    builder =
        builder.set_client_to_redis_tcp_settings(at_once()).set_client_to_sentinel_tcp_settings(at_once());
    let of = &sentinels[0];
    if matches!(of.addr(), ConnectionAddr::TcpTls { .. }) {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        builder = builder.set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder.set_client_to_redis_certificates(certificates.clone());
        builder = builder.set_client_to_sentinel_certificates(certificates);
    }
    let settings = of.redis_settings();
    builder = builder.set_client_to_redis_db(settings.db());
    if let Some(user) = settings.username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    builder.build()
}
