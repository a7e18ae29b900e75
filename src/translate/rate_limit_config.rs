//! Limits as envoyproxy/ratelimit has them, for its service in place of ours; and what is lost on the way.
//!
//! Its limits are so many requests in each second, minute, hour, day, week, month or year of the clock. Descriptors are
//! those that Envoy sends: `model::limit` says which.

use envoy_types::pb::ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
};

use super::version;
use crate::features::cost::Cost;
use crate::features::effects::RouteLimit;
use crate::model::Host;
use crate::model::limit::{
    Algorithm, DOMAIN, KEY_ENTRY, Key, KeyMatch, LIMIT_ENTRY, Limit, LimitSet, TOLD_ENTRY,
};
use crate::values::Findings;
use crate::values::calendar::CalendarUnit;
use crate::xds::{Resource, TypeUrl};

/// The name of an entry that holds the client's address, which Envoy chooses.
const ADDRESS_ENTRY: &str = "remote_address";

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 86_400_000;

/// Its units, the shortest first.
const UNITS: [(RateLimitUnit, u64, &str); 7] = [
    (RateLimitUnit::Second, SECOND_MS, "second"),
    (RateLimitUnit::Minute, 60 * SECOND_MS, "minute"),
    (RateLimitUnit::Hour, 3_600 * SECOND_MS, "hour"),
    (RateLimitUnit::Day, DAY_MS, "day"),
    (RateLimitUnit::Week, 7 * DAY_MS, "week"),
    (RateLimitUnit::Month, 30 * DAY_MS, "month"),
    (RateLimitUnit::Year, 365 * DAY_MS, "year"),
];

/// All limits, as one resource: there, a domain is of one.
pub fn rate_limit_config(limits: &LimitSet) -> Resource {
    let message = RateLimitConfig {
        name: DOMAIN.to_owned(),
        domain: DOMAIN.to_owned(),
        descriptors: limits.iter().filter_map(descriptor).collect(),
    };
    Resource::new(TypeUrl::RateLimitConfig, DOMAIN, version(limits), &message)
}

/// What is lost of the limits of a host, said of the objects that they come from.
pub fn findings(host: &Host) -> Findings {
    let mut findings = Findings::default();
    for limit in &host.limits {
        let routes = host.routes.iter().flat_map(|route| &route.effects.rate_limits);
        for RouteLimit { origin, cost, .. } in routes.filter(|of_route| of_route.id == limit.id) {
            if let Some(lost) = lost(limit, cost) {
                findings.warning(&origin.object, &*origin.field, "LostInRateLimitConfig", lost);
            }
        }
    }
    findings
}

/// One branch of descriptors; none if it cannot be said there.
fn descriptor(limit: &Limit) -> Option<RateLimitDescriptor> {
    let rest = lowered(&limit.algorithm)?;
    let parts = limit.key.parts();
    // The first that matches decides, and what has no `*` would go before all.
    let is_first = |index: usize| {
        let before = limit.plans.iter().take(index);
        before.filter(|plan| plan.matches == limit.plans[index].matches).count() == 0
    };
    let plans = limit.plans.iter().enumerate().filter_map(|(index, plan)| match &plan.matches {
        // The same value twice is an error there.
        KeyMatch::Prefix(prefix) if is_first(index) => {
            let policy = lowered(&plan.algorithm)?;
            Some(branch(limit, parts, format!("{prefix}*"), policy))
        }
        _ => None,
    });
    Some(RateLimitDescriptor {
        key: LIMIT_ENTRY.to_owned(),
        value: limit.id.to_string(),
        descriptors: plans.chain([branch(limit, parts, String::new(), rest)]).collect(),
        ..RateLimitDescriptor::default()
    })
}

/// One level for each part of the key, the limit at the last.
fn branch(limit: &Limit, parts: &[Key], value: String, policy: RateLimitPolicy) -> RateLimitDescriptor {
    let Some((first, rest)) = parts.split_first() else { return RateLimitDescriptor::default() };
    let key = if *first == Key::ClientAddress { ADDRESS_ENTRY } else { KEY_ENTRY };
    let mut descriptor = RateLimitDescriptor { key: key.to_owned(), value, ..RateLimitDescriptor::default() };
    if rest.is_empty() && limit.told.is_some() {
        descriptor.descriptors = vec![told(limit, policy)];
    } else if rest.is_empty() {
        descriptor.rate_limit = Some(policy);
        descriptor.shadow_mode = limit.shadow;
    } else {
        descriptor.descriptors = vec![branch(limit, rest, String::new(), policy)];
    }
    descriptor
}

