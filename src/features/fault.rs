//! Faults on purpose, by Envoy's `fault` filter.

use std::time::Duration;

use serde::Serialize;

/// A delay, an abort, or both.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The delay, and the share of requests that have it, in millionths.
    pub delay: Option<(Duration, u32)>,
    /// The abort, and the share of requests that have it, in millionths.
    pub abort: Option<(Abort, u32)>,
}

/// How a request is aborted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Abort {
    /// With an HTTP status.
    Http(u32),
    /// With a gRPC status code.
    Grpc(u32),
}
