//! Limits of a routing object: from annotations, and from the RateLimitPolicies that target it.

use std::collections::HashMap;
use std::sync::Arc;

use super::draft::Draft;
use crate::crd::rate_limit_policy::{KeyChoice, PolicyLimit};
use crate::features::effects::{
    Answer, Effects, Guard, HeaderOperation, LimitKey, LimitStatus, Listeners, Phase, RouteLimit,
};
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
        let id: Arc<str> = format!("{key}/{name}").into();
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
/// no key must not mean no limit. Nor must a limit that cannot be read: all requests are answered 503.
pub(crate) fn of_policies(draft: &mut Draft<'_>, key: &ObjectKey, effects: &mut Effects) {
    let policies: Vec<_> = draft.view.rate_limit_policies(key).collect();
    for (policy_key, policy) in policies {
        for path in policy.spec.unknown_paths() {
            draft.findings.warning(policy_key, path, "UnknownField", "is not a field of a RateLimitPolicy");
        }
        let mut ids = Ids::default();
        for (index, limit) in policy.spec.limits.iter().enumerate() {
            let origin = Origin::new(policy_key, format!("spec.limits[{index}]"));
            of_policy(draft, &origin, limit, &mut ids, effects);
        }
    }
}

/// Ids of a policy's limits, by what they count and for how long. Not by their place in the list, so that a limit keeps
/// its counters when others come and go before it; nor by the number of requests, so that an edit of that is no edit of
/// routes.
#[derive(Debug, Default)]
struct Ids(HashMap<String, usize>);

impl Ids {
    fn next(&mut self, policy: &ObjectKey, key: &Key, window_ms: u64) -> Arc<str> {
        let window = window_ms / SECOND_MS;
        let id = match key {
            Key::ClientAddress => format!("{policy}/clientAddress/{window}s"),
            Key::Header(name) => format!("{policy}/header/{name}/{window}s"),
        };
        let same = self.0.entry(id.clone()).or_default();
        *same += 1;
        // Two that count the same for as long: the smaller one counts, but both are what was asked for.
        if *same > 1 { format!("{id}/{same}").into() } else { id.into() }
    }
}

