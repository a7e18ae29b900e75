//! What becomes of the limits of a policy.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::crd::virtual_service::VirtualService;
use crate::features::effects::{Answer, Phase};
use crate::resolve;
use crate::settings::Settings;
use crate::store::{Object, Store, Stored, View};
use crate::values::{Age, Findings, HostName};

#[path = "policy_terms_tests.rs"]
mod terms;

/// A host whose one policy has these limits.
fn host(limits: &[Value]) -> resolve::Resolved {
    host_with(json!({"targetRef": {"kind": "VirtualService", "name": "api"}, "limits": limits}))
}

/// A host whose one policy says this.
fn host_with(spec: Value) -> resolve::Resolved {
    host_beside(spec, Vec::new())
}

/// A host whose one policy says this, beside Secrets.
fn host_beside(spec: Value, secrets: Vec<Value>) -> resolve::Resolved {
    let policy = serde_json::from_value(json!({
        "apiVersion": "chancery.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"namespace": "shop", "name": "quota"},
        "spec": spec,
    }))
    .unwrap();
    let secrets = secrets.into_iter().map(|value| {
        let mut secret = serde_json::from_value(value).unwrap();
        crate::store::secret::trim(&mut secret);
        Object::Secret(Box::new(secret))
    });
    beside([Object::RateLimitPolicy(policy)].into_iter().chain(secrets)).0
}

/// A host beside these objects, and all of them.
fn beside(objects: impl IntoIterator<Item = Object>) -> (resolve::Resolved, Store) {
    let service: VirtualService = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "api"},
        "spec": {"hosts": ["x.io"], "gateways": ["gw"], "http": [
            {"name": "one", "match": [{"uri": {"prefix": "/one"}}], "directResponse": {"status": 200}},
            {"name": "all", "directResponse": {"status": 200}},
        ]},
    }))
    .unwrap();
    let mut store = Store::new("cluster.local");
    for object in [Object::VirtualService(Box::new(service))].into_iter().chain(objects) {
        store.apply(Arc::new(Stored::new(object, Age::default(), Vec::new())));
    }
    let host = HostName::parse("x.io").unwrap();
    (resolve::host(&View::new(&store), &Settings::default(), &host), store)
}

/// The ids of the limits that a policy with these makes, and what was found.
fn ids(limits: &[Value]) -> (Vec<String>, Vec<String>) {
    let resolved = host(limits);
    let limits = resolved.host.unwrap().limits;
    (
        limits.iter().map(|limit| limit.id.to_string()).collect(),
        said(&resolved.findings).map(|it| it.1).collect(),
    )
}

/// What is said of the policy: the reasons and the fields.
fn said(findings: &Findings) -> impl Iterator<Item = (&'static str, String)> {
    let of_policy = findings.iter().filter(|finding| finding.object.name.as_ref() == "quota");
    of_policy.map(|finding| (finding.reason, finding.field.clone()))
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
        (
            json!({
                "key": {"header": "a"}, "requests": 9, "window": "1s",
                "windows": [{"requests": 1, "window": "1h"}, {"requests": 1, "window": "x"}],
            }),
            "spec.limits[1].windows[1].window",
        ),
        (json!({"key": {"header": "a b"}, "requests": 9, "window": "1s"}), "spec.limits[1].key.header"),
        (json!({"key": {"cookie": "a b"}, "requests": 9, "window": "1s"}), "spec.limits[1].key.cookie"),
        (json!({"key": {"header": "a%b"}, "requests": 9, "window": "1s"}), "spec.limits[1].key.header"),
        (json!({"key": {"heder": "a"}, "requests": 9, "window": "1s"}), "spec.limits[1].key.heder"),
        (json!({"key": {}, "requests": 9, "window": "1s"}), "spec.limits[1].key"),
        (
            json!({"key": {"jwt": {"claim": "", "issuer": "i", "jwks": {}}}, "requests": 9, "window": "1s"}),
            "spec.limits[1].key.jwt.claim",
        ),
        (
            json!({"key": {"jwt": {"claim": "a", "issuer": "i", "jwks": {}}}, "requests": 9, "window": "1s"}),
            "spec.limits[1].key.jwt.jwks",
        ),
    ] {
        let limits = [by_address.clone(), broken];
        assert_eq!(ids(&limits).1, [field]);
        let guards = &host(&limits).host.unwrap().routes[0].effects.guards;
        assert!(matches!(&guards[..], [Guard { phase: Phase::Unavailable, .. }]), "{guards:?}");
    }
}

