//! Limits of a routing object by the RateLimitPolicies that target it.
//!
//! A request without what a limit counts by is answered 401: no key must not mean no limit. Nor must a limit that cannot be
//! read: all requests are answered 503. A limit in shadow refuses nothing, whatever is wrong with it.

use std::collections::HashMap;
use std::sync::Arc;

use super::draft::Draft;
use super::limits::count_first;
use crate::crd::rate_limit_policy::{
    KeyChoice, PolicyAnswer, PolicyKey, PolicyLimit, PolicyPlan, RateLimitPolicySpec,
};
use crate::features::effects::{Answer, Effects, Guard, Listeners, Phase, Refusal, RouteLimit};
use crate::features::request_limits::is_refusal;
use crate::model::limit::{Algorithm, FailureMode, Key, KeyMatch, Limit, Pattern, Plan};
use crate::values::matching::{HeaderMatch, TextMatch};
use crate::values::{Findings, ObjectKey, Origin, header, pattern};

const SECOND_MS: u64 = 1000;
const TOO_MANY_REQUESTS: u16 = 429;

/// What policies do to all routes of an object, or to the one route of this name that they target.
pub(crate) fn apply(draft: &mut Draft<'_>, key: &ObjectKey, route: Option<&str>, effects: &mut Effects) {
    let policies: Vec<_> = draft.view.rate_limit_policies(key).collect();
    for (policy_key, policy) in policies {
        let target = &policy.spec.target_ref;
        let elsewhere = target.host.as_deref().is_some_and(|host| !names(host, draft));
        if elsewhere || target.route.as_deref() != route {
            continue;
        }
        let terms = terms(policy_key, &policy.spec, &mut draft.findings);
        let mut ids = Ids::default();
        for (index, limit) in policy.spec.limits.iter().enumerate() {
            let origin = Origin::new(policy_key, format!("spec.limits[{index}]"));
            let shadow = policy.spec.shadow || limit.shadow;
            let failure_mode = failure_mode(&policy.spec);
            let builder = Builder { draft, origin: &origin, terms: &terms, failure_mode, shadow, effects };
            builder.limit(limit, &mut ids);
        }
    }
}

/// Whether a policy targets the object or a part of it.
pub(crate) fn target(draft: &Draft<'_>, key: &ObjectKey) -> bool {
    draft.view.rate_limit_policies(key).next().is_some()
}

/// Whether a policy targets the one route of this name.
pub(crate) fn any(draft: &Draft<'_>, key: &ObjectKey, route: &str) -> bool {
    draft
        .view
        .rate_limit_policies(key)
        .any(|(_, policy)| policy.spec.target_ref.route.as_deref() == Some(route))
}

/// Whether the host is the draft's.
fn names(host: &str, draft: &Draft<'_>) -> bool {
    crate::values::HostName::parse(host).is_ok_and(|host| host == *draft.host)
}

/// Says what of the policies that target an object has no effect, whatever the route. `hosts` and `routes` are those that
/// it has.
pub(crate) fn check(draft: &mut Draft<'_>, key: &ObjectKey, hosts: &[&str], routes: &[&str]) {
    let policies: Vec<_> = draft.view.rate_limit_policies(key).collect();
    for (policy_key, policy) in policies {
        let findings = &mut draft.findings;
        for path in policy.spec.unknown_paths() {
            findings.warning(policy_key, path, "UnknownField", "is not a field of a RateLimitPolicy");
        }
        let target = &policy.spec.target_ref;
        for (field, wanted, there) in [("host", &target.host, hosts), ("route", &target.route, routes)] {
            let Some(wanted) = wanted.as_deref().filter(|wanted| !there.contains(wanted)) else { continue };
            let message = format!("{key} has no {field} {wanted:?}; the policy limits nothing");
            findings.error(policy_key, format!("spec.targetRef.{field}"), "NoTarget", message);
        }
    }
}

/// What becomes of requests while nobody can be asked, if the policy says so.
fn failure_mode(spec: &RateLimitPolicySpec) -> Option<FailureMode> {
    spec.failure_mode.as_deref().map(|mode| match mode {
        "open" => FailureMode::Open,
        "local" => FailureMode::Local,
        _ => FailureMode::Closed,
    })
}

