//! The connection to Redis: made again whenever it is lost, and only ever used while Redis answers in time.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, RedisError, TlsCertificates, TlsMode};
use tokio::sync::watch;
use tokio::time::timeout;

use super::call::{self, Question, Reply, Terms};
use crate::options::{RedisKind as Kind, RedisOptions};

/// So many answers in a row that do not come in time open the circuit; any other failure does at once.
const LATE: u32 = 3;

const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// There is no connection.
    #[error("Redis is away")]
    Away,
    /// It may have been counted there, and may yet be.
    #[error("Redis did not answer in time")]
    Late,
    /// It was not counted there.
    #[error("Redis: {0}")]
    Failed(#[from] RedisError),
    /// Something else than this script answered.
    #[error("Redis answered something else")]
    Unreadable,
}

/// Why Redis cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The authority cannot be read.
    #[error("cannot read the authority of Redis")]
    Authority(#[from] io::Error),
    /// It is no address.
    #[error("cannot make a client of Redis: {0}")]
    Client(#[from] RedisError),
}

#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Server {
    One(Client),
    Cluster(ClusterClient),
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
}

#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Asks, without a deadline but that of the connection.
    pub(super) async fn ask(&mut self, questions: &[Question], terms: Terms) -> Result<Reply, CallError> {
        let call = call::call(questions, terms);
        let value = match self {
            Self::One(connection) => call.invoke_async(connection).await?,
            Self::Cluster(connection) => call.invoke_async(connection).await?,
        };
        call::read(&value, questions.len()).ok_or(CallError::Unreadable)
    }
}

impl Server {
    fn open(options: &RedisOptions) -> Result<Self, OpenError> {
        let authority = options.authority.as_ref().map(fs::read).transpose()?;
        let certificates =
            |root_cert: Vec<u8>| TlsCertificates { client_tls: None, root_cert: Some(root_cert) };
        Ok(match &options.address.kind {
            Kind::One(server) => Self::One(match authority {
                Some(authority) if options.address.has_tls() => {
                    Client::build_with_tls(server.clone(), certificates(authority))?
                }
                _ => Client::open(server.clone())?,
            }),
            Kind::Cluster(servers) => {
                let builder = ClusterClient::builder(servers.iter().cloned())
                    .connection_timeout(CONNECT_WITHIN)
                    .response_timeout(CONNECT_WITHIN)
                    .retries(1);
                Self::Cluster(match authority {
                    Some(authority) => builder.certs(certificates(authority)).build()?,
                    None => builder.build()?,
                })
            }
            Kind::Sentinel { sentinels, name } => {
                let addresses = sentinels.iter().map(|server| server.addr().clone());
                let mut builder = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master)?;
                let of = &sentinels[0];
                if matches!(of.addr(), ConnectionAddr::TcpTls { .. }) {
                    builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
                    builder = builder.set_client_to_sentinel_tls_mode(TlsMode::Secure);
                }
                if let Some(authority) = authority {
                    builder = builder.set_client_to_redis_certificates(certificates(authority.clone()));
                    builder = builder.set_client_to_sentinel_certificates(certificates(authority));
                }
                let settings = of.redis_settings();
                builder = builder.set_client_to_redis_db(settings.db());
                if let Some(user) = settings.username() {
                    builder = builder.set_client_to_redis_username(user);
                }
                if let Some(password) = settings.password() {
                    builder = builder.set_client_to_redis_password(password);
                }
                Self::Sentinel(Box::new(tokio::sync::Mutex::new(builder.build()?)))
            }
        })
    }

    async fn connect(&self) -> Result<Connection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(CONNECT_WITHIN));
        Ok(match self {
            Self::One(client) => {
                Connection::One(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Self::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
            Self::Sentinel(client) => {
                Connection::One(client.lock().await.get_async_connection_with_config(&config).await?)
            }
        })
    }
}

