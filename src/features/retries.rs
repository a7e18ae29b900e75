//! When and how often a request is tried again.
//!
//! ingress-nginx's `proxy-next-upstream: error timeout` with 3 tries is the default of Ingress routes: a request is
//! tried on another endpoint if nothing of it can have been processed. VirtualService's `retries` says it for itself.

use std::time::Duration;

use serde::Serialize;

/// When and how often a request is tried again.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// Envoy's `retry_on` names.
    pub on: Vec<String>,
    /// Statuses that are retried, with `retriable-status-codes` in `on`.
    pub statuses: Vec<u32>,
    /// Tries after the first.
    pub attempts: u32,
    /// Longest time of one try.
    pub per_try_timeout: Option<Duration>,
    /// Base of the back-off between tries.
    pub back_off: Option<Duration>,
    /// Whether a retry avoids endpoints that were tried.
    pub previous_hosts: bool,
}

impl Retries {
    /// ingress-nginx's default: never a request that an upstream may have begun to process.
    pub fn ingress_nginx() -> Self {
        Self {
            on: ["connect-failure", "refused-stream", "reset-before-request"].map(str::to_owned).to_vec(),
            statuses: Vec::new(),
            attempts: 2,
            per_try_timeout: None,
            back_off: None,
            previous_hosts: true,
        }
    }
}