/// The level of what is told, whatever it is.
fn told(limit: &Limit, policy: RateLimitPolicy) -> RateLimitDescriptor {
    RateLimitDescriptor {
        key: TOLD_ENTRY.to_owned(),
        rate_limit: Some(policy),
        shadow_mode: limit.shadow,
        ..RateLimitDescriptor::default()
    }
}

fn lowered(algorithm: &Algorithm) -> Option<RateLimitPolicy> {
    let (requests_per_unit, unit, _) = per_unit(algorithm)?;
    Some(RateLimitPolicy { unit: unit.into(), requests_per_unit, ..RateLimitPolicy::default() })
}

/// The rate in the longest unit that is not longer than the window, as far as that is a request or more; else in the
/// shortest in which it is one.
fn per_unit(algorithm: &Algorithm) -> Option<(u32, RateLimitUnit, &'static str)> {
    if matches!(algorithm, Algorithm::Concurrency { .. }) {
        return None;
    }
    let (requests, window_ms) = algorithm.quota();
    let window_ms = window_ms.max(1);
    let scaled = |unit_ms: u64| {
        let requests = u128::from(requests) * u128::from(unit_ms);
        let nearest = (requests + u128::from(window_ms / 2)) / u128::from(window_ms);
        u32::try_from(nearest).unwrap_or(u32::MAX)
    };
    let is_whole =
        |unit_ms: u64| requests == 0 || u128::from(requests) * u128::from(unit_ms) >= u128::from(window_ms);
    let fits = UNITS.iter().rev().find(|(_, unit_ms, _)| *unit_ms <= window_ms && is_whole(*unit_ms));
    let fits = fits.or_else(|| UNITS.iter().find(|(_, unit_ms, _)| is_whole(*unit_ms)));
    let (unit, unit_ms, name) = fits.unwrap_or(&UNITS[UNITS.len() - 1]);
    let at_least = u32::from(requests > 0);
    Some((scaled(*unit_ms).max(at_least), *unit, name))
}

/// What is lost of a limit, in a sentence.
fn lost(limit: &Limit, cost: &Cost) -> Option<String> {
    let Some((requests, _, unit)) = per_unit(&limit.algorithm) else {
        return Some(
            "has no effect with envoyproxy/ratelimit, which has no limits of requests under way".to_owned(),
        );
    };
    let mut lost: Vec<String> = lost_of(&limit.algorithm);
    if limit.told.is_some() {
        lost.push("the rates that the answers of auth-url say".to_owned());
    }
    for plan in &limit.plans {
        match &plan.matches {
            KeyMatch::Regex(_) => {
                lost.push(format!("the plan {}, whose keys are told by an expression", plan.name))
            }
            KeyMatch::Exact(_) => lost.push(format!("the plan {}, whose keys are in a Secret", plan.name)),
            KeyMatch::Prefix(prefix) if prefix.contains('*') => {
                lost.push(format!("that the `*` in the prefix of the plan {} is a `*`", plan.name))
            }
            KeyMatch::Prefix(_) if per_unit(&plan.algorithm).is_none() => {
                lost.push(format!("the plan {}, which limits requests under way", plan.name))
            }
            KeyMatch::Prefix(_) => {
                let of_plan = lost_of(&plan.algorithm).into_iter();
                lost.extend(of_plan.map(|lost| format!("of the plan {}, {lost}", plan.name)))
            }
        }
    }
    if limit.openai_headers.is_some() {
        lost.push("the headers of limitHeaders".to_owned());
    }
    if limit.body.is_some() {
        lost.push("the body of its answer".to_owned());
    }
    if let Cost::Answer { .. } = cost {
        lost.push("what answers cost: nothing but a `reserve` is counted".to_owned());
    }
    if lost.is_empty() {
        return None;
    }
    Some(format!("is {requests} a {unit} with envoyproxy/ratelimit, without {}", lost.join("; ")))
}

