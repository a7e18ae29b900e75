//! What is kept of a Secret: certificates, and of other entries nothing but digests of their lines, by which a policy can
//! tell keys. The rest may be anybody's password.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::values::key_set::KeySet;

/// The entries that are kept as they are: a certificate, its key and an authority.
const CERTIFICATE: &[&str] = &["tls.crt", "tls.key", "ca.crt"];

/// Takes away what is not kept. Each entry of an Opaque Secret that is no certificate's has the digests of its lines in its
/// place, as [`KeySet::to_bytes`] makes them; those of other types go.
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
        for (_, value) in data.iter_mut().filter(|(name, _)| !is_certificate(name)) {
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
        let other = trimmed(json!({"type": "kubernetes.io/basic-auth", "stringData": {"password": "a"}}));
        assert_eq!(other.data, Some([].into()));
        assert!(keys(&other, None).unwrap_err().contains("type Opaque"));
    }
}
