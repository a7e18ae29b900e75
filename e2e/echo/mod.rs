//! Echo servers: real backends that answer with what they saw, and remember it.

mod answer;
mod records;
mod server;
mod websocket;

pub(crate) use records::{Record, Records};
pub(crate) use server::EchoServer;

use crate::case::Backend;
use crate::case::values::BackendKey;
use rustls::ServerConfig;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// The response header that says which record an answer belongs to, so that the answering server is told from one that
/// got a copy, whatever the body is.
pub(crate) const RECORD_HEADER: &str = "x-e2e-record";

/// The request header that tells requests apart.
pub(crate) const ID_HEADER: &str = "x-e2e-id";

/// What all replicas of one backend key share.
pub(crate) struct Shared {
    pub(crate) key: BackendKey,
    pub(crate) options: Backend,
    pub(crate) records: Arc<Records>,
    /// Requests seen, for `fail_first`.
    pub(crate) requests: AtomicU64,
    /// How to speak TLS; only for protocol `https`.
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

/// The next free address of 198.18.0.0/15. Every echo server of a run has one of its own.
pub(crate) fn next_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // .0.0 is the block itself and .0.1 the address of the interface.
    let offset = 2 + NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % ((1 << 17) - 3);
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + offset)
}