fn lost_of(algorithm: &Algorithm) -> Vec<String> {
    let mut lost = Vec::new();
    match *algorithm {
        Algorithm::Gcra { burst, .. } => {
            if burst > 0 {
                lost.push(format!("the burst of {burst}"));
            }
            lost.push("spreading requests over it".to_owned());
        }
        Algorithm::FixedWindow { .. } => {
            lost.push("windows that begin with a key's first request".to_owned())
        }
        Algorithm::SlidingWindow { .. } => {
            lost.push("windows that slide, so that twice as much gets through at an edge".to_owned());
        }
        Algorithm::Calendar { unit: CalendarUnit::Day, time_zone, .. } if time_zone.name() == "UTC" => {}
        Algorithm::Calendar { time_zone, .. } => lost.push(format!("the calendar of {}", time_zone.name())),
        Algorithm::AlignedWindow { .. } | Algorithm::Concurrency { .. } => {}
    }
    let (_, window_ms) = algorithm.quota();
    // A rate is kept in thousandths of a request a second where that is what nginx does.
    let odd = !matches!(algorithm, Algorithm::Gcra { .. } | Algorithm::Concurrency { .. })
        && UNITS.iter().all(|(_, unit_ms, _)| *unit_ms != window_ms);
    if odd {
        lost.push(format!("a window of {}", seconds(window_ms)));
    }
    lost
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(SECOND_MS) { format!("{} s", ms / SECOND_MS) } else { format!("{ms} ms") }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::features::cost::Told;
    use crate::model::limit::{Counted, Pattern, Plan, ToldAs};
    use crate::values::calendar::TimeZone;

    const MINUTE_MS: u64 = 60 * SECOND_MS;

    fn limit(algorithm: Algorithm) -> Limit {
        Limit::new("l".into(), Key::Header("x-api-key".into()), algorithm)
    }

    fn plan(name: &str, matches: KeyMatch, algorithm: Algorithm) -> Plan {
        Plan { name: name.into(), matches, algorithm }
    }

    #[test]
    fn rates_and_what_is_lost_of_them() {
        let calendar =
            |unit, zone| Algorithm::Calendar { requests: 5, unit, time_zone: TimeZone::parse(zone).unwrap() };
        let aligned = |requests, window_ms| Algorithm::AlignedWindow { requests, window_ms };
        let sliding = "windows that slide, so that twice as much gets through at an edge";
        for (algorithm, per_unit, words) in [
            (aligned(5, SECOND_MS), "5 a second", ""),
            (aligned(5, 7 * DAY_MS), "5 a week", ""),
            (aligned(0, 10 * MINUTE_MS), "0 a minute", "a window of 600 s"),
            (aligned(100, 10 * MINUTE_MS), "10 a minute", "a window of 600 s"),
            // What would be less than one a minute is kept by the hour.
            (aligned(5, 10 * MINUTE_MS), "30 a hour", "a window of 600 s"),
            (aligned(1, 15 * SECOND_MS), "4 a minute", "a window of 15 s"),
            (aligned(1, 1_000 * DAY_MS), "1 a year", "a window of 86400000 s"),
            (aligned(u32::MAX, 1), "4294967295 a second", "a window of 1 ms"),
            (
                Algorithm::FixedWindow { requests: 5, window_ms: SECOND_MS },
                "5 a second",
                "windows that begin with a key's first request",
            ),
            (Algorithm::SlidingWindow { requests: 5, window_ms: MINUTE_MS }, "5 a minute", sliding),
            (
                Algorithm::limit_req(10, SECOND_MS, 50),
                "10 a second",
                "the burst of 50; spreading requests over it",
            ),
            (Algorithm::limit_req(100, MINUTE_MS, 0), "100 a minute", "spreading requests over it"),
            (calendar(CalendarUnit::Day, "UTC"), "5 a day", ""),
            (calendar(CalendarUnit::Day, "Europe/Berlin"), "5 a day", "the calendar of Europe/Berlin"),
            (calendar(CalendarUnit::Month, "UTC"), "5 a month", "the calendar of UTC"),
        ] {
            let policy = lowered(&algorithm).unwrap();
            let unit = policy.unit().as_str_name().to_lowercase();
            assert_eq!(format!("{} a {unit}", policy.requests_per_unit), per_unit, "{algorithm:?}");
            let expected = (!words.is_empty())
                .then(|| format!("is {per_unit} with envoyproxy/ratelimit, without {words}"));
            assert_eq!(lost(&limit(algorithm), &Cost::One), expected, "{algorithm:?}");
        }
        let concurrency = limit(Algorithm::Concurrency { limit: 1, lease_ms: 1 });
        assert!(descriptor(&concurrency).is_none());
        assert!(lost(&concurrency, &Cost::One).unwrap().starts_with("has no effect"));
    }

    /// Descriptors as lines: keys and values, then the limit.
    fn lines(descriptor: &RateLimitDescriptor, before: &str, lines: &mut Vec<String>) {
        let RateLimitDescriptor { key, value, rate_limit, descriptors, shadow_mode, .. } = descriptor;
        let path = format!("{before}{key}={value} ");
        if let Some(policy) = rate_limit {
            let shadow = if *shadow_mode { " shadow" } else { "" };
            lines.push(format!("{path}{}{shadow}", policy.requests_per_unit));
        }
        descriptors.iter().for_each(|below| self::lines(below, &path, lines));
    }

    #[test]
    fn descriptors_are_those_that_envoy_sends() {
        let minute = |requests| Algorithm::AlignedWindow { requests, window_ms: MINUTE_MS };
        let prefix = |text: &str| KeyMatch::Prefix(text.into());
        let gold = KeyMatch::Regex(Pattern::new("gold").unwrap());
        let gauge = Algorithm::Concurrency { limit: 1, lease_ms: 1 };
        let limits: LimitSet = [
            Limit { key: Key::ClientAddress, shadow: true, ..limit(minute(1)) },
            Limit {
                id: "m".into(),
                key: Key::Several(vec![Key::Header("k".into()), Key::ClientAddress]),
                plans: vec![
                    plan("pro", prefix("pro_"), minute(9)),
                    plan("gold", gold, minute(8)),
                    plan("gauge", prefix("g_"), gauge),
                    plan("again", prefix("pro_"), minute(7)),
                ],
                openai_headers: Some(Counted::Tokens),
                ..limit(minute(2))
            },
            Limit { id: "n".into(), ..limit(gauge) },
            Limit {
                id: "t".into(),
                told: Some(ToldAs::Window),
                plans: vec![plan("pro", prefix("pro_"), minute(9))],
                ..limit(minute(3))
            },
        ]
        .into_iter()
        .collect();
        let resource = rate_limit_config(&limits);
        let message = RateLimitConfig::decode(resource.body()).unwrap();
        assert_eq!((message.name.as_str(), message.domain.as_str()), ("chancery", "chancery"));
        let mut seen = Vec::new();
        message.descriptors.iter().for_each(|descriptor| lines(descriptor, "", &mut seen));
        assert_eq!(
            seen,
            [
                "limit=l remote_address= 1 shadow",
                "limit=m key=pro_* remote_address= 9",
                "limit=m key= remote_address= 2",
                "limit=t key=pro_* told= 9",
                "limit=t key= told= 3",
            ]
        );
        let said = lost(limits.get("m").unwrap(), &Cost::One).unwrap();
        assert_eq!(
            said,
            "is 2 a minute with envoyproxy/ratelimit, without the plan gold, whose keys are told by an expression; \
             the plan gauge, which limits requests under way; the headers of limitHeaders"
        );
        let words =
            "is 3 a minute with envoyproxy/ratelimit, without the rates that the answers of auth-url say";
        assert_eq!(lost(limits.get("t").unwrap(), &Cost::One).unwrap(), words);
        let cost = Cost::Answer { told: Told::Header("x-tokens".into()), reserve: 0 };
        let said = lost(limits.get("t").unwrap(), &cost).unwrap();
        assert!(said.ends_with("; what answers cost: nothing but a `reserve` is counted"), "{said}");
        assert_ne!(resource.version(), rate_limit_config(&LimitSet::default()).version());
    }
}
