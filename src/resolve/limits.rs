//! Limits of a routing object: from annotations, and from the RateLimitPolicies that target it.

use super::draft::Draft;
use crate::crd::rate_limit_policy::{KeyChoice, PolicyLimit};
use crate::features::effects::{Answer, Effects, Guard, LimitKey, LimitStatus, Listeners, Phase, RouteLimit};
use crate::features::request_limits::RequestLimits;
use crate::model::limit::{Algorithm, Key, Limit};
use crate::values::matching::{HeaderMatch, TextMatch};
use crate::values::{ObjectKey, Origin, header};

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

/// The RateLimitPolicies that target the object. A request without the header that a limit counts by is answered 401:
/// no key must not mean no limit.
pub(crate) fn of_policies(draft: &mut Draft<'_>, key: &ObjectKey, effects: &mut Effects) {
    let policies: Vec<_> = draft.view.rate_limit_policies(key).collect();
    for (policy_key, policy) in policies {
        for path in policy.spec.unknown_paths() {
            draft.findings.warning(policy_key, path, "UnknownField", "is not a field of a RateLimitPolicy");
        }
        for (index, limit) in policy.spec.limits.iter().enumerate() {
            let origin = Origin::new(policy_key, format!("spec.limits[{index}]"));
            of_policy(draft, &origin, limit, effects);
        }
    }
}

fn of_policy(draft: &mut Draft<'_>, origin: &Origin, limit: &PolicyLimit, effects: &mut Effects) {
    let mut refuse = |field: &str, message: String| {
        let field = format!("{}.{field}", origin.field);
        draft.findings.error(
            &origin.object,
            field,
            "InvalidLimit",
            format!("{message}; the limit has no effect"),
        );
    };
    let choice = match limit.key.choose() {
        Ok(choice) => choice,
        Err(error) => return refuse("key", error.to_string()),
    };
    let window_ms = match limit.window_ms() {
        Ok(window_ms) => window_ms,
        Err(error) => return refuse("window", error.to_string()),
    };
    let (limit_key, key) = match choice {
        KeyChoice::ClientAddress => (LimitKey::ClientAddress, Key::ClientAddress),
        KeyChoice::Header(name) if !header::is_name(&name) => {
            return refuse("key.header", "a header name has at most 128 characters".to_owned());
        }
        KeyChoice::Header(name) => {
            effects.guards.extend(missing_key(&name, origin));
            (LimitKey::Header(name.clone()), Key::Header(name.into()))
        }
    };
    let id: std::sync::Arc<str> = format!("{}/{}", origin.object, origin.field).into();
    let algorithm = Algorithm::FixedWindow { requests: limit.requests, window_ms };
    draft.limit(Limit { id: id.clone(), key, algorithm });
    effects.rate_limits.push(RouteLimit {
        id,
        key: limit_key,
        status: LimitStatus::TooManyRequests,
        origin: origin.clone(),
    });
}

/// The answers to requests that cannot be counted: without the header, or with an empty one, which would be a key that
/// everybody shares.
fn missing_key(header: &str, origin: &Origin) -> [Guard; 2] {
    let guard = |when| Guard {
        phase: Phase::Limits,
        listeners: Listeners::All,
        when: vec![when],
        answer: Answer::Direct {
            status: 401,
            body: format!("the {header} header is required\n").into_bytes(),
        },
        origin: origin.clone(),
    };
    let absent = HeaderMatch::new(header, TextMatch::Present).inverted();
    [guard(absent), guard(HeaderMatch::exact(header, ""))]
}
