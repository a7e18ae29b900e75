//! Rate limits, and what was decided by them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extract;

use super::State;
use super::error::Error;
use crate::compile::Published;
use crate::ratelimit::counters::Counters as _;
use crate::ratelimit::envoyproxy::Rules;
use crate::ratelimit::report::{self, Origins, Report};

/// Limits in force with where they come from, their decisions and the keys with the most hits.
pub(super) async fn ratelimits(Extract(state): Extract<State>) -> Result<Json<Report>, Error> {
    let Some(service) = &state.ratelimit else {
        return Err(Error::not_found("the rate limit service is not in this process"));
    };
    let published = state.published.borrow().clone();
    let store = service.counters.state();
    let (limits, origins) = (&published.limits, origins(&published));
    Ok(Json(report::report(&service.decisions, limits, &Rules::default(), &origins, store)))
}

/// The objects and fields that limits come from, in every host that has routes with them.
fn origins(published: &Published) -> Origins {
    let mut origins: BTreeMap<Arc<str>, BTreeSet<String>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for route in published.hosts.values().flat_map(|host| &host.routes) {
        // Routes of an object share them.
        if !seen.insert(Arc::as_ptr(&route.effects)) {
            continue;
        }
        for limit in &route.effects.rate_limits {
            origins.entry(limit.id.clone()).or_default().insert(limit.origin.to_string());
        }
    }
    origins.into_iter().map(|(id, origins)| (id, origins.into_iter().collect())).collect()
}
