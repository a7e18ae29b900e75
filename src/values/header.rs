//! Header names.

/// Whether the text is a header name (RFC 9110 `token`).
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether the text can stand in a header's value: no control characters.
pub fn is_value(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || c == '\t')
}

/// The text with `%` doubled, so that Envoy's formatter reads it as it stands.
pub fn escape_format(text: &str) -> String {
    text.replace('%', "%%")
}
