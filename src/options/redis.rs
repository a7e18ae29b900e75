//! Where a Redis or a Valkey is, and how it is asked.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};

use crate::model::limit::FailureMode;

/// One server, a cluster, or whichever server its sentinels name.
///
/// ```text
/// redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]                      one server; rediss:// with TLS; redis+unix:///PATH
/// redis://HOST:PORT,redis://HOST:PORT                             a cluster, by some of its servers
/// redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],HOST[:PORT]/NAME[/DB]    rediss+sentinel:// with TLS to all
/// ```
#[derive(Clone)]
pub struct RedisAddress {
    pub(crate) kind: Kind,
    /// What of it may be shown: no password.
    shown: String,
}

#[derive(Clone)]
pub(crate) enum Kind {
    One(ConnectionInfo),
    Cluster(Vec<ConnectionInfo>),
    Sentinel {
        /// The sentinels. The credentials and the database are the server's.
        sentinels: Vec<ConnectionInfo>,
        name: String,
    },
}

/// Text that says not where a Redis is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}: write redis://HOST:PORT, rediss://HOST:PORT, several of them with commas between for a cluster, or \
     redis+sentinel://HOST:PORT,HOST:PORT/NAME"
)]
pub struct RedisAddressError(String);

impl RedisAddressError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl FromStr for RedisAddress {
    type Err = RedisAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = match text.split_once("+sentinel://") {
            Some((scheme @ ("redis" | "rediss"), rest)) => sentinel(scheme, rest)?,
            _ => {
                let urls: Vec<&str> = text.split(',').collect();
                let mut servers = urls.iter().map(|url| server(url)).collect::<Result<Vec<_>, _>>()?;
                match servers.len() {
                    1 => Kind::One(servers.remove(0)),
                    _ => Kind::Cluster(servers),
                }
            }
        };
        let shown = kind.servers().map(|server| server.addr().to_string()).collect::<Vec<_>>().join(",");
        Ok(Self { kind, shown })
    }
}

impl Kind {
    fn servers(&self) -> impl Iterator<Item = &ConnectionInfo> {
        match self {
            Self::One(server) => std::slice::from_ref(server).iter(),
            Self::Cluster(servers) | Self::Sentinel { sentinels: servers, .. } => servers.iter(),
        }
    }
}

/// A URL may hold a password, so no message repeats it.
fn server(url: &str) -> Result<ConnectionInfo, RedisAddressError> {
    let known = ["redis://", "rediss://", "redis+unix://"].iter().any(|scheme| url.starts_with(scheme));
    if !known {
        return Err(RedisAddressError::new("no address of a Redis"));
    }
    if url.contains('#') {
        return Err(RedisAddressError::new("`#` has no meaning in an address of a Redis"));
    }
    url.into_connection_info().map_err(|error| RedisAddressError::new(error.to_string()))
}

fn sentinel(scheme: &str, rest: &str) -> Result<Kind, RedisAddressError> {
    const PORT: u16 = 26_379;
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (format!("{user}@"), rest),
        None => (String::new(), rest),
    };
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, db) = path.split_once('/').unwrap_or((path, ""));
    if name.is_empty() {
        return Err(RedisAddressError::new("the name that the sentinels know the servers by is missing"));
    }
    let one = |host: &str| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if has_port { String::new() } else { format!(":{PORT}") };
        server(&format!("{scheme}://{user}{host}{port}/{db}"))
    };
    let sentinels = hosts.split(',').map(one).collect::<Result<_, _>>()?;
    Ok(Kind::Sentinel { sentinels, name: name.to_owned() })
}

impl PartialEq for RedisAddress {
    fn eq(&self, other: &Self) -> bool {
        self.shown == other.shown
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A Redis that is shared.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisOptions {
    /// Where it is.
    pub address: RedisAddress,
    /// The PEM file of the authorities that may have signed its certificate; those of the system unless given.
    pub authority: Option<PathBuf>,
    /// The PEM files of our own certificate and of its key, for a Redis that asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How it is asked.
    pub mode: RedisMode,
    /// How long an answer is waited for.
    pub deadline: Duration,
    /// What becomes of requests whose limit says nothing of it, while it is away.
    pub failure_mode: FailureMode,
}

impl RedisOptions {
    /// Whether requests whose limit says nothing of it are refused while it is away.
    #[must_use]
    pub fn fails_closed(&self) -> bool {
        self.failure_mode == FailureMode::Closed
    }
}

/// How Redis is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RedisMode {
    /// For every request.
    #[default]
    Exact,
    /// For blocks of hits, which are then given out here.
    Leased,
}

impl RedisAddress {
    /// Whether what is sent there goes over TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.kind.servers().all(|server| matches!(server.addr(), ConnectionAddr::TcpTls { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, kind, shown, tls) in [
            ("redis://a", "one", "a:6379", false),
            ("redis://u:secret@a:1/2", "one", "a:1", false),
            ("rediss://:secret@a:1", "one", "a:1", true),
            ("redis+unix:///run/r.sock", "one", "/run/r.sock", false),
            ("redis://a:1,redis://b:2", "cluster", "a:1,b:2", false),
            ("redis+sentinel://a,b:1/main", "sentinel main", "a:26379,b:1", false),
            ("rediss+sentinel://u:sec@ret@a:1/main/3", "sentinel main", "a:1", true),
        ] {
            let address: RedisAddress = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let read = match &address.kind {
                Kind::One(_) => "one".to_owned(),
                Kind::Cluster(_) => "cluster".to_owned(),
                Kind::Sentinel { name, .. } => format!("sentinel {name}"),
            };
            assert_eq!(
                (read.as_str(), address.to_string().as_str(), address.has_tls()),
                (kind, shown, tls),
                "{text}"
            );
            assert!(!format!("{address:?}").contains("sec"), "{text}");
        }
        for bad in [
            "",
            "a:1",
            "http://a",
            "redis://",
            "redis://a:1/x",
            "redis://a,b",
            "rediss://a#insecure",
            "redis+sentinel://a:1",
            "redis+sentinel://:secret@/x",
        ] {
            let error = bad.parse::<RedisAddress>().expect_err(bad).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
