//! Limits of a routing object: from annotations, and from the RateLimitPolicies that target it.

use super::draft::Draft;
use crate::features::effects::{Effects, LimitKey, LimitStatus, RouteLimit};
use crate::features::request_limits::RequestLimits;
use crate::model::limit::{Algorithm, Key, Limit};
use crate::values::{ObjectKey, Origin};

const SECOND_MS: u64 = 1000;
const MINUTE_MS: u64 = 60_000;

/// `limit-rps` and `limit-rpm`.
pub(crate) fn of_annotations(
    draft: &mut Draft<'_>,
    key: &ObjectKey,
    limits: &RequestLimits,
    effects: &mut Effects,
) {
    let mut add = |name: &str, limit: &Option<(u32, Origin)>, period_ms: u64| {
        let Some((requests, origin)) = limit else { return };
        let burst = requests.saturating_mul(limits.burst_multiplier);
        let id: std::sync::Arc<str> = format!("{key}/{name}").into();
        draft.limit(Limit {
            id: id.clone(),
            key: Key::ClientAddress,
            algorithm: Algorithm::limit_req(*requests, period_ms, burst),
        });
        effects.rate_limits.push(RouteLimit {
            id,
            key: LimitKey::ClientAddress,
            status: LimitStatus::ServiceUnavailable,
            origin: origin.clone(),
        });
    };
    add("limit-rps", &limits.per_second, SECOND_MS);
    add("limit-rpm", &limits.per_minute, MINUTE_MS);
}
