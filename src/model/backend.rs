//! Where requests go: one backend becomes one cluster.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::features::backend_protocol::Protocol;
use crate::values::HostName;

/// One namespace, service, port and policy, as one Envoy cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The cluster's name: what it is, and a hash of its settings, so that a cluster never changes in place.
    pub name: Arc<str>,
    /// Where its endpoints come from.
    pub endpoints: Endpoints,
    /// How it is spoken to; never [`Protocol::AutoHttp`].
    pub protocol: Protocol,
    /// Longest time for a connection to be made.
    pub connect_timeout: Duration,
}

/// Where endpoints come from.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Endpoints {
    /// A Service's, delivered by EDS.
    Service(EndpointSetKey),
    /// A DNS name's.
    Dns {
        /// The name.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
}

/// A Service port's endpoints.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSetKey {
    /// The Service's namespace.
    pub namespace: Arc<str>,
    /// The Service's name.
    pub service: Arc<str>,
    /// The Service port's number.
    pub port: u16,
}

impl fmt::Display for EndpointSetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.service, self.port)
    }
}

/// The endpoints of a Service port, sorted.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSet {
    /// Whose.
    pub key: EndpointSetKey,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Whether it takes new requests.
    pub health: Health,
}

/// Whether an endpoint takes new requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Health {
    /// It does.
    Ready,
    /// It is going away: what is in flight ends there, nothing new begins.
    Draining,
}

/// The host part of a `host` scope is a name that can be resolved by DNS.
pub fn is_dns_name(text: &str) -> bool {
    HostName::parse(text).is_ok_and(|host| !host.is_wildcard())
}
