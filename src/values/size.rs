//! Sizes as nginx writes them.

/// Bytes from an nginx size: digits, then `b`, `k`, `m` or `g` in either case, or nothing.
///
/// # Errors
/// The accepted form.
pub fn parse(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "a size such as 512k, 8m or 1g, or 0 for no limit";
    let text = text.trim();
    let (digits, factor) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
        Some(b'b') => (&text[..text.len() - 1], 1),
        Some(b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(FORM);
    }
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or(FORM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_sizes() {
        for (text, bytes) in [("0", 0), ("8m", 8 << 20), ("1G", 1 << 30), ("10k", 10240), ("7", 7), ("5b", 5)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "15r", "-1m", "1.5m", "99999999999g"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
