//! What `serve` and `run` are asked to do: plain data between the command line and the application.

mod redis;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

pub(crate) use redis::Kind as RedisKind;
pub use redis::{RedisAddress, RedisAddressError, RedisMode, RedisOptions};

use crate::settings::Settings;

/// What the control plane is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeOptions {
    /// What decides the resources.
    pub settings: Settings,
    /// The folder of manifests to follow; without one it is Kubernetes.
    pub manifests: Option<PathBuf>,
    /// How Kubernetes is reached, and what is written back to it.
    pub kubernetes: KubernetesOptions,
    /// Where the services listen.
    pub listen: Listen,
    /// Mutual TLS of the xDS port; without it, only loopback or a trusted network may be listened on.
    pub xds_tls: Option<TlsFiles>,
    /// Where the rate limit service is.
    pub ratelimit: Place,
    /// Host and port at which Envoys reach the embedded one; without it, [`reached_at`] says.
    pub ratelimit_address: Option<(String, u16)>,
    /// Mutual TLS to the rate limit service: the folder, as Envoys see it, with their secrets.
    pub ratelimit_tls: Option<String>,
    /// The Redis that shares the counters of the embedded rate limit service.
    pub redis: Option<RedisOptions>,
    /// How clients are told what limits have left.
    pub limit_headers: LimitHeaders,
    /// The file with who may ask the quota API; without it, those on this machine.
    pub quota_token_file: Option<PathBuf>,
    /// The folder for the last good snapshot.
    pub state_dir: Option<PathBuf>,
}

/// What `run` is asked to do: the control plane, and an Envoy beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOptions {
    /// The control plane's part.
    pub serve: ServeOptions,
    /// The Envoy binary.
    pub envoy: PathBuf,
    /// Where that Envoy's admin interface listens; port 0 picks one.
    pub envoy_admin: SocketAddr,
    /// The bytes of memory that there are for this process and that Envoy, if there is a limit.
    pub envoy_memory: Option<u64>,
}

/// How Kubernetes is reached, and what is written back to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubernetesOptions {
    /// The kubeconfig file; without one, the usual places and then the Pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The namespaces that are watched; empty means all.
    pub watch_namespaces: Vec<String>,
    /// Addresses or host names that the status of routing objects shows.
    pub publish_status_addresses: Vec<String>,
    /// Namespace and name of the Service whose addresses the status of routing objects shows.
    pub publish_service: Option<(String, String)>,
    /// Whether of several replicas one alone writes.
    pub leader_election: bool,
}

/// Where the services listen. Port 0 picks one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Listen {
    /// xDS.
    pub xds: SocketAddr,
    /// Debug endpoint, health and metrics.
    pub admin: SocketAddr,
    /// Health and metrics apart from the rest of the debug endpoint, if anywhere.
    pub health: Option<SocketAddr>,
    /// The rate limit service.
    pub ratelimit: SocketAddr,
}

/// The PEM files of mutual TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsFiles {
    /// The certificate chain that is shown to the other side.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that must have signed the other side's certificate.
    pub authority: PathBuf,
}

/// How clients are told what limits have left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LimitHeaders {
    /// Not at all.
    None,
    /// By Envoy: x-ratelimit-*, and retry-after beside a 429.
    #[default]
    #[value(name = "draft-03")]
    Draft03,
    /// By the rate limit service: RateLimit, RateLimit-Policy, and Retry-After beside every refusal.
    Ietf,
    /// By both; retry-after is Envoy's.
    Both,
}

impl LimitHeaders {
    /// Whether Envoy tells them.
    #[must_use]
    pub fn of_envoy(self) -> bool {
        matches!(self, Self::Draft03 | Self::Both)
    }

    /// Whether the rate limit service tells them.
    #[must_use]
    pub fn of_service(self) -> bool {
        matches!(self, Self::Ietf | Self::Both)
    }
}

/// Where a service that Envoy calls is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this process.
    Embedded,
    /// At this `HOST:PORT`.
    Remote(String),
    /// Nowhere.
    Off,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "off" => Ok(Self::Off),
            address => {
                host_port(address).map_err(|_| "expected `embedded`, `off` or HOST:PORT".to_owned())?;
                Ok(Self::Remote(address.to_owned()))
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Remote(address) => address,
            Self::Off => "off",
        })
    }
}

/// Host and port of `HOST:PORT`. The host is a DNS name or an address; brackets around an IPv6 address are taken off.
///
/// # Errors
/// The accepted form.
pub fn host_port(text: &str) -> Result<(String, u16), String> {
    let form = || "expected HOST:PORT".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(form)?;
    let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(Some(address)) => address.parse::<std::net::Ipv6Addr>().map_err(|_| form())?.to_string(),
        Some(None) => return Err(form()),
        None => host.to_owned(),
    };
    let is_name = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let known = !host.is_empty()
        && (is_name(&host) || host.parse::<std::net::Ipv6Addr>().is_ok() && text.starts_with('['));
    if known { Ok((host, port)) } else { Err(form()) }
}

/// The address at which Envoys reach a service that listens in this process: that of its listener or, where that is
/// every address, this Pod's, else the one at which they reach xDS. What is left is an Envoy on this machine.
pub fn reached_at(listener: SocketAddr, pod: Option<IpAddr>, xds: IpAddr) -> SocketAddr {
    let candidates = [Some(listener.ip()), pod, Some(xds)];
    let known = candidates.into_iter().flatten().find(|ip| !ip.is_unspecified());
    SocketAddr::new(known.unwrap_or(Ipv4Addr::LOCALHOST.into()), listener.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_service_is_reached() {
        for (listener, pod, xds, expected) in [
            ("127.0.0.1:2", None, "127.0.0.1", "127.0.0.1:2"),
            ("10.0.0.5:2", Some("10.0.0.9"), "0.0.0.0", "10.0.0.5:2"),
            ("0.0.0.0:2", Some("10.0.0.9"), "0.0.0.0", "10.0.0.9:2"),
            ("0.0.0.0:2", None, "10.0.0.7", "10.0.0.7:2"),
            ("[::]:2", Some("fd00::1"), "::", "[fd00::1]:2"),
            ("0.0.0.0:2", None, "0.0.0.0", "127.0.0.1:2"),
            ("0.0.0.0:2", None, "127.0.0.1", "127.0.0.1:2"),
        ] {
            let pod = pod.map(|ip| ip.parse().unwrap());
            let address = reached_at(listener.parse().unwrap(), pod, xds.parse().unwrap());
            assert_eq!(address.to_string(), expected, "{listener} {pod:?} {xds}");
        }
    }

    #[test]
    fn places() {
        for (text, host) in [("localhost:1", "localhost"), ("10.0.0.1:80", "10.0.0.1"), ("[::1]:80", "::1")] {
            assert_eq!(host_port(text).map(|(host, _)| host).as_deref(), Ok(host));
            assert_eq!(Place::from_str(text), Ok(Place::Remote(text.into())));
        }
        assert_eq!(Place::from_str("embedded"), Ok(Place::Embedded));
        assert_eq!(Place::from_str("off"), Ok(Place::Off));
        for text in [
            "",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:99999",
            "::1:80",
            "[::1",
            "[x]:80",
            "a b:80",
            "http://a:80",
        ] {
            assert!(Place::from_str(text).is_err(), "{text}");
        }
    }
}
