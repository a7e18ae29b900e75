//! Limits of an Ingress: from annotations and snippets.

use std::sync::Arc;

use super::draft::Draft;
use super::policy_keys::one_of_several_is_empty;
use crate::features::cost::Cost;
use crate::features::effects::{Effects, HeaderOperation, Refusal, RouteLimit};
use crate::features::request_limits::RequestLimits;
use crate::features::snippets::{Branch, Rate};
use crate::model::limit::{Algorithm, Key, Limit, ToldAs};
use crate::settings::Settings;
use crate::values::{ObjectKey, Origin};

const SECOND_MS: u64 = 1000;
const MINUTE_MS: u64 = 60_000;

/// How long a request counts as under way if nobody says that it ended, since the Envoy that served it is gone.
const LEASE_MS: u64 = 10 * MINUTE_MS;

/// What counts where a rate is to be told and none is.
const NO_LIMIT: Algorithm = Algorithm::FixedWindow { requests: u32::MAX, window_ms: SECOND_MS };

/// `limit-rps` and its like.
pub(crate) fn of_annotations(
    draft: &mut Draft<'_>,
    key: &ObjectKey,
    limits: &RequestLimits,
    effects: &mut Effects,
) {
    let settings = draft.settings;
    let mut add = |name: &str, origin: &Origin, status: u16, algorithm: Algorithm| {
        let id: Arc<str> = format!("{key}/{name}").into();
        draft.limit(Limit::new(id.clone(), Key::ClientAddress, algorithm));
        effects.rate_limits.push(RouteLimit {
            id,
            key: Key::ClientAddress,
            tokens: Vec::new(),
            exempt: limits.exempt.clone(),
            under_way: matches!(algorithm, Algorithm::Concurrency { .. }),
            cost: Cost::One,
            after_auth: false,
            told: None,
            refusal: refusal(settings, status),
            origin: origin.clone(),
        });
    };
    let rates = [("limit-rps", &limits.per_second, SECOND_MS), ("limit-rpm", &limits.per_minute, MINUTE_MS)];
    for (name, limit, period_ms) in rates {
        let Some((requests, origin)) = limit else { continue };
        let burst = requests.saturating_mul(limits.burst_multiplier);
        add(name, origin, limits.status, Algorithm::limit_req(*requests, period_ms, burst));
    }
    if let Some((requests, origin)) = &limits.in_a_minute {
        let algorithm = Algorithm::window(*requests, MINUTE_MS);
        add("rate-limit", origin, limits.status, algorithm);
    }
    if let Some((limit, origin)) = &limits.connections {
        let algorithm = Algorithm::Concurrency { limit: *limit, lease_ms: LEASE_MS };
        add("limit-connections", origin, limits.connections_status, algorithm);
    }
    if let Some((requests, origin)) = &limits.in_a_minute {
        let message = format!(
            "is no annotation of ingress-nginx; it is read as {requests} requests a minute for each client address"
        );
        draft.findings.info(&origin.object, &*origin.field, "NotOfIngressNginx", message);
    }
}

/// What a branch of the snippets says, on top of what acts on all requests. `status` is that of refusals where no snippet
/// says so.
pub(crate) fn of_branch(draft: &mut Draft<'_>, branch: &Branch, status: u16, effects: &mut Effects) {
    effects.guards.extend(branch.guards.iter().cloned());
    effects.request_headers.extend(branch.request_headers.iter().cloned());
    effects.response_headers.extend(branch.response_headers.iter().cloned());
    for limit in &branch.limits {
        let id: Arc<str> = limit.id.as_str().into();
        if let Key::Header(name) = &limit.key {
            count_first(name, effects);
            effects.guards.push(one_of_several_is_empty(name, &limit.origin));
        }
        let (algorithm, told) = match &limit.rate {
            Rate::Fixed { requests, period_ms } => {
                (Algorithm::limit_req(*requests, *period_ms, limit.burst), None)
            }
            Rate::Told(header) => (NO_LIMIT, Some(header.clone())),
        };
        let told_as = told.as_ref().map(|_| ToldAs::LimitReq { burst: limit.burst });
        let rule = Limit::new(id.clone(), limit.key.clone(), algorithm);
        draft.limit(Limit { told: told_as, ..rule });
        effects.rate_limits.push(RouteLimit {
            id,
            key: limit.key.clone(),
            tokens: Vec::new(),
            exempt: Vec::new(),
            under_way: false,
            cost: Cost::One,
            after_auth: told.is_some(),
            told,
            refusal: refusal(draft.settings, limit.status.unwrap_or(status)),
            origin: limit.origin.clone(),
        });
    }
}

/// How a limit refuses that says no more than the status.
pub(super) fn refusal(settings: &Settings, status: u16) -> Refusal {
    let (fail_closed, untold) = (settings.limits_fail_closed, !settings.envoy_limit_headers);
    Refusal { fail_closed, untold, ..Refusal::status(status) }
}

/// Of several headers of a name Envoy counts the first. If the upstream saw another, a client could put a new one before
/// its key each time, and never come to its limit.
pub(super) fn count_first(header: &str, effects: &mut Effects) {
    let counted = HeaderOperation::Set(header.to_owned(), format!("%REQ({header})%"));
    if !effects.request_headers.contains(&counted) {
        effects.request_headers.push(counted);
    }
}
