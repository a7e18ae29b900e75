//! Durations as Kubernetes and Istio objects write them.

use std::time::Duration;

/// A Go duration: `300ms`, `1.5s`, `1h30m`.
///
/// # Errors
/// The accepted form.
pub fn parse(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "a duration such as 500ms, 10s, 5m or 1h30m";
    const UNITS: [(&str, f64); 6] =
        [("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(FORM);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let number: f64 = rest[..digits].parse().map_err(|_| FORM)?;
        rest = &rest[digits..];
        let (unit, factor) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit)).ok_or(FORM)?;
        seconds += number * factor;
        rest = &rest[unit.len()..];
    }
    // Durations are kept to the microsecond, so that 1.1s is not 1.100000001s.
    Duration::try_from_secs_f64((seconds * 1e6).round() / 1e6).map_err(|_| FORM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        for (text, millis) in
            [("300ms", 300), ("1.5s", 1500), ("1h30m", 5_400_000), ("0", 0), ("0s", 0), ("1m", 60_000)]
        {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1d", "1s2", "."] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
