//! The response headers of OpenAI's API, which its clients read: `x-ratelimit-limit-requests` and the like, and `-tokens`
//! for what is not counted by requests. Pure.

use std::cmp::Reverse;

use envoy_types::pb::envoy::config::core::v3::HeaderValue;

use super::answer::Decided;
use super::counters::{Outcome, Role};
use super::subject::Subject;
use crate::model::limit::Counted;

const SECOND_MS: u64 = 1_000;

/// The headers of those limits that are told so, if any: of requests and of tokens the one that is nearest. Limits in
/// shadow are not told.
pub(super) fn headers(decided: &[Decided<'_>]) -> Vec<HeaderValue> {
    [Counted::Requests, Counted::Tokens]
        .into_iter()
        .filter_map(|counted| {
            let (limit, outcome) = nearest(decided, counted)?;
            let reset = duration(outcome.reset_ms);
            let values = [limit.to_string(), remaining(outcome).to_string(), reset];
            Some(counted.openai_headers().into_iter().zip(values).map(|(name, value)| HeaderValue {
                key: name.to_owned(),
                value,
                ..HeaderValue::default()
            }))
        })
        .flatten()
        .collect()
}

/// The hits and the state of the limit that has the least left, of several that have none the one that has to be waited
/// for the longest.
fn nearest<'a>(decided: &[Decided<'a>], counted: Counted) -> Option<(u32, &'a Outcome)> {
    let told = |(subject, outcome): &Decided<'a>| match (subject, outcome) {
        (Subject::Limited(limited), Some(outcome))
            if limited.limit.openai_headers == Some(counted) && limited.role != Role::Shadow =>
        {
            Some((limited.limit.algorithm.quota().0, *outcome))
        }
        _ => None,
    };
    let key =
        |(_, outcome): &(u32, &Outcome)| (remaining(outcome), outcome.allowed, Reverse(outcome.reset_ms));
    decided.iter().filter_map(told).min_by_key(key)
}

fn remaining(outcome: &Outcome) -> u64 {
    if outcome.allowed { outcome.remaining } else { 0 }
}

/// A duration as OpenAI writes it, which is as Go does: `20ms`, `1s`, `6m0s`, `17h2m0s`. From a second on it is rounded up
/// to whole ones, since fractions are not what clients expect.
fn duration(ms: u64) -> String {
    if ms < SECOND_MS {
        return if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") };
    }
    let seconds = ms.div_ceil(SECOND_MS);
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::model::limit::{Algorithm, Key, Limit};
    use crate::ratelimit::counters::Hits;
    use crate::ratelimit::subject::{AnyLimit, Limited, Origin};

    /// The limit, what it counts to clients, and what was decided.
    type Told = (u32, Option<Counted>, Role, Outcome);

    fn sent(told: &[Told]) -> String {
        let subject = |(requests, counted, role, _): &Told| {
            let algorithm = Algorithm::window(*requests, 60_000);
            let limit = Limit::new("RateLimitPolicy/ml/api".into(), Key::ClientAddress, algorithm);
            let limit = AnyLimit::Made(Box::new(Limit { openai_headers: *counted, ..limit }));
            let key = Cow::Owned(Vec::new());
            Subject::Limited(Limited { limit, key, hits: Hits::Take(1), role: *role, origin: Origin::Ours })
        };
        let subjects: Vec<Subject<'_>> = told.iter().map(subject).collect();
        let mut decided: Vec<Decided<'_>> =
            subjects.iter().zip(told).map(|(subject, (.., outcome))| (subject, Some(outcome))).collect();
        decided.push((&Subject::Unknown, None));
        let shown = |header: HeaderValue| format!("{}={}", &header.key["x-ratelimit-".len()..], header.value);
        headers(&decided).into_iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_nearest_limit_of_each_kind_is_told() {
        let yes = |remaining, reset_ms| Outcome { allowed: true, remaining, reset_ms };
        let no = |remaining, reset_ms| Outcome { allowed: false, remaining, reset_ms };
        let (requests, tokens) = (Some(Counted::Requests), Some(Counted::Tokens));
        let binding = Role::Binding;
        for (told, expected) in [
            (vec![], ""),
            (vec![(5, None, binding, yes(4, 9))], ""),
            (vec![(5, requests, Role::Shadow, yes(4, 9))], ""),
            (
                vec![(5, requests, binding, yes(4, 20))],
                "limit-requests=5 remaining-requests=4 reset-requests=20ms",
            ),
            (
                vec![(900, tokens, binding, yes(700, 59_001)), (5, requests, binding, yes(4, 1_000))],
                "limit-requests=5 remaining-requests=4 reset-requests=1s \
                 limit-tokens=900 remaining-tokens=700 reset-tokens=1m0s",
            ),
            (
                vec![(9, requests, binding, yes(3, 1)), (5, requests, binding, yes(2, 1))],
                "limit-requests=5 remaining-requests=2 reset-requests=1ms",
            ),
            // What is refused has nothing left for it, though there may be something for one that costs less.
            (
                vec![(9, tokens, binding, yes(1, 1)), (5, tokens, binding, no(3, 2_000))],
                "limit-tokens=5 remaining-tokens=0 reset-tokens=2s",
            ),
            (
                vec![
                    (7, requests, binding, yes(0, 9_000)),
                    (5, requests, binding, no(0, 1_000)),
                    (6, requests, binding, no(0, 3_000)),
                ],
                "limit-requests=6 remaining-requests=0 reset-requests=3s",
            ),
        ] {
            assert_eq!(sent(&told), expected, "{told:?}");
        }
    }

    #[test]
    fn durations_are_written_as_openai_does() {
        for (ms, expected) in [
            (0, "0s"),
            (20, "20ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (1_001, "2s"),
            (59_999, "1m0s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (61_262_000, "17h1m2s"),
            (172_800_000, "48h0m0s"),
        ] {
            assert_eq!(duration(ms), expected);
        }
    }
}
