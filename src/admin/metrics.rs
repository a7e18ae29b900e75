//! Metrics in the text form of Prometheus (OpenMetrics).
//!
//! What happens is counted where it happens ([`Metrics`]); what is, is read from its owner when it is asked for
//! (`scrape`).

use std::time::Duration;

use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::State;
use super::error::Error;
use super::scrape::Now;
use crate::compile::Event;
use crate::exposition::CONTENT_TYPE;
use crate::values::Kind;

/// What is counted where it happens. A clone is another handle to the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    changes: Family<[(&'static str, String); 2], Counter>,
    compile: Histogram,
    sent: Histogram,
    acked: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // 0.1 ms to 26 s.
        let histogram = || Histogram::new(exponential_buckets(0.000_1, 2.0, 19));
        Self { changes: Family::default(), compile: histogram(), sent: histogram(), acked: histogram() }
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes were compiled to a snapshot in this time.
    pub fn observe_compile(&self, took: Duration) {
        self.compile.observe(took.as_secs_f64());
    }

    pub(super) fn count_change(&self, kind: Kind, event: Event) {
        let event = match event {
            Event::Applied => "applied",
            Event::Deleted => "deleted",
        };
        self.changes.get_or_create(&[("kind", kind.to_string()), ("event", event.to_owned())]).inc();
    }

    pub(super) fn observe_change(&self, sent: Duration, acked: Duration) {
        self.sent.observe(sent.as_secs_f64());
        self.acked.observe(acked.as_secs_f64());
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("changes", "Changes of objects that were seen", self.changes.clone());
        for (name, help, histogram) in [
            ("compile_duration", "Time to bring the snapshot up to date after changes", &self.compile),
            ("change_sent", "Time from an event until all Envoys were sent what follows", &self.sent),
            ("change_acked", "Time from an event until all Envoys acknowledged what follows", &self.acked),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }
}

pub(super) async fn metrics(Extract(state): Extract<State>) -> Result<Response, Error> {
    state.changes.measure_all();
    let mut registry = Registry::with_prefix("chancery");
    state.metrics.register(&mut registry);
    registry.register_collector(Box::new(Now(state)));
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| Error::unavailable(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
