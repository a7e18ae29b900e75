//! What is kept of a Secret: certificates, the public keys of JWK Sets, and of other entries nothing but digests of their
//! lines, by which a policy can tell keys. The rest may be anybody's password.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::values::jwks;
use crate::values::key_set::KeySet;

/// The entries that are kept as they are: a certificate, its key and an authority.
const CERTIFICATE: &[&str] = &["tls.crt", "tls.key", "ca.crt"];

/// Takes away what is not kept. Each entry of an Opaque Secret that is no certificate's has the digests of its lines in its
/// place, as [`KeySet::to_bytes`] makes them; those of other types go. What an entry has of public keys is kept as text.
pub fn trim(secret: &mut Secret) {
    // An API server does this when it writes the object.
    let plain = secret.string_data.take().unwrap_or_default();
    let plain = plain.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes())));
    if plain.len() > 0 {
        secret.data.get_or_insert_default().extend(plain);
    }
    let opaque = is_opaque(secret);
    if let Some(data) = &mut secret.data {
        data.retain(|name, _| opaque || is_certificate(name));
        for (name, value) in data.iter_mut().filter(|(name, _)| !is_certificate(name)) {
            if let Some(keys) = jwks::public_keys(&value.0) {
                secret.string_data.get_or_insert_default().insert(name.clone(), keys);
            }
            value.0 = KeySet::of_lines(&value.0).to_bytes();
        }
    }
}

/// The keys in a trimmed Secret: in its entry of this name, or in all that are no certificate's.
///
/// # Errors
/// What is wrong with it, to be put behind the Secret's name.
pub fn keys(secret: &Secret, entry: Option<&str>) -> Result<KeySet, String> {
    if !is_opaque(secret) {
        let kind = secret.type_.as_deref().unwrap_or_default();
        return Err(format!("is of type {kind}; keys are read of type Opaque"));
    }
    let all = secret.data.iter().flatten().filter(|(name, _)| !is_certificate(name));
    let wanted: Vec<_> = all.filter(|(name, _)| entry.is_none_or(|entry| entry == *name)).collect();
    if let (Some(entry), []) = (entry, &wanted[..]) {
        return Err(format!("has no entry {entry}"));
    }
    let digests = wanted.iter().flat_map(|(_, bytes)| bytes.0.as_chunks().0);
    let keys: KeySet = digests.copied().collect();
    if keys.is_empty() { Err("holds no key".to_owned()) } else { Ok(keys) }
}

/// The JWK Set in this entry of a trimmed Secret.
///
/// # Errors
/// What is wrong with it, to be put behind the Secret's name.
pub fn jwks<'s>(secret: &'s Secret, entry: &str) -> Result<&'s str, String> {
    if let Some(keys) = secret.string_data.as_ref().and_then(|texts| texts.get(entry)) {
        return Ok(keys);
    }
    if !is_opaque(secret) {
        let kind = secret.type_.as_deref().unwrap_or_default();
        return Err(format!("is of type {kind}; JWK Sets are read of type Opaque"));
    }
    match secret.data.as_ref().is_some_and(|data| data.contains_key(entry)) {
        true => Err(format!("has an entry {entry} that {}", jwks::NONE)),
        false => Err(format!("has no entry {entry}")),
    }
}

fn is_opaque(secret: &Secret) -> bool {
    secret.type_.as_deref().is_none_or(|kind| kind.is_empty() || kind == "Opaque")
}

fn is_certificate(entry: &str) -> bool {
    CERTIFICATE.contains(&entry)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::values::key_set::key_digest;

    fn trimmed(value: Value) -> Secret {
        let mut secret = serde_json::from_value(value).unwrap();
        trim(&mut secret);
        secret
    }

    #[test]
    fn keys_are_told_by_digest() {
        let secret = trimmed(json!({
            "type": "Opaque",
            "stringData": {"old": "one\ntwo\n", "new": "three", "empty": "\n", "tls.crt": "chain"},
        }));
        assert!(!format!("{secret:?}").contains("three"));
        let has = |entry, key: &str| keys(&secret, entry).map(|keys| keys.has(&key_digest(key.as_bytes())));
        for (entry, key, expected) in [
            (None, "one", Ok(true)),
            (None, "three", Ok(true)),
            (None, "chain", Ok(false)),
            (Some("new"), "three", Ok(true)),
            (Some("new"), "two", Ok(false)),
            (Some("gone"), "two", Err("has no entry gone")),
            (Some("tls.crt"), "chain", Err("has no entry tls.crt")),
            (Some("empty"), "", Err("holds no key")),
        ] {
            assert_eq!(has(entry, key), expected.map_err(str::to_owned), "{entry:?} {key}");
        }
        assert_eq!(secret.string_data, None);
        let other = trimmed(json!({"type": "kubernetes.io/basic-auth", "stringData": {"password": "a"}}));
        assert_eq!(other.data, Some([].into()));
        assert!(keys(&other, None).unwrap_err().contains("type Opaque"));
    }

    #[test]
    fn of_a_jwk_set_the_public_keys_are_kept() {
        let set = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "d": "private"}]}"#;
        let text = json!({"jwks.json": set, "other": "{}", "tls.crt": set});
        let secret = trimmed(json!({"type": "Opaque", "stringData": text.clone()}));
        assert!(!format!("{:?}", secret.string_data).contains("private"));
        let public =
            r#"{"keys":[{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        assert_eq!(jwks(&secret, "jwks.json"), Ok(public));
        for (entry, words) in
            [("other", "entry other that is no JWK Set"), ("gone", "no entry"), ("tls.crt", "tls.crt")]
        {
            assert!(jwks(&secret, entry).unwrap_err().contains(words), "{entry}");
        }
        let other = trimmed(json!({"type": "example.com/keys", "stringData": text}));
        assert!(jwks(&other, "jwks.json").unwrap_err().contains("type Opaque"));
    }
}