/// The connection, if Redis answers. Whoever asks finds out that it does not; [`Link::connect`] makes a new one.
pub(super) struct Link {
    server: Server,
    deadline: Duration,
    connection: watch::Sender<Option<Connection>>,
    late: AtomicU32,
    calls: AtomicU64,
    failures: AtomicU64,
    clock: Clock,
}

impl Link {
    pub(super) fn open(options: &RedisOptions) -> Result<Self, OpenError> {
        Ok(Self {
            server: Server::open(options)?,
            deadline: options.deadline,
            connection: watch::channel(None).0,
            late: AtomicU32::new(0),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            clock: Clock::new(),
        })
    }

    /// Redis's clock, more or less.
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.borrow().is_some()
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.server, Server::Cluster(_))
    }

    /// Calls so far, and how many of them had no answer.
    pub(super) fn calls(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// Waits until there is a connection.
    pub(super) async fn until_connected(&self) {
        // The sender is here, so it does not end.
        let _ = self.connection.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits until there is none any more.
    pub(super) async fn until_lost(&self) {
        let mut connection = self.connection.subscribe();
        let _ = connection.wait_for(Option::is_none).await;
    }

    /// Asks within the deadline.
    pub(super) async fn ask(&self, questions: &[Question], terms: Terms) -> Result<Reply, CallError> {
        let connection = self.connection.borrow().clone();
        let Some(mut connection) = connection else { return Err(CallError::Away) };
        self.calls.fetch_add(1, Ordering::Relaxed);
        let terms = Terms { near: self.now(), ..terms };
        let asked =
            timeout(self.deadline, connection.ask(questions, terms)).await.unwrap_or(Err(CallError::Late));
        self.note(&asked);
        asked
    }

    fn note(&self, asked: &Result<Reply, CallError>) {
        match asked {
            Ok(reply) => {
                self.late.store(0, Ordering::Relaxed);
                self.clock.set(reply.now);
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let late = matches!(error, CallError::Late);
                if !late || self.late.fetch_add(1, Ordering::Relaxed) + 1 >= LATE {
                    self.lose(error);
                }
            }
        }
    }

    fn lose(&self, error: &CallError) {
        if self.connection.send_if_modified(|connection| connection.take().is_some()) {
            tracing::warn!("{error}; requests are decided here until it is back");
        }
    }

    /// Connects, and makes sure that Redis answers as fast as decisions need it.
    pub(super) async fn connect(&self) -> Result<Connection, CallError> {
        let connecting = timeout(CONNECT_WITHIN, self.server.connect());
        let mut connection = connecting.await.map_err(|_| CallError::Late)??;
        // The first call brings the script, and what is cold is slow.
        connection.ask(&[], Terms::default()).await?;
        let probe = timeout(self.deadline, connection.ask(&[], Terms::default()));
        let reply = probe.await.map_err(|_| CallError::Late)??;
        self.clock.set(reply.now);
        Ok(connection)
    }

    /// Has requests decided by Redis again.
    pub(super) fn publish(&self, connection: Connection) {
        self.late.store(0, Ordering::Relaxed);
        self.connection.send_replace(Some(connection));
    }

    /// Asks whether Redis is still there, so that it is known before a request comes.
    pub(super) async fn probe(&self) {
        let connection = self.connection.borrow().clone();
        let Some(mut connection) = connection else { return };
        let asked = timeout(self.deadline, connection.ask(&[], Terms::default()));
        self.note(&asked.await.unwrap_or(Err(CallError::Late)));
    }
}

/// The clock of Redis, by what it said last.
struct Clock {
    epoch: Instant,
    /// What Redis's clock showed at the epoch; 0 until it is known.
    offset: AtomicU64,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { epoch: Instant::now(), offset: AtomicU64::new(0) };
        // Until Redis has said, its clock is taken to be right, as ours is.
        let now = crate::clock::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        clock.set(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        clock
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> u64 {
        self.offset.load(Ordering::Relaxed).saturating_add(self.elapsed())
    }

    fn set(&self, now: u64) {
        self.offset.store(now.saturating_sub(self.elapsed()), Ordering::Relaxed);
    }
}
