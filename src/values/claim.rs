//! Names of a token's claims, where they are told by a text.
//!
//! Dots go into objects: `realm.tenant` is the `tenant` of the object `realm`. A name with a `:` or a `/` in it, as claims
//! that are nobody else's have it (RFC 7519, section 4.2), is one name, whatever dots it has.

/// What a claim can be told by.
pub const FORM: &str =
    "at most 128 letters, digits and `_-.:/@#~+`, with something before and behind each dot";

const LONGEST: usize = 128;

/// Whether a text can name a claim. Nothing of it means anything to an Envoy formatter or in a CEL string.
#[must_use]
pub fn is_claim(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/@#~+".contains(&byte);
    text.len() <= LONGEST && text.bytes().all(is_plain) && path(text).iter().all(|name| !name.is_empty())
}

/// The names on the way to it, the claim's own last.
#[must_use]
pub fn path(claim: &str) -> Vec<&str> {
    if claim.contains([':', '/']) { vec![claim] } else { claim.split('.').collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (claim, expected) in [
            ("sub", &["sub"][..]),
            ("realm.tenant", &["realm", "tenant"]),
            ("https://example.com/tenant", &["https://example.com/tenant"]),
            ("cognito:groups", &["cognito:groups"]),
        ] {
            assert!(is_claim(claim), "{claim}");
            assert_eq!(path(claim), expected);
        }
        for wrong in ["", ".", "a.", "a..b", "a b", "a%b", "a\"b", "a\\b", "a)b", "é", &"a".repeat(129)] {
            assert!(!is_claim(wrong), "{wrong}");
        }
    }
}
