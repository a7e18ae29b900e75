//! What is read of a policy, and what is said of one that cannot be.

use kube::CustomResourceExt;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn policy(spec: Value) -> Result<RateLimitPolicy, String> {
    let object = json!({
        "apiVersion": "chancery.dev/v1alpha1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": "quota", "namespace": "shop"},
        "spec": spec,
    });
    serde_path_to_error::deserialize(object).map_err(|error| error.to_string())
}

#[test]
fn a_policy_is_read_with_what_is_not_known() {
    let policy = policy(json!({
        "targetRef": {"kind": "Ingress", "name": "api", "group": "networking.k8s.io"},
        "limits": [
            {"key": {"header": "X-API-Key"}, "requests": 5, "window": "1m", "burst": 7},
            {"key": {"clientAddress": {}}, "requests": 100, "window": "1s"},
        ],
        "cost": 2,
    }))
    .unwrap();
    assert_eq!(policy.metadata.name.as_deref(), Some("quota"));
    assert_eq!((&*policy.spec.target_ref.kind, &*policy.spec.target_ref.name), ("Ingress", "api"));
    assert_eq!(policy.spec.limits[0].key.choose(), Ok(KeyChoice::Header("x-api-key".into())));
    assert_eq!(policy.spec.limits[0].quotas(), Ok(vec![(5, 60_000)]));
    assert_eq!(policy.spec.limits[1].key.choose(), Ok(KeyChoice::ClientAddress));
    let unknown = ["spec.cost", "spec.targetRef.group", "spec.limits[0].burst"];
    assert_eq!(policy.spec.unknown_paths(), unknown);
}

#[test]
fn what_is_missing_or_of_the_wrong_type_is_named() {
    let target = json!({"kind": "Ingress", "name": "api"});
    for (spec, message) in [
        (json!({"targetRef": target}), "spec: missing field `limits`"),
        (json!({"limits": []}), "spec: missing field `targetRef`"),
        (
            json!({"targetRef": target, "limits": [{"key": {}, "requests": -1, "window": "1s"}]}),
            "spec.limits[0]",
        ),
        (json!({"targetRef": target, "limits": [{"key": {}, "requests": 1}]}), "missing field `window`"),
        (json!({"targetRef": target, "limits": 7}), "spec.limits: invalid type"),
    ] {
        let error = policy(spec.clone()).unwrap_err();
        assert!(error.contains(message), "{spec}: {error}");
    }
}

#[test]
fn a_key_is_exactly_one() {
    for (key, expected) in [
        (json!({"header": "x-api-key"}), Ok(KeyChoice::Header("x-api-key".into()))),
        (json!({"clientAddress": true}), Ok(KeyChoice::ClientAddress)),
        (json!({"clientAddress": {}}), Ok(KeyChoice::ClientAddress)),
        (json!({"clientAddress": false}), Err(KeyError::Marker("clientAddress"))),
        (json!({"clientAddress": {"mask": 24}}), Err(KeyError::Marker("clientAddress"))),
        (json!({}), Err(KeyError::NotOne)),
        (json!({"clientAddress": {}, "header": "a"}), Err(KeyError::NotOne)),
        (json!({"claim": "a"}), Err(KeyError::Unknown("claim".into()))),
        (json!({"cookie": "a"}), Ok(KeyChoice::Cookie("a".into()))),
        (json!({"query": "a.b"}), Ok(KeyChoice::Query("a.b".into()))),
        (json!({"generic": "all"}), Ok(KeyChoice::Generic("all".into()))),
        (json!({"path": true}), Ok(KeyChoice::Path)),
        (json!({"method": {}}), Ok(KeyChoice::Method)),
        (json!({"method": "GET"}), Err(KeyError::Marker("method"))),
        (json!({"path": true, "method": true}), Err(KeyError::NotOne)),
        (json!({"cookie": "a%b"}), Err(KeyError::Name("cookie", "a%b".into()))),
        (json!({"query": ""}), Err(KeyError::Name("query", String::new()))),
        (json!({"header": "a b"}), Err(KeyError::HeaderName("a b".into()))),
        (json!({"header": ""}), Err(KeyError::HeaderName(String::new()))),
    ] {
        let parsed: PolicyKey = serde_json::from_value(key.clone()).unwrap();
        assert_eq!(parsed.choose(), expected, "{key}");
    }
}

#[test]
fn a_token_is_a_key_too() {
    let jwt = json!({"claim": "sub", "issuer": "i", "jwks": {"inline": "{}"}});
    let choose = |key: Value| serde_json::from_value::<PolicyKey>(key).unwrap().choose();
    let Ok(KeyChoice::Jwt(chosen)) = choose(json!({ "jwt": jwt })) else { panic!() };
    assert_eq!((&*chosen.claim, &*chosen.issuer, chosen.unknown_path()), ("sub", "i", None));
    assert_eq!(choose(json!({"jwt": jwt, "header": "a"})), Err(KeyError::NotOne));
}

#[test]
fn windows() {
    for (text, ms) in
        [("1s", 1_000), ("90s", 90_000), ("1m", 60_000), ("2h", 7_200_000), ("366d", 31_622_400_000)]
    {
        assert_eq!(parse_window(text), Ok(ms), "{text}");
    }
    for text in
        ["", "s", "5", "1w", "1M", "-1s", "+1s", "1.5h", " 1s", "1 s", "1h30m", "1ms", "١s", "1ſ", "é"]
    {
        assert_eq!(parse_window(text), Err(WindowError::Malformed(text.into())), "{text}");
    }
    assert_eq!(parse_window("0h"), Err(WindowError::Zero("0h".into())));
    for text in ["367d", "18446744073709551616s", "99999999999999999d"] {
        assert_eq!(parse_window(text), Err(WindowError::TooLong(text.into())), "{text}");
    }
}

proptest! {
    #[test]
    fn a_window_never_panics(text in "\\PC{0,12}") {
        let _ = parse_window(&text);
    }
}

/// The manifest that is applied to clusters is made from the types; `UPDATE_MANIFESTS=1` writes it.
#[test]
fn the_manifest_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/crds/ratelimitpolicies.chancery.dev.yaml");
    let made = serde_saphyr::to_string(&RateLimitPolicy::crd()).unwrap() + "\n";
    if std::env::var_os("UPDATE_MANIFESTS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == made, "{path} is not what the types say: run this test with UPDATE_MANIFESTS=1");
}
