//! Regular expressions: accepted here only if Envoy's RE2 will accept them.

/// The largest program that Envoy is asked to run; RE2's own default budget is larger.
const MAX_LENGTH: usize = 4096;

/// Checks that a regular expression is one that RE2 compiles: no look-around, no back references, bounded repeats.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn check(regex: &str) -> Result<(), String> {
    if regex.len() > MAX_LENGTH {
        return Err(format!("is longer than {MAX_LENGTH} bytes"));
    }
    // RE2 refuses repeats above 1000; Rust's engine does not.
    let hir = regex_syntax::ParserBuilder::new()
        .unicode(true)
        .utf8(false)
        .nest_limit(100)
        .build()
        .parse(regex)
        .map_err(|error| first_line(&error))?;
    if repeats_too_often(&hir) {
        return Err("repeats more than 1000 times, which RE2 refuses".to_owned());
    }
    Ok(())
}

fn first_line(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        _ => "is not a regular expression".to_owned(),
    }
}

fn repeats_too_often(hir: &regex_syntax::hir::Hir) -> bool {
    use regex_syntax::hir::HirKind;
    match hir.kind() {
        HirKind::Repetition(repetition) => {
            repetition.min > 1000
                || repetition.max.is_some_and(|max| max > 1000)
                || repeats_too_often(&repetition.sub)
        }
        HirKind::Capture(capture) => repeats_too_often(&capture.sub),
        HirKind::Concat(subs) | HirKind::Alternation(subs) => subs.iter().any(repeats_too_often),
        _ => false,
    }
}

/// How many capture groups the expression has, 0 if it is none.
pub fn captures(regex: &str) -> usize {
    regex_syntax::parse(regex).map_or(0, |hir| hir.properties().explicit_captures_len())
}

/// The text as a regular expression that matches just it.
pub fn escape(text: &str) -> String {
    regex_syntax::escape(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_re2_compiles() {
        for good in ["/foo(/|$)(.*)", "(?i)^a+$", "[a-z]{3}", "a{1000}"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["(", "(?=a)", "(?<!a)b", r"(a)\1", "a{1001}", "[z-a]", "*a"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(captures("/a(/|$)(.*)"), 2);
    }
}
