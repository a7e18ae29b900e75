//! Keys as people are shown them: credentials are not.

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

use crate::model::limit::{Key, Limit};
use crate::values::header::{REDACTED, is_secret};

/// Bytes of a value that are shown.
const LONGEST: usize = 256;

/// The values of a key of one of our limits. Without the limit nobody knows what they are, so none is shown.
pub(super) fn ours(limit: Option<&Limit>, key: &[Entry]) -> Vec<String> {
    let parts = limit.map_or(&[][..], |limit| limit.key.parts());
    // A limit that knows keys by their look, or by name, counts who somebody is.
    let plans = limit.is_some_and(|limit| !limit.plans.is_empty());
    let value = |(at, entry): (usize, &Entry)| match parts.get(at) {
        Some(part) if !(is_credential(part) || at == 0 && plans) => clipped(&entry.value),
        _ => REDACTED.to_owned(),
    };
    key.iter().enumerate().map(value).collect()
}

/// The entries of a descriptor of somebody else's.
pub(super) fn theirs(key: &[Entry]) -> Vec<String> {
    let shown = |entry: &Entry| {
        let value = if is_secret(&entry.key) { REDACTED.to_owned() } else { clipped(&entry.value) };
        format!("{}={value}", entry.key)
    };
    key.iter().map(shown).collect()
}

fn is_credential(part: &Key) -> bool {
    match part {
        Key::Header(name) | Key::Query(name) => is_secret(name),
        Key::Cookie(_) => true,
        Key::ClientAddress | Key::Path | Key::Method | Key::Generic(_) | Key::Jwt(_) => false,
        Key::Several(_) => true,
    }
}

fn clipped(value: &str) -> String {
    if value.len() <= LONGEST {
        return value.to_owned();
    }
    format!("{}…", &value[..value.floor_char_boundary(LONGEST)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limit::{Algorithm, KeyMatch, Plan};
    use crate::values::TokenClaim;

    #[test]
    fn credentials_are_not_shown() {
        let algorithm = Algorithm::FixedWindow { requests: 1, window_ms: 1 };
        let limit = |key: Key| Limit::new("l".into(), key, algorithm);
        let shown = |limit: Option<&Limit>, values: &[&str]| {
            let entry = |value: &&str| Entry { key: "key".into(), value: (*value).into() };
            ours(limit, &values.iter().map(entry).collect::<Vec<_>>()).join(" ")
        };
        for (key, expected) in [
            (Key::ClientAddress, "v"),
            (Key::Path, "v"),
            (Key::Header("x-user".into()), "v"),
            (Key::Query("user".into()), "v"),
            (Key::Header("x-api-key".into()), REDACTED),
            (Key::Header("authorization".into()), REDACTED),
            (Key::Query("access_token".into()), REDACTED),
            (Key::Cookie("session".into()), REDACTED),
        ] {
            assert_eq!(shown(Some(&limit(key.clone())), &["v"]), expected, "{key}");
        }
        let claim = TokenClaim { issuer: "https://id.example".into(), claim: "sub".into() };
        assert_eq!(shown(Some(&limit(Key::Jwt(claim.into()))), &["v"]), "v");
        let several = Key::Several(vec![Key::Header("x-api-key".into()), Key::Path]);
        assert_eq!(shown(Some(&limit(several)), &["k", "/p"]), format!("{REDACTED} /p"));
        let plans = vec![Plan { name: "p".into(), matches: KeyMatch::Prefix("p_".into()), algorithm }];
        let planned = Limit { plans, ..limit(Key::Header("x-client".into())) };
        assert_eq!(shown(Some(&planned), &["p_1"]), REDACTED);
        assert_eq!(shown(None, &["v"]), REDACTED, "nobody knows what it is");
        let long = "é".repeat(200);
        assert!(shown(Some(&limit(Key::Path)), &[&long]).len() <= LONGEST + 3);
        let entry = |key: &str| Entry { key: key.into(), value: "v".into() };
        let entries = [entry("user"), entry("api_key")];
        assert_eq!(theirs(&entries), ["user=v".to_owned(), format!("api_key={REDACTED}")]);
    }
}
