//! What becomes of keys by claims.

use serde_json::{Value, json};

use super::*;
use crate::store::{Object, Store, Stored, secret};
use crate::values::Age;

const JWKS: &str =
    r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn limit(change: Value) -> PolicyLimit {
    let mut jwt = json!({"claim": "sub", "issuer": "https://id.example", "jwks": {"inline": JWKS}});
    jwt.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let key = json!({ "jwt": jwt });
    serde_json::from_value(json!({"key": {"path": true}, "and": [key], "requests": 1, "window": "1s"}))
        .unwrap()
}

/// The keys and the tokens of a limit beside a Secret with two entries, one of them a JWK Set.
fn read(limit: &PolicyLimit) -> Result<(Key, Vec<Token>), Problem> {
    let mut store = Store::new("cluster.local");
    let keys = json!({"jwks.json": JWKS, "other": "no keys"});
    let value = json!({"metadata": {"namespace": "shop", "name": "keys"}, "stringData": keys});
    let mut held = serde_json::from_value(value).unwrap();
    secret::trim(&mut held);
    store.apply(Arc::new(Stored::new(Object::Secret(Box::new(held)), Age::default(), Vec::new())));
    let jwt = limit.and[0].jwt.as_ref().unwrap();
    Ok((key(jwt)?, tokens(&View::new(&store), "shop", limit, false)?))
}

#[test]
fn a_claim_is_a_key_with_a_token() {
    let (key, tokens) = read(&limit(json!({}))).unwrap();
    assert_eq!(key.to_string(), "jwt/https://id.example/sub");
    let provider = |header: Option<&str>, audiences: &[&str]| Provider {
        issuer: "https://id.example".into(),
        audiences: audiences.iter().map(|&audience| audience.to_owned()).collect(),
        header: header.map(str::to_owned),
        jwks: r#"{"keys":[{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#
            .into(),
    };
    assert_eq!(tokens, [Token { provider: provider(None, &[]).into(), optional: false }]);
    for (change, expected) in [
        (json!({"header": "Authorization"}), provider(None, &[])),
        (json!({"header": "X-Token", "audiences": ["a"]}), provider(Some("x-token"), &["a"])),
        (json!({"jwks": {"secretRef": {"name": "keys"}}}), provider(None, &[])),
        (json!({"jwks": {"secretRef": {"name": "keys", "key": "jwks.json"}}}), provider(None, &[])),
    ] {
        assert_eq!(*read(&limit(change.clone())).unwrap().1[0].provider, expected, "{change}");
    }
}

#[test]
fn what_cannot_be_verified_is_a_problem() {
    let secret = |name: &str, key: &str| json!({"jwks": {"secretRef": {"name": name, "key": key}}});
    for (change, field, words) in [
        (json!({"claim": "a..b"}), "jwt.claim", "names no claim: write at most 128 letters"),
        (json!({"issuer": ""}), "jwt.issuer", "write what tokens have as `iss`"),
        (json!({"issuer": "a%b"}), "jwt.issuer", "is no issuer"),
        (json!({"audience": ["a"]}), "jwt.audience", "is not a field"),
        (json!({"jwks": {"inline": JWKS, "uri": "x"}}), "jwt.jwks.uri", "is not a field"),
        (
            json!({"jwks": {"secretRef": {"name": "keys", "entry": "x"}}}),
            "jwt.jwks.secretRef.entry",
            "is not a field",
        ),
        (json!({"audiences": ["a", ""]}), "and[0].jwt.audiences[1]", "is empty"),
        (json!({"header": "a b"}), "and[0].jwt.header", "a header name"),
        (json!({"header": "a%b"}), "and[0].jwt.header", "a header name"),
        (json!({"jwks": {}}), "and[0].jwt.jwks", "has one of `secretRef` and `inline`"),
        (
            json!({"jwks": {"inline": JWKS, "secretRef": {"name": "keys"}}}),
            "and[0].jwt.jwks",
            "has one of `secretRef` and `inline`",
        ),
        (
            json!({"jwks": {"inline": "{}"}}),
            "and[0].jwt.jwks.inline",
            "is no JWK Set with a public key: write",
        ),
        (secret("gone", "jwks.json"), "and[0].jwt.jwks.secretRef", "Secret shop/gone does not exist"),
        (secret("keys", "gone"), "and[0].jwt.jwks.secretRef", "Secret shop/keys has no entry gone"),
        (secret("keys", "other"), "and[0].jwt.jwks.secretRef", "has an entry other that is no JWK Set"),
    ] {
        let (found, problem) = read(&limit(change.clone())).unwrap_err();
        assert_eq!(found, field, "{change}");
        assert!(problem.contains(words), "{change}: {problem}");
    }
}
