//! JWK Sets (RFC 7517): their public keys, by which signatures can be checked.

use serde_json::{Map, Value, json};

/// What is wrong with a text that has none, to be put behind its name.
pub const NONE: &str = "is no JWK Set with a public key: write {\"keys\": [...]} with keys of kty RSA, EC (P-256, P-384, \
                        P-521) or OKP (Ed25519)";

/// The largest that is taken, in bytes: each route has its own.
const LARGEST: usize = 1 << 16;
/// The members that say a public key. All others are left out, those of private keys above all.
const PUBLIC: &[&str] = &["kty", "use", "alg", "kid", "n", "e", "crv", "x", "y"];

/// A JWK Set of the public keys in a text that is one. Symmetric keys, those for encryption and those of other kinds are left
/// out, as section 5 of the RFC has it; none if nothing is left.
#[must_use]
pub fn public_keys(text: &[u8]) -> Option<String> {
    // Most that is asked for is none.
    if !text.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let set: Map<String, Value> = serde_json::from_slice(text).ok()?;
    let keys: Vec<Value> = set.get("keys")?.as_array()?.iter().filter_map(public_key).collect();
    let text = json!({"keys": keys}).to_string();
    (!keys.is_empty() && text.len() <= LARGEST).then_some(text)
}

/// What Envoy takes for a key: where a set has none, it takes nothing of the route.
fn public_key(key: &Value) -> Option<Value> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    // The members that are numbers in base64url, how many digits they have, and how names of algorithms begin.
    let (numbers, digits, algorithms): (&[&str], _, &[&str]) = match (text("kty")?, text("crv")) {
        ("RSA", _) => (&["n", "e"], None, &["RS", "PS"]),
        ("EC", Some("P-256")) => (&["x", "y"], Some(43), &["ES"]),
        ("EC", Some("P-384")) => (&["x", "y"], Some(64), &["ES"]),
        ("EC", Some("P-521")) => (&["x", "y"], Some(88), &["ES"]),
        ("OKP", Some("Ed25519")) => (&["x"], Some(43), &["EdDSA"]),
        _ => return None,
    };
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_number = |name: &&str| {
        let given = text(name).filter(|value| !value.is_empty() && value.bytes().all(is_digit));
        given.is_some_and(|value| digits.is_none_or(|digits| value.len() == digits))
    };
    let is_algorithm = |name: &str| algorithms.iter().any(|start| name.starts_with(start));
    if !numbers.iter().all(is_number)
        || text("use").is_some_and(|of| of != "sig")
        || text("alg").is_some_and(|name| !is_algorithm(name))
    {
        return None;
    }
    let members = PUBLIC.iter().filter_map(|name| Some(((*name).to_owned(), text(name)?.into())));
    Some(Value::Object(members.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: Value) -> Option<Value> {
        let text = public_keys(json!({ "keys": keys }).to_string().as_bytes())?;
        Some(serde_json::from_str::<Value>(&text).unwrap()["keys"].take())
    }

    #[test]
    fn public_keys_alone_are_taken() {
        let rsa = json!({"kty": "RSA", "n": "AQ", "e": "AQAB", "kid": "a", "alg": "RS256", "use": "sig"});
        let number = "A".repeat(43);
        let ec = json!({"kty": "EC", "crv": "P-256", "x": number, "y": number});
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": number});
        let mut private = rsa.clone();
        for member in ["d", "p", "q", "dp", "dq", "qi", "x5c"] {
            private[member] = "secret".into();
        }
        let others = [
            json!({"kty": "oct", "k": "secret"}),
            json!({"kty": "RSA", "n": "AQ", "e": "AQAB", "use": "enc"}),
            json!({"kty": "RSA", "n": "AQ"}),
            json!({"kty": "RSA", "n": "A=", "e": "AQAB"}),
            json!({"kty": "RSA", "n": "AQ", "e": "AQAB", "alg": "HS256"}),
            json!({"kty": "EC", "crv": "secp256k1", "x": number, "y": number}),
            json!({"kty": "EC", "crv": "P-384", "x": number, "y": number}),
            json!({"kty": "EC", "crv": "P-256", "x": number, "y": number, "alg": "RS256"}),
            json!({"kty": "OKP", "crv": "X25519", "x": number}),
            json!("RSA"),
        ];
        let all: Vec<Value> = others.iter().cloned().chain([private, ec.clone(), ed.clone()]).collect();
        assert_eq!(keys(all.into()), Some(json!([rsa, ec, ed])));
        for other in others {
            assert_eq!(keys(json!([other])), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_set_is_none() {
        for text in ["", "secret", "{", "{}", "[]", r#"{"keys": {}}"#, r#"{"keys": []}"#, "{\u{0}"] {
            assert_eq!(public_keys(text.as_bytes()), None, "{text}");
        }
        let key = json!({"kty": "RSA", "n": "A".repeat(LARGEST), "e": "AQAB"});
        assert_eq!(keys(json!([key])), None, "too large");
    }
}
