//! The response headers of draft-ietf-httpapi-ratelimit-headers-10, which the service sends itself since Envoy knows only
//! those of its third draft: `RateLimit-Policy` and `RateLimit`, lists of strings with parameters (RFC 9651). Pure.

use envoy_types::pb::envoy::config::core::v3::HeaderValue;

use super::answer::Decided;
use super::counters::{Outcome, Role};
use super::subject::{Limited, Subject};
use crate::model::limit::Algorithm;
use crate::options::LimitHeaders;

/// What is told of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ietf {
    /// Whether refusals say when to come back. Not so where Envoy does.
    pub retry_after: bool,
}

impl Ietf {
    /// What the service tells, if it is the service that does.
    #[must_use]
    pub fn of(told: LimitHeaders) -> Option<Self> {
        told.of_service().then_some(Self { retry_after: !told.of_envoy() })
    }
}

/// The names of windows that have one.
const NAMES: [(u64, &str); 5] =
    [(1, "second"), (60, "minute"), (3_600, "hour"), (86_400, "day"), (604_800, "week")];

/// The headers for what was decided; none where no limit was asked. Limits in shadow are not told.
pub(super) fn headers(ietf: Ietf, decided: &[Decided<'_>], admitted: bool) -> Vec<HeaderValue> {
    let told = |decided: &Decided<'_>| match decided {
        (Subject::Limited(limited), Some(outcome)) if limited.role != Role::Shadow => {
            Some((policy(limited), **outcome))
        }
        _ => None,
    };
    let mut names: Vec<String> = Vec::new();
    let (mut policies, mut states) = (Vec::new(), Vec::new());
    let mut retry_after = 0;
    for (Policy { name, parameters }, outcome) in decided.iter().filter_map(told) {
        let same = names.iter().filter(|known| **known == name).count();
        let item = if same == 0 { format!("\"{name}\"") } else { format!("\"{name}-{}\"", same + 1) };
        names.push(name);
        policies.push(format!("{item}{parameters}"));
        states.push(format!("{item}{}", state(&outcome)));
        if !outcome.allowed {
            retry_after = retry_after.max(outcome.reset_ms.div_ceil(1_000));
        }
    }
    if policies.is_empty() {
        return Vec::new();
    }
    let header =
        |key: &str, value: String| HeaderValue { key: key.to_owned(), value, ..HeaderValue::default() };
    let mut headers =
        vec![header("RateLimit-Policy", policies.join(", ")), header("RateLimit", states.join(", "))];
    // Nobody knows when another request ends.
    if ietf.retry_after && !admitted && retry_after > 0 {
        headers.push(header("Retry-After", retry_after.to_string()));
    }
    headers
}

struct Policy {
    name: String,
    parameters: String,
}

/// What a limit is called, and its quota and window. Neither says which object it is of.
fn policy(limited: &Limited<'_>) -> Policy {
    let own = limited.name();
    let name = |default: String| if own.is_empty() { default } else { text(own) };
    let (quota, window_ms) = match limited.limit.algorithm {
        Algorithm::Concurrency { limit, .. } => {
            let parameters = format!(";q={limit};qu=\"concurrent-requests\"");
            return Policy { name: name("concurrent".to_owned()), parameters };
        }
        algorithm @ Algorithm::Gcra { burst, .. } => {
            let (requests, period_ms) = algorithm.quota();
            bucket(requests, period_ms, burst)
        }
        algorithm => {
            let (requests, window_ms) = algorithm.quota();
            (u64::from(requests), window_ms)
        }
    };
    let seconds = window_ms.div_ceil(1_000);
    let known = NAMES.iter().find(|(length, _)| *length == seconds).map(|(_, name)| (*name).to_owned());
    let name = name(known.unwrap_or_else(|| format!("{seconds}s")));
    Policy { name, parameters: format!(";q={quota};w={seconds}") }
}

/// A bucket that holds more than a period's hits lets through what it holds, in the time in which it drains.
fn bucket(requests: u32, period_ms: u64, burst: u32) -> (u64, u64) {
    let holds = u64::from(burst) + 1;
    match u64::from(requests) {
        requests if requests == 0 || holds <= requests => (requests, period_ms),
        requests => (holds, holds.saturating_mul(period_ms).div_ceil(requests)),
    }
}