/// What holds for all limits of a policy.
fn terms(policy: &ObjectKey, spec: &RateLimitPolicySpec, findings: &mut Findings) -> Refusal {
    let fail_closed = match spec.failure_mode.as_deref() {
        None | Some("open" | "local") => false,
        Some("closed") => true,
        Some(other) => {
            let message = format!("{other:?} is none of open, closed and local, and read as closed");
            findings.error(policy, "spec.failureMode", "InvalidFailureMode", message);
            true
        }
    };
    let PolicyAnswer { status, headers, .. } = spec.answer.clone().unwrap_or_default();
    let status = status.filter(|status| {
        let known = is_refusal(*status);
        if !known {
            let message =
                format!("{status} is no status from 400 to 599 that Envoy can refuse with; 429 stays");
            findings.error(policy, "spec.answer.status", "InvalidAnswer", message);
        }
        known
    });
    let mut answered = Vec::new();
    for (name, value) in headers {
        if header::is_name(&name) && header::is_value(&value) {
            answered.push((name.to_ascii_lowercase(), value));
        } else {
            let field = format!("spec.answer.headers.{name}");
            findings.error(policy, field, "InvalidAnswer", "is no header; it is left out");
        }
    }
    Refusal { status: status.unwrap_or(TOO_MANY_REQUESTS), headers: answered, fail_closed }
}

/// Ids of a policy's limits, by what they count and for how long. Not by their place in the list, so that a limit keeps
/// its counters when others come and go before it; nor by the number of requests, so that an edit of that is no edit of
/// routes.
#[derive(Debug, Default)]
struct Ids(HashMap<String, usize>);

impl Ids {
    fn next(&mut self, policy: &ObjectKey, key: &Key, window_ms: u64) -> Arc<str> {
        let window = window_ms / SECOND_MS;
        let id = format!("{policy}/{key}/{window}s");
        let same = self.0.entry(id.clone()).or_default();
        *same += 1;
        // Two that count the same for as long: the smaller one counts, but both are what was asked for.
        if *same > 1 { format!("{id}/{same}").into() } else { id.into() }
    }
}

/// A problem: the field below the limit, and what is wrong with it.
type Problem = (String, String);

/// Adds a limit of a policy to a route's effects.
struct Builder<'b, 'a> {
    draft: &'b mut Draft<'a>,
    origin: &'b Origin,
    terms: &'b Refusal,
    failure_mode: Option<FailureMode>,
    shadow: bool,
    effects: &'b mut Effects,
}

impl Builder<'_, '_> {
    fn limit(mut self, limit: &PolicyLimit, ids: &mut Ids) {
        if let Err(problem) = self.try_limit(limit, ids) {
            self.refuse(problem);
        }
    }

    fn refuse(&mut self, (field, problem): Problem) {
        let field = format!("{}.{field}", self.origin.field);
        let effect = if self.shadow {
            "nothing is counted"
        } else {
            "requests to the policy's target are answered 503"
        };
        self.draft.findings.error(&self.origin.object, field, "InvalidLimit", format!("{problem}; {effect}"));
        if !self.shadow {
            self.effects.guards.push(Guard::unavailable(self.origin.clone()));
        }
    }

    fn try_limit(&mut self, limit: &PolicyLimit, ids: &mut Ids) -> Result<(), Problem> {
        let key = keys(limit)?;
        let quotas = limit.quotas().map_err(|error| ("window".to_owned(), error.to_string()))?;
        let plans = limit.plans.iter().enumerate().map(|(at, plan)| {
            Ok((
                plan.name.as_str(),
                plan_match(at, plan)?,
                plan.quotas().map_err(|error| (format!("plans[{at}].window"), error.to_string()))?,
            ))
        });
        let plans = plans.collect::<Result<Vec<_>, Problem>>()?;
        for part in key.parts() {
            self.ask_for(part);
        }
        let refusal = Refusal { fail_closed: self.terms.fail_closed && !self.shadow, ..self.terms.clone() };
        // Where some have fewer windows than others, their last one stands in: it says the same again.
        let windows = plans.iter().map(|(.., quotas)| quotas.len()).chain([quotas.len()]).max().unwrap_or(1);
        for window in 0..windows {
            let (requests, window_ms) = at(&quotas, window);
            let id = ids.next(&self.origin.object, &key, window_ms);
            let plan = |(name, matches, quotas): &(&str, KeyMatch, Vec<(u32, u64)>)| {
                let (requests, window_ms) = at(quotas, window);
                let algorithm = Algorithm::window(requests, window_ms);
                Plan { name: (*name).into(), matches: matches.clone(), algorithm }
            };
            self.draft.limit(Limit {
                id: id.clone(),
                key: key.clone(),
                algorithm: Algorithm::window(requests, window_ms),
                plans: plans.iter().map(plan).collect(),
                shadow: self.shadow,
                failure_mode: self.failure_mode,
            });
            self.effects.rate_limits.push(RouteLimit {
                id,
                key: key.clone(),
                exempt: Vec::new(),
                under_way: false,
                refusal: refusal.clone(),
                origin: self.origin.clone(),
            });
        }
        Ok(())
    }

