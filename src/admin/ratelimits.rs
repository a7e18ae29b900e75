//! Rate limits, and what was decided by them.

use axum::Json;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::State;
use super::error::Error;
use crate::ratelimit::decisions::Report;
use crate::values::hash;

/// Limits in force with their decisions.
pub(super) async fn ratelimits(Extract(state): Extract<State>) -> Result<Json<Report>, Error> {
    let Some(service) = &state.ratelimit else {
        return Err(Error::not_found("the rate limit service is not in this process"));
    };
    let published = state.published.borrow().clone();
    let (usage, store) = (service.counters.usage(), service.counters.state());
    Ok(Json(service.decisions.report(&published.limits, usage, store)))
}

/// The limits alone, for a rate limit service in another process. Until every source was read they are not known:
/// an empty set would let everything through.
pub(super) async fn limits(Extract(state): Extract<State>, headers: HeaderMap) -> Result<Response, Error> {
    let published = state.published.borrow().clone();
    if state.snapshots.borrow().is_none() || !published.ready {
        return Err(Error::unavailable(
            "limits are not known yet: not every source has been read in full once",
        ));
    }
    let tag = format!("\"{:016x}\"", hash::stable(&published.limits));
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag.as_str()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    Ok(([(header::ETAG, tag)], Json(&published.limits)).into_response())
}
