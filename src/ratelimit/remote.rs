//! Limits followed from a control plane in another process: its debug endpoint is asked every second.
//!
//! The last good set stays in force while the control plane is away or answers with anything else than limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::model::limit::LimitSet;

/// Where the control plane's debug endpoint has its limits, as JSON of a [`LimitSet`].
pub const LIMITS_PATH: &str = "/debug/ratelimits/limits";

const POLL_EVERY: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer; some two million limits.
const LARGEST_ANSWER: usize = 256 << 20;

/// An address that cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("`{address}` is not the HOST:PORT of a control plane's debug endpoint")]
pub struct AddressError {
    address: String,
}

#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error("cannot be asked: {0}")]
    Request(#[from] hyper_util::client::legacy::Error),
    #[error("answered with status {0}")]
    Status(StatusCode),
    #[error("broke off its answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("answered with something else than limits: {0}")]
    Json(#[from] serde_json::Error),
    #[error("did not answer in time")]
    Timeout,
}

/// Follows the limits of the control plane at `server` (`HOST:PORT`) into `limits`, until nobody receives them. The
/// first set is sent even if it is empty; after that, only a set that differs is. An answer's `ETag` is sent back as
/// `If-None-Match`, so that an unchanged set costs no transfer where the other side knows how.
///
/// # Errors
/// When `server` cannot be a part of a URL.
pub fn follow(
    server: &str,
    limits: watch::Sender<Arc<LimitSet>>,
) -> Result<impl Future<Output = ()> + Send + use<>, AddressError> {
    Ok(Poller::new(server, POLL_EVERY)?.run(limits))
}

struct Poller {
    client: Client<HttpConnector, Empty<Bytes>>,
    uri: Uri,
    every: Duration,
    etag: Option<header::HeaderValue>,
}

impl Poller {
    fn new(server: &str, every: Duration) -> Result<Self, AddressError> {
        let uri = Uri::builder().scheme("http").authority(server).path_and_query(LIMITS_PATH).build();
        let uri = uri.map_err(|_| AddressError { address: server.into() })?;
        Ok(Self { client: Client::builder(TokioExecutor::new()).build_http(), uri, every, etag: None })
    }

    async fn run(mut self, limits: watch::Sender<Arc<LimitSet>>) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut known, mut well) = (false, true);
        loop {
            tokio::select! {
                () = limits.closed() => return,
                _ = ticks.tick() => {}
            }
            match timeout(ANSWER_WITHIN, self.poll()).await.unwrap_or(Err(PollError::Timeout)) {
                Ok(set) => {
                    if let Some(set) = set {
                        publish(&limits, set, !known);
                        known = true;
                    }
                    if !well {
                        tracing::info!(server = %self.uri, "the control plane is back");
                    }
                    well = true;
                }
                Err(error) => {
                    if well {
                        tracing::warn!(server = %self.uri, "the control plane {error}; the last limits stay");
                    }
                    well = false;
                }
            }
        }
    }

    /// One question. Nothing, if the set is the one of the last answer.
    async fn poll(&mut self) -> Result<Option<LimitSet>, PollError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.uri.clone();
        if let Some(etag) = &self.etag {
            request.headers_mut().insert(header::IF_NONE_MATCH, etag.clone());
        }
        let response = self.client.request(request).await?;
        match response.status() {
            StatusCode::NOT_MODIFIED => return Ok(None),
            StatusCode::OK => {}
            other => return Err(PollError::Status(other)),
        }
        let etag = response.headers().get(header::ETAG).cloned();
        let body =
            Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(PollError::Body)?;
        let set = serde_json::from_slice(&body.to_bytes())?;
        self.etag = etag;
        Ok(Some(set))
    }
}

fn publish(limits: &watch::Sender<Arc<LimitSet>>, set: LimitSet, first: bool) {
    limits.send_if_modified(|current| {
        let changed = first || **current != set;
        if changed {
            *current = Arc::new(set);
        }
        changed
    });
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