fn state(outcome: &Outcome) -> String {
    let remaining = if outcome.allowed { outcome.remaining } else { 0 };
    match outcome.reset_ms.div_ceil(1_000) {
        0 => format!(";r={remaining}"),
        seconds => format!(";r={remaining};t={seconds}"),
    }
}

/// The inside of a string of a structured field: ASCII, quotes and backslashes escaped. What is neither is left out.
fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars().filter(|character| matches!(character, ' '..='~')) {
        if matches!(character, '"' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::model::limit::{Key, Limit};
    use crate::ratelimit::counters::Hits;
    use crate::ratelimit::subject::{AnyLimit, Origin};

    type Told = (Algorithm, Role, Outcome);

    fn sent(told: &[Told]) -> String {
        let subject = |(algorithm, role, _): &Told| {
            let limit = AnyLimit::Made(Box::new(Limit::new(
                "Ingress/shop/api".into(),
                Key::ClientAddress,
                *algorithm,
            )));
            let key = Cow::Owned(Vec::new());
            Subject::Limited(Limited { limit, key, hits: Hits::Take(1), role: *role, origin: Origin::Ours })
        };
        let subjects: Vec<Subject<'_>> = told.iter().map(subject).collect();
        let mut decided: Vec<Decided<'_>> =
            subjects.iter().zip(told).map(|(subject, (.., outcome))| (subject, Some(outcome))).collect();
        decided.push((&Subject::Unknown, None));
        let admitted = told.iter().all(|(_, role, outcome)| outcome.allowed || *role == Role::Shadow);
        let headers = headers(Ietf { retry_after: true }, &decided, admitted);
        headers.iter().map(|header| format!("{}: {}\n", header.key, header.value)).collect()
    }

    #[test]
    fn what_is_told_of_limits() {
        let window = |requests, window_ms| Algorithm::SlidingWindow { requests, window_ms };
        let gcra = |requests, burst| Algorithm::Gcra { requests, period_ms: 1_000, burst };
        let gauge = Algorithm::Concurrency { limit: 4, lease_ms: 60_000 };
        let yes = |remaining, reset_ms| Outcome { allowed: true, remaining, reset_ms };
        let no = |remaining, reset_ms| Outcome { allowed: false, remaining, reset_ms };
        let (binding, shadow) = (Role::Binding, Role::Shadow);
        for (told, expected) in [
            (vec![], ""),
            (vec![(window(5, 60_000), shadow, no(0, 9))], ""),
            (
                vec![(window(5, 60_000), binding, yes(4, 59_001))],
                "RateLimit-Policy: \"minute\";q=5;w=60\nRateLimit: \"minute\";r=4;t=60\n",
            ),
            (
                vec![(window(5, 60_000), binding, yes(4, 0)), (window(9, 90_000), binding, no(2, 1_500))],
                "RateLimit-Policy: \"minute\";q=5;w=60, \"90s\";q=9;w=90\n\
                 RateLimit: \"minute\";r=4, \"90s\";r=0;t=2\nRetry-After: 2\n",
            ),
            (
                vec![(window(5, 60_000), binding, yes(4, 1)), (window(7, 60_000), binding, yes(6, 1))],
                "RateLimit-Policy: \"minute\";q=5;w=60, \"minute-2\";q=7;w=60\n\
                 RateLimit: \"minute\";r=4;t=1, \"minute-2\";r=6;t=1\n",
            ),
            (
                vec![(gcra(5, 25), binding, yes(25, 1))],
                "RateLimit-Policy: \"6s\";q=26;w=6\nRateLimit: \"6s\";r=25;t=1\n",
            ),
            (
                vec![(gcra(5, 0), binding, yes(0, 1))],
                "RateLimit-Policy: \"second\";q=5;w=1\nRateLimit: \"second\";r=0;t=1\n",
            ),
            (
                vec![(gauge, binding, no(0, 0))],
                "RateLimit-Policy: \"concurrent\";q=4;qu=\"concurrent-requests\"\nRateLimit: \"concurrent\";r=0\n",
            ),
        ] {
            assert_eq!(sent(&told), expected, "{told:?}");
        }
    }

    #[test]
    fn names_are_strings_of_structured_fields() {
        assert_eq!(text("a \"b\" \\ é\n"), "a \\\"b\\\" \\\\ ");
    }
}
