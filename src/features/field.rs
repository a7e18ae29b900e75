//! Reads a field of an object, so that what is malformed is said at its path.

use std::time::Duration;

use crate::crd::virtual_service::{Percent, StringMatch};
use crate::values::matching::TextMatch;
use crate::values::{Findings, ObjectKey, Origin, duration, header, pattern};

/// Longest duration that is passed on. Envoy refuses what does not fit its own clock.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A field of an object: where it is, and where to say what is wrong with it.
#[derive(Debug)]
pub struct Field<'f> {
    object: &'f ObjectKey,
    path: String,
    findings: &'f mut Findings,
}

impl<'f> Field<'f> {
    /// The field of this path, such as `spec.http[0]`.
    pub fn new(object: &'f ObjectKey, path: impl Into<String>, findings: &'f mut Findings) -> Self {
        Self { object, path: path.into(), findings }
    }

    /// A field below this one.
    pub fn child(&mut self, name: &str) -> Field<'_> {
        Field { object: self.object, path: format!("{}.{name}", self.path), findings: self.findings }
    }

    /// An item of this list.
    pub fn item(&mut self, index: usize) -> Field<'_> {
        Field { object: self.object, path: format!("{}[{index}]", self.path), findings: self.findings }
    }

    /// The object and the path.
    pub fn origin(&self) -> Origin {
        Origin::new(self.object, self.path.as_str())
    }

    /// The object and a rule that stands in no field of it.
    pub fn default_origin(&self, rule: &str) -> Origin {
        Origin::new(self.object, rule)
    }

    /// Says that a part of the object has no effect, or refuses traffic.
    pub fn error(&mut self, reason: &'static str, message: impl Into<String>) {
        self.findings.error(self.object, self.path.as_str(), reason, message);
    }

    /// Says that the object does not do all that is written.
    pub fn warning(&mut self, reason: &'static str, message: impl Into<String>) {
        self.findings.warning(self.object, self.path.as_str(), reason, message);
    }

    /// Says something worth knowing.
    pub fn info(&mut self, reason: &'static str, message: impl Into<String>) {
        self.findings.info(self.object, self.path.as_str(), reason, message);
    }

    /// A duration as Istio accepts it: whole milliseconds, at least one. Anything else is said, and counts as not
    /// given.
    pub fn duration(&mut self, text: &str) -> Option<Duration> {
        let problem = match duration::parse(text) {
            Ok(value) if value > MAX_DURATION => "is longer than ten years",
            Ok(value) if value < Duration::from_millis(1) => "is shorter than 1ms",
            Ok(value) if value.subsec_nanos() % 1_000_000 != 0 => "is not in whole milliseconds",
            Ok(value) => return Some(value),
            Err(form) => {
                self.error("InvalidDuration", format!("{text:?} is not {form}; it has no effect"));
                return None;
            }
        };
        self.error("InvalidDuration", format!("{text:?} {problem}; it has no effect"));
        None
    }

    /// A percentage in millionths.
    pub fn millionths(&mut self, percent: &Percent) -> Option<u32> {
        if (0.0..=100.0).contains(&percent.value) {
            return Some((percent.value * 10_000.0).round() as u32);
        }
        self.error(
            "InvalidPercentage",
            format!("{} is not between 0 and 100; it has no effect", percent.value),
        );
        None
    }

    /// A deprecated whole percentage in millionths.
    pub fn whole_millionths(&mut self, percent: u32) -> Option<u32> {
        self.millionths(&Percent { value: percent.into(), ..Percent::default() })
    }

    /// Text that can stand in a header's value. Anything else is said, and counts as not given; so does the empty
    /// text, silently.
    pub fn header_text(&mut self, text: Option<&String>) -> Option<String> {
        let text = text.filter(|text| !text.is_empty())?;
        if header::is_value(text) {
            return Some(text.clone());
        }
        self.error("InvalidValue", format!("{text:?} has control characters; it has no effect"));
        None
    }
}

/// How text is compared; `{}` and the regex `*` ask for its presence.
///
/// # Errors
/// Why Envoy would refuse it, in one clause.
pub fn text_match(wanted: &StringMatch) -> Result<TextMatch, String> {
    match (&wanted.exact, &wanted.prefix, &wanted.regex) {
        (None, None, None) => Ok(TextMatch::Present),
        (Some(exact), None, None) => Ok(TextMatch::Exact(exact.clone())),
        (None, Some(prefix), None) if prefix.is_empty() => Err("an empty prefix says nothing".to_owned()),
        (None, Some(prefix), None) => Ok(TextMatch::Prefix(prefix.clone())),
        (None, None, Some(regex)) if regex == "*" => Ok(TextMatch::Present),
        (None, None, Some(regex)) => checked_regex(regex).map(TextMatch::Regex),
        _ => Err("more than one of exact, prefix and regex is given".to_owned()),
    }
}

/// A regular expression that Envoy will accept.
///
/// # Errors
/// What is wrong with it, in one clause.
pub fn checked_regex(regex: &str) -> Result<String, String> {
    if regex.is_empty() {
        return Err("the regular expression is empty".to_owned());
    }
    match pattern::check(regex) {
        Ok(()) => Ok(regex.to_owned()),
        Err(error) => Err(format!("{regex:?} is not a regular expression that RE2 accepts: {error}")),
    }
}
