//! Header names.

/// Whether the text is a header name (RFC 9110 `token`).
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Headers that say how a message is carried or where it goes: they are of one connection, and no other message is given them.
pub const OF_THE_CONNECTION: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether the text can stand in a header's value: no control characters.
pub fn is_value(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || c == '\t')
}

/// What stands in the place of a secret wherever something is shown.
pub const REDACTED: &str = "[redacted]";

/// Whether the values of a header are secrets, by its name: they say who somebody is, and to whoever sees them as well.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["authorization", "cookie", "api-key", "apikey", "api_key", "token", "secret", "password"]
        .iter()
        .any(|word| name.contains(word))
}

/// A header's value as it is shown.
pub fn shown<'v>(name: &str, value: &'v str) -> &'v str {
    if is_secret(name) { REDACTED } else { value }
}

/// The text with `%` doubled, so that Envoy's formatter reads it as it stands.
pub fn escape_format(text: &str) -> String {
    text.replace('%', "%%")
}