#[test]
fn a_policy_of_which_no_limit_is_known_lets_nothing_through() {
    use crate::crd::rate_limit_policy::RateLimitPolicy;
    use crate::crd::unreadable::Unreadable;

    let empty = json!({"targetRef": {"kind": "VirtualService", "name": "api"}, "limits": []});
    let guards = |host: resolve::Resolved| host.host.unwrap().routes[0].effects.guards.clone();
    assert!(matches!(&guards(host_with(empty.clone()))[..], [Guard { phase: Phase::Unavailable, .. }]));

    let key = ObjectKey::new(Kind::RateLimitPolicy, "shop", "quota");
    let said = |target: Value, shadow: bool| {
        let mut spec = empty.clone();
        spec["targetRef"] = target;
        spec["shadow"] = shadow.into();
        let value = json!({"metadata": {"namespace": "shop", "name": "quota"}, "spec": spec});
        let why = Unreadable::new("spec.limits[0]", "missing field `window`");
        let policy = RateLimitPolicy::unreadable(&value, why);
        let resolved = beside([Object::RateLimitPolicy(Box::new(policy))]);
        let (_, findings) = resolve::object(&View::new(&resolved.1), &Settings::default(), &key);
        let said: Vec<_> = findings.iter().map(|it| format!("{} {}", it.field, it.message)).collect();
        (resolved.0.host.unwrap().routes[0].effects.guards.len(), said.join("; "))
    };
    let problem = "spec.limits[0].window is missing: write a whole number and `s`, `m`, `h` or `d`, such as `90s` or `1h`";
    for (target, shadow, guards, effect) in [
        (empty["targetRef"].clone(), false, 1, "requests to the policy's target are answered 503"),
        (empty["targetRef"].clone(), true, 0, "nothing is counted"),
        (json!({"kind": "VirtualService"}), false, 0, "the policy has no effect"),
    ] {
        assert_eq!(said(target.clone(), shadow), (guards, format!("{problem}; {effect}")), "{target}");
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
fn a_limit_in_shadow_asks_for_no_token() {
    let set = r#"{"keys": [{"kty": "RSA", "n": "AQ", "e": "AQAB"}]}"#;
    let limit = |more: Value| {
        let key = json!({"jwt": {"claim": "sub", "issuer": "i", "jwks": {"inline": set}}});
        let mut limit = json!({"key": key, "requests": 5, "window": "1s"});
        limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        limit
    };
    let host =
        host(&[limit(json!({"windows": [{"requests": 9, "window": "1h"}]})), limit(json!({"shadow": true}))]);
    let effects = host.host.unwrap().routes[0].effects.clone();
    let optional: Vec<_> = effects.rate_limits.iter().map(|limit| limit.tokens[0].optional).collect();
    assert_eq!((optional, effects.guards.len()), (vec![false, false, true], 0));
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

/// The fields that something was found in.
fn found(resolved: &resolve::Resolved) -> Vec<&str> {
    let found = resolved.findings.iter().filter(|finding| finding.object.name.as_ref() == "quota");
    found.map(|finding| finding.field.as_str()).collect()
}

const TARGET: &str = r#"{"kind": "VirtualService", "name": "api"}"#;

fn policy(target: Value, limits: Value, more: Value) -> resolve::Resolved {
    let mut spec = json!({"targetRef": serde_json::from_str::<Value>(TARGET).unwrap(), "limits": limits});
    spec["targetRef"].as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    host_with(spec)
}

#[test]
fn every_part_of_a_key_is_asked_for() {
    for (key, text, guards) in [
        (json!({"cookie": "session"}), "cookie/session", 2),
        (json!({"query": "model"}), "query/model", 2),
        (json!({"path": true}), "path", 0),
        (json!({"method": {}}), "method", 0),
        (json!({"generic": "all"}), "generic/all", 0),
    ] {
        let resolved = host(&[json!({"key": key, "requests": 1, "window": "1s"})]);
        let host = resolved.host.unwrap();
        assert_eq!(&*host.limits[0].id, format!("RateLimitPolicy/shop/quota/{text}/1s"));
        assert_eq!(host.routes[0].effects.guards.len(), guards, "{key}");
    }
    let limit = json!({"key": {"header": "x-api-key"}, "and": [{"path": true}, {"cookie": "c"}], "requests": 1, "window": "1s"});
    let host = host(&[limit]).host.unwrap();
    assert_eq!(&*host.limits[0].id, "RateLimitPolicy/shop/quota/header/x-api-key+path+cookie/c/1s");
    assert_eq!(host.limits[0].key.parts().len(), 3);
    assert_eq!(host.routes[0].effects.guards.len(), 4);
}

#[test]
fn every_window_is_a_limit_and_every_plan_has_all() {
    let resolved = host(&[json!({
        "key": {"header": "x-api-key"}, "requests": 5, "window": "1m", "windows": [{"requests": 100, "window": "1d"}],
        "plans": [
            {"name": "pro", "prefix": "pro_", "requests": 50, "window": "1m"},
            {"name": "gold", "regex": "g.*", "requests": 7, "window": "1s", "windows": [{"requests": 8, "window": "2s"}, {"requests": 9, "window": "3s"}]},
        ],
    })]);
    let host = resolved.host.unwrap();
    let limits: Vec<_> = host
        .limits
        .iter()
        .map(|limit| {
            let plans: Vec<_> = limit.plans.iter().map(|plan| plan.algorithm.quota()).collect();
            (limit.id.rsplit_once("x-api-key/").unwrap().1.to_owned(), limit.algorithm.quota(), plans)
        })
        .collect();
    assert_eq!(
        limits,
        [
            ("60s".to_owned(), (5, 60_000), vec![(50, 60_000), (7, 1_000)]),
            ("86400s".to_owned(), (100, 86_400_000), vec![(50, 60_000), (8, 2_000)]),
            ("86400s/2".to_owned(), (100, 86_400_000), vec![(50, 60_000), (9, 3_000)]),
        ]
    );
}

#[test]
fn plans_that_cannot_be_read_let_nothing_through() {
    for (plan, field) in [
        (json!({"name": "p", "requests": 1, "window": "1s"}), "spec.limits[0].plans[0]"),
        (json!({"name": "p", "prefix": "", "requests": 1, "window": "1s"}), "spec.limits[0].plans[0]"),
        (
            json!({"name": "p", "prefix": "a", "regex": "a", "requests": 1, "window": "1s"}),
            "spec.limits[0].plans[0]",
        ),
        (json!({"name": "p", "regex": "(", "requests": 1, "window": "1s"}), "spec.limits[0].plans[0].regex"),
        (json!({"name": "p", "prefix": "a", "requests": 1, "window": "1"}), "spec.limits[0].plans[0].window"),
        (
            json!({"name": "p", "prefix": "a", "requests": 1, "window": "1s", "windows": [{"requests": 1, "window": "x"}]}),
            "spec.limits[0].plans[0].windows[0].window",
        ),
    ] {
        let resolved =
            host(&[json!({"key": {"header": "a"}, "requests": 1, "window": "1s", "plans": [plan]})]);
        assert_eq!(found(&resolved), [field]);
        let guards = &resolved.host.as_ref().unwrap().routes[0].effects.guards;
        assert!(matches!(&guards[..], [Guard { phase: Phase::Unavailable, .. }]), "{guards:?}");
    }
}

#[test]
fn a_plan_that_no_key_comes_to_is_found() {
    let plans = |plans: Value| {
        host(&[json!({"key": {"header": "a"}, "requests": 1, "window": "1s", "plans": plans})])
    };
    let plan = |field: &str, value: &str| json!({"name": "p", field: value, "requests": 1, "window": "1s"});
    for (first, second) in [
        (plan("prefix", "pro_"), plan("prefix", "pro_")),
        (plan("prefix", "pro"), plan("prefix", "pro_")),
        (plan("regex", "g.*"), plan("regex", "g.*")),
    ] {
        let resolved = plans(json!([plan("prefix", "other"), first, second]));
        let said: Vec<_> = said(&resolved.findings).collect();
        assert_eq!(said, [("PlanNotReached", "spec.limits[0].plans[2]".to_owned())]);
    }
    for (first, second) in
        [(plan("prefix", "pro_"), plan("prefix", "pro")), (plan("prefix", "pro_"), plan("regex", "pro_.*"))]
    {
        assert_eq!(found(&plans(json!([first, second]))), [""; 0]);
    }
}

/// What a finding says of a value that it refuses has the form that is accepted.
#[test]
fn forms_are_said() {
    let limit = |key: Value| json!({"limits": [{"key": key, "requests": 1, "window": "1s"}]});
    let answer = |answer: Value| {
        let mut spec = limit(json!({"clientAddress": {}}));
        spec["answer"] = answer;
        spec
    };
    let eleven: BTreeMap<String, &str> = (0..11).map(|n| (format!("x-{n}"), "a")).collect();
    for (spec, form) in [
        (limit(json!({"header": "a b"})), "write at most 128 letters, digits, `-` and `_`"),
        (limit(json!({"generic": "a".repeat(64)})), "write 1 to 63 letters, digits, `-`, `_` and `.`"),
        (
            answer(json!({"status": 451})),
            "Envoy can refuse with: 400 to 417, 421 to 424, 426, 428, 429, 431, ",
        ),
        (answer(json!({"headers": {"a b": "c"}})), "the name of a header: write at most 128 letters, digits"),
        (answer(json!({"headers": {"a": "\u{7}"}})), "has control characters in its value; it is left out"),
        (answer(json!({"headers": {"Host": "a"}})), "is a header of the connection; it is left out"),
        (
            answer(json!({"headers": {"a": "x".repeat(4097)}})),
            "more than 4096 bytes in its value; it is left out",
        ),
        (
            answer(json!({"headers": eleven})),
            "is one header more than the 10 that Envoy sends; it is left out",
        ),
    ] {
        let mut spec = spec;
        spec["targetRef"] = serde_json::from_str(TARGET).unwrap();
        let findings = host_with(spec).findings.into_vec();
        assert!(findings.iter().any(|finding| finding.message.contains(form)), "{form}: {findings:?}");
    }
}

#[test]
fn in_shadow_nothing_is_refused() {
    let limit = json!({"key": {"header": "a"}, "requests": 1, "window": "1s"});
    let broken = json!({"key": {"header": "a"}, "requests": 1, "window": "soon"});
    let resolved =
        policy(json!({}), json!([limit, broken]), json!({"shadow": true, "failureMode": "closed"}));
    let host = resolved.host.unwrap();
    assert!(host.limits[0].shadow);
    let effects = &host.routes[0].effects;
    assert_eq!((effects.guards.len(), effects.rate_limits.len()), (0, 1));
    assert!(!effects.rate_limits[0].refusal.fail_closed);
    let mut single = limit.clone();
    single["shadow"] = true.into();
    let host = policy(json!({}), json!([limit, single]), json!({})).host.unwrap();
    assert_eq!(host.limits.iter().map(|limit| limit.shadow).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_policy_may_mean_one_host_or_one_route() {
    let limits = json!([{"key": {"clientAddress": true}, "requests": 1, "window": "1s"}]);
    let counted = |target: Value| {
        let resolved = policy(target, limits.clone(), json!({}));
        let routes = &resolved.host.as_ref().unwrap().routes;
        let counted: Vec<_> = routes.iter().map(|route| route.effects.rate_limits.len()).collect();
        (counted, found(&resolved).join(" "))
    };
    assert_eq!(counted(json!({})), (vec![1, 1], String::new()));
    assert_eq!(counted(json!({"host": "x.io"})), (vec![1, 1], String::new()));
    assert_eq!(counted(json!({"host": "y.io"})), (vec![0, 0], "spec.targetRef.host".to_owned()));
    assert_eq!(counted(json!({"route": "one"})), (vec![1, 0], String::new()));
    assert_eq!(counted(json!({"route": "two"})), (vec![0, 0], "spec.targetRef.route".to_owned()));
}

#[test]
fn plans_of_keys_in_a_secret() {
    let plan = |name: &str, entry: Option<&str>| json!({"name": "p", "secretRef": {"name": name, "key": entry}, "requests": 100, "window": "1m"});
    let secret = |name: &str, namespace: &str| json!({"metadata": {"name": name, "namespace": namespace}, "stringData": {"a": "key-1\nkey-2", "b": "key-3"}});
    for (plan, has, found) in [
        (plan("keys", None), [true, true, true], None),
        (plan("keys", Some("b")), [false, false, true], None),
        (plan("keys", Some("c")), [false; 3], Some("InvalidSecret")),
        (plan("gone", None), [false; 3], Some("SecretNotFound")),
        // One of another namespace is another one.
        (plan("theirs", None), [false; 3], Some("SecretNotFound")),
    ] {
        let spec = json!({
            "targetRef": {"kind": "VirtualService", "name": "api"},
            "limits": [{"key": {"header": "x-api-key"}, "requests": 1, "window": "1m", "plans": [plan]}],
        });
        let resolved = host_beside(spec, vec![secret("keys", "shop"), secret("theirs", "elsewhere")]);
        let host = resolved.host.unwrap();
        let limit = &host.limits[0];
        let told = ["key-1", "key-2", "key-3"].map(|key| limit.for_value(key).algorithm.quota().0 == 100);
        assert_eq!(told, has, "{plan}");
        assert!(!format!("{limit:?}{}", json!(limit)).contains("key-1"));
        let findings: Vec<_> = said(&resolved.findings).collect();
        let expected = found.map(|reason| (reason, "spec.limits[0].plans[0].secretRef".to_owned()));
        assert_eq!(findings, expected.into_iter().collect::<Vec<_>>());
        assert!(
            host.routes.iter().all(|route| route
                .effects
                .guards
                .iter()
                .all(|guard| { matches!(guard.answer, Answer::Direct { status: 401, .. }) })),
            "nobody is locked out"
        );
    }
}