fn of_policy(
    draft: &mut Draft<'_>,
    origin: &Origin,
    limit: &PolicyLimit,
    ids: &mut Ids,
    effects: &mut Effects,
) {
    let mut refuse = |field: &str, problem: String| {
        let field = format!("{}.{field}", origin.field);
        let message = format!("{problem}; requests to the policy's target are answered 503");
        draft.findings.error(&origin.object, field, "InvalidLimit", message);
        effects.guards.push(Guard::unavailable(origin.clone()));
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
        KeyChoice::Header(name) if !header::is_name(&name) || name.contains('%') => {
            return refuse(
                "key.header",
                "a header name has at most 128 characters, and no % among them".to_owned(),
            );
        }
        KeyChoice::Header(name) => {
            for guard in missing_key(&name, origin) {
                // Another limit may ask for the same header.
                if !effects
                    .guards
                    .iter()
                    .any(|other| (other.phase, &other.when) == (guard.phase, &guard.when))
                {
                    effects.guards.push(guard);
                }
            }
            // Of several headers of the name Envoy counts the first. If the upstream saw another, a client could put a new
            // one before its key each time, and never come to its limit.
            let counted = HeaderOperation::Set(name.clone(), format!("%REQ({name})%"));
            if !effects.request_headers.contains(&counted) {
                effects.request_headers.push(counted);
            }
            (LimitKey::Header(name.clone()), Key::Header(name.into()))
        }
    };
    let id = ids.next(&origin.object, &key, window_ms);
    let algorithm = Algorithm::window(limit.requests, window_ms);
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crd::virtual_service::VirtualService;
    use crate::resolve;
    use crate::settings::Settings;
    use crate::store::{Object, Store, Stored, View};
    use crate::values::{Age, HostName};

    /// A host whose one policy has these limits.
    fn host(limits: &[Value]) -> resolve::Resolved {
        let service: VirtualService = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "api"},
            "spec": {"hosts": ["x.io"], "gateways": ["gw"], "http": [{"directResponse": {"status": 200}}]},
        }))
        .unwrap();
        let policy = serde_json::from_value(json!({
            "apiVersion": "chancery.dev/v1alpha1",
            "kind": "RateLimitPolicy",
            "metadata": {"namespace": "shop", "name": "quota"},
            "spec": {"targetRef": {"kind": "VirtualService", "name": "api"}, "limits": limits},
        }))
        .unwrap();
        let mut store = Store::new("cluster.local");
        for object in [Object::VirtualService(Box::new(service)), Object::RateLimitPolicy(policy)] {
            store.apply(Arc::new(Stored::new(object, Age::default(), Vec::new())));
        }
        let host = HostName::parse("x.io").unwrap();
        resolve::host(&View::new(&store), &Settings::default(), &host)
    }

    /// The ids of the limits that a policy with these makes, and what was found.
    fn ids(limits: &[Value]) -> (Vec<String>, Vec<String>) {
        let resolved = host(limits);
        let limits = resolved.host.unwrap().limits;
        let found = resolved.findings.iter().filter(|finding| finding.object.name.as_ref() == "quota");
        (
            limits.iter().map(|limit| limit.id.to_string()).collect(),
            found.map(|finding| finding.field.clone()).collect(),
        )
    }

    #[test]
    fn ids_do_not_depend_on_places() {
        let by_header = json!({"key": {"header": "X-Api-Key"}, "requests": 5, "window": "1m"});
        let by_day = json!({"key": {"header": "x-api-key"}, "requests": 1000, "window": "24h"});
        let by_address = json!({"key": {"clientAddress": {}}, "requests": 9, "window": "60s"});
        let broken = json!({"key": {"clientAddress": {}}, "requests": 9, "window": "soon"});
        let (before, _) = ids(&[by_header.clone(), by_day.clone()]);
        assert_eq!(
            before,
            [
                "RateLimitPolicy/shop/quota/header/x-api-key/60s",
                "RateLimitPolicy/shop/quota/header/x-api-key/86400s"
            ]
        );
        let (after, found) = ids(&[by_address, broken, by_day, by_header]);
        assert_eq!(after, ["RateLimitPolicy/shop/quota/clientAddress/60s", &before[1], &before[0]]);
        assert_eq!(found, ["spec.limits[1].window"]);
    }

    #[test]
    fn what_cannot_be_read_lets_nothing_through() {
        let by_address = json!({"key": {"clientAddress": {}}, "requests": 9, "window": "60s"});
        for (broken, field) in [
            (json!({"key": {"clientAddress": {}}, "requests": 9, "window": "1O"}), "spec.limits[1].window"),
            (json!({"key": {"header": "a b"}, "requests": 9, "window": "1s"}), "spec.limits[1].key"),
            (json!({"key": {"header": "a%b"}, "requests": 9, "window": "1s"}), "spec.limits[1].key.header"),
            (json!({"key": {"heder": "a"}, "requests": 9, "window": "1s"}), "spec.limits[1].key"),
            (json!({"key": {}, "requests": 9, "window": "1s"}), "spec.limits[1].key"),
        ] {
            let limits = [by_address.clone(), broken];
            assert_eq!(ids(&limits).1, [field]);
            let guards = &host(&limits).host.unwrap().routes[0].effects.guards;
            assert!(matches!(&guards[..], [Guard { phase: Phase::Unavailable, .. }]), "{guards:?}");
        }
    }

    #[test]
    fn a_header_is_asked_for_once() {
        let by_header = |window| json!({"key": {"header": "x-api-key"}, "requests": 5, "window": window});
        let host = host(&[by_header("1s"), by_header("1m")]).host.unwrap();
        let effects = &host.routes[0].effects;
        assert_eq!((effects.rate_limits.len(), effects.guards.len()), (2, 2));
    }

    #[test]
    fn equal_ones_are_two_all_the_same() {
        let limit = |requests| json!({"key": {"clientAddress": true}, "requests": requests, "window": "1s"});
        let (ids, _) = ids(&[limit(1), limit(2)]);
        assert_eq!(
            ids,
            ["RateLimitPolicy/shop/quota/clientAddress/1s", "RateLimitPolicy/shop/quota/clientAddress/1s/2"]
        );
    }
}