    /// Has requests answered that lack a part of the key, and nothing else counted than what the upstream sees.
    fn ask_for(&mut self, part: &Key) {
        if let Key::Header(name) = part {
            count_first(name, self.effects);
        }
        if self.shadow {
            return;
        }
        for guard in missing(part, self.origin) {
            // Another limit may ask for the same.
            let same = |other: &Guard| (other.phase, &other.when) == (guard.phase, &guard.when);
            if !self.effects.guards.iter().any(same) {
                self.effects.guards.push(guard);
            }
        }
    }
}

fn at(quotas: &[(u32, u64)], window: usize) -> (u32, u64) {
    quotas.get(window).or(quotas.last()).copied().unwrap_or_default()
}

fn keys(limit: &PolicyLimit) -> Result<Key, Problem> {
    let first = part("key".to_owned(), &limit.key)?;
    let further = limit.and.iter().enumerate().map(|(at, key)| part(format!("and[{at}]"), key));
    let further = further.collect::<Result<Vec<_>, _>>()?;
    Ok(if further.is_empty() { first } else { Key::Several([vec![first], further].concat()) })
}

fn part(field: String, key: &PolicyKey) -> Result<Key, Problem> {
    Ok(match key.choose().map_err(|error| (field.clone(), error.to_string()))? {
        KeyChoice::ClientAddress => Key::ClientAddress,
        KeyChoice::Header(name) if !header::is_name(&name) || name.contains('%') => {
            let problem = "a header name has at most 128 characters, and no % among them";
            return Err((format!("{field}.header"), problem.to_owned()));
        }
        KeyChoice::Header(name) => Key::Header(name.into()),
        KeyChoice::Cookie(name) => Key::Cookie(name.into()),
        KeyChoice::Query(name) => Key::Query(name.into()),
        KeyChoice::Path => Key::Path,
        KeyChoice::Method => Key::Method,
        KeyChoice::Generic(name) => Key::Generic(name.into()),
    })
}

fn plan_match(at: usize, plan: &PolicyPlan) -> Result<KeyMatch, Problem> {
    let field = |name: &str| format!("plans[{at}]{name}");
    match (&plan.prefix, &plan.regex) {
        (Some(prefix), None) if !prefix.is_empty() => Ok(KeyMatch::Prefix(prefix.as_str().into())),
        (None, Some(regex)) => {
            let refused = |error: String| {
                (field(".regex"), format!("is not a regular expression that is accepted: {error}"))
            };
            pattern::check(regex).map_err(refused)?;
            Pattern::new(regex).map(KeyMatch::Regex).map_err(refused)
        }
        _ => Err((field(""), "a plan has one of `prefix` and `regex`, and it is not empty".to_owned())),
    }
}

/// The answers to requests that cannot be counted: without a part of the key, or with an empty one, which would be a key that
/// everybody shares.
fn missing(part: &Key, origin: &Origin) -> Vec<Guard> {
    let guard = |what: String, when| Guard {
        phase: Phase::Limits,
        listeners: Listeners::All,
        when: vec![when],
        answer: Answer::Direct { status: 401, body: format!("the {what} is required\n").into_bytes() },
        origin: origin.clone(),
    };
    let absent = |header, regex| HeaderMatch::new(header, TextMatch::Regex(regex)).inverted();
    match part {
        Key::Header(name) => {
            let what = || format!("{name} header");
            let present = HeaderMatch::new(name, TextMatch::Present);
            vec![guard(what(), present.inverted()), guard(what(), HeaderMatch::exact(name, ""))]
        }
        Key::Cookie(name) => {
            let given = format!("(?s)(?:.*; *)?{}=[^;].*", pattern::escape(name));
            vec![guard(format!("cookie {name}"), absent("cookie", given))]
        }
        Key::Query(name) => {
            let given = format!(r"(?s)[^?]*\?(?:.*&)?{}=[^&#].*", pattern::escape(name));
            vec![guard(format!("query parameter {name}"), absent(":path", given))]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[path = "policies_tests.rs"]
mod tests;
