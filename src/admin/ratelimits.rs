//! Rate limits, and what was decided by them.

use axum::Json;
use axum::extract::State as Extract;

use super::State;
use super::error::Error;
use crate::ratelimit::decisions::Report;

/// Limits in force with their decisions.
pub(super) async fn ratelimits(Extract(state): Extract<State>) -> Result<Json<Report>, Error> {
    let Some(service) = &state.ratelimit else {
        return Err(Error::not_found("the rate limit service is not in this process"));
    };
    let published = state.published.borrow().clone();
    let usage = service.counters.as_ref().map(|counters| counters.usage());
    Ok(Json(service.decisions.report(&published.limits, usage)))
}
