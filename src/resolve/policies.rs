//! Limits of a routing object by the RateLimitPolicies that target it.
//!
//! A request without what a limit counts by is answered 401: no key must not mean no limit. Nor must a limit that cannot be
//! read: all requests are answered 503. A limit in shadow refuses nothing, whatever is wrong with it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::costs;
use super::draft::Draft;
use super::jwt;
use super::limits::count_first;
use super::policy_keys::{keys, missing};
use super::policy_terms::{Terms, terms};
use crate::crd::rate_limit_policy::{PolicyLimit, PolicyPlan, PolicySecretRef, Quota};
use crate::features::cost::{Cost, Told};
use crate::features::effects::{Effects, Guard, HeaderOperation, Refusal, RouteLimit};
use crate::model::limit::{Algorithm, Counted, Key, KeyMatch, KeySet, Limit, Pattern, Plan, ToldAs};
use crate::settings::Settings;
use crate::values::host::full_name;
use crate::values::{HostName, Kind, ObjectKey, Origin, pattern};

const SECOND_MS: u64 = 1000;

/// What policies do to all routes of an object, or to the one route of this name that they target.
pub(crate) fn apply(draft: &mut Draft<'_>, key: &ObjectKey, route: Option<&str>, effects: &mut Effects) {
    let policies: Vec<_> = draft.view.rate_limit_policies(key).collect();
    for (policy_key, policy) in policies {
        let target = &policy.spec.target_ref;
        let elsewhere = target.host.as_deref().is_some_and(|host| !names(key, host, draft));
        if elsewhere || target.route.as_deref() != route {
            continue;
        }
        if let Some((field, _)) = policy.spec.problem().filter(|_| !policy.spec.shadow) {
            effects.guards.push(Guard::unavailable(Origin::new(policy_key, field)));
        }
        let terms = terms(policy_key, &policy.spec, draft.settings, &mut draft.findings);
        let mut ids = Ids::default();
        for (index, limit) in policy.spec.limits.iter().enumerate() {
            let origin = Origin::new(policy_key, format!("spec.limits[{index}]"));
            let shadow = policy.spec.shadow || limit.shadow;
            Builder { draft, origin: &origin, terms: &terms, shadow, effects }.limit(limit, &mut ids);
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

/// Whether the host of an object is the draft's, or the wildcard that the draft's deeper names are of.
fn names(key: &ObjectKey, host: &str, draft: &Draft<'_>) -> bool {
    let host = HostName::parse(&whole(key, host, draft.settings));
    host.is_ok_and(|host| host == *draft.host || Some(host) == draft.host.shallow())
}

/// A host as its object means it: in a VirtualService a short name is that of a Service.
fn whole<'h>(key: &ObjectKey, host: &'h str, settings: &Settings) -> Cow<'h, str> {
    match key.kind {
        Kind::VirtualService => full_name(host, &key.namespace, &settings.cluster_domain),
        _ => host.into(),
    }
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
        let settings = draft.settings;
        let name = |host: &str| HostName::parse(&whole(key, host, settings)).ok();
        let has_host = |wanted: &str| {
            let wanted = name(wanted);
            wanted.is_some() && hosts.iter().any(|host| name(host) == wanted)
        };
        let has_route = |wanted: &str| routes.contains(&wanted);
        let unmet = [
            ("host", target.host.as_deref().filter(|host| !has_host(host))),
            ("route", target.route.as_deref().filter(|route| !has_route(route))),
        ];
        for (field, wanted) in unmet {
            let Some(wanted) = wanted else { continue };
            let message = format!("{key} has no {field} {wanted:?}; the policy limits nothing");
            findings.error(policy_key, format!("spec.targetRef.{field}"), "NoTarget", message);
        }
    }
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
pub(super) type Problem = (String, String);

/// A plan of a policy, with all of its windows.
struct PlanOfWindows<'p> {
    name: &'p str,
    matches: KeyMatch,
    quotas: Vec<Quota>,
}

impl PlanOfWindows<'_> {
    fn in_window(&self, window: usize) -> Plan {
        let (requests, window_ms) = at(&self.quotas, window);
        let algorithm = Algorithm::window(requests, window_ms);
        Plan { name: self.name.into(), matches: self.matches.clone(), algorithm }
    }
}

/// Adds a limit of a policy to a route's effects.
struct Builder<'b, 'a> {
    draft: &'b mut Draft<'a>,
    origin: &'b Origin,
    terms: &'b Terms,
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
        let quotas = limit.quotas().map_err(|(field, error)| (field, error.to_string()))?;
        let plans = self.plans(&limit.plans)?;
        let tokens = jwt::tokens(self.draft.view, &self.origin.object.namespace, limit, self.shadow)?;
        self.come_from_clients(&tokens)?;
        let cost = costs::of_limit(limit)?;
        let told = self.told(limit);
        let after_auth = told.is_some() || self.counts_by_auth(&key, &cost);
        self.settle(&cost, &quotas);
        let openai_headers = self.tell(&cost);
        for part in key.parts() {
            self.ask_for(part);
        }
        for header in tokens.iter().filter_map(|token| token.provider.header.as_deref()) {
            count_first(header, self.effects);
        }
        let Terms { refusal, failure_mode, body, .. } = self.terms;
        let refusal = Refusal { fail_closed: refusal.fail_closed && !self.shadow, ..refusal.clone() };
        // Where some have fewer windows than others, their last one stands in: it says the same again.
        let windows = plans.iter().map(|plan| plan.quotas.len()).chain([quotas.len()]).max().unwrap_or(1);
        for window in 0..windows {
            let (requests, window_ms) = at(&quotas, window);
            // What is told is one rate; the other windows stay.
            let told = told.clone().filter(|_| window == 0);
            let id = ids.next(&self.origin.object, &key, window_ms);
            self.draft.limit(Limit {
                id: id.clone(),
                key: key.clone(),
                algorithm: Algorithm::window(requests, window_ms),
                plans: plans.iter().map(|plan| plan.in_window(window)).collect(),
                shadow: self.shadow,
                failure_mode: failure_mode.filter(|_| !self.shadow),
                body: body.clone(),
                openai_headers,
                told: told.is_some().then_some(ToldAs::Window),
            });
            self.effects.rate_limits.push(RouteLimit {
                id,
                key: key.clone(),
                tokens: tokens.clone(),
                exempt: Vec::new(),
                under_way: false,
                cost: cost.clone(),
                after_auth,
                told,
                refusal: refusal.clone(),
                origin: self.origin.clone(),
            });
        }
        Ok(())
    }

    /// The plans, in their order.
    fn plans<'p>(&mut self, plans: &'p [PolicyPlan]) -> Result<Vec<PlanOfWindows<'p>>, Problem> {
        let mut read = Vec::new();
        for (at, plan) in plans.iter().enumerate() {
            let matches = self.plan_match(at, plan)?;
            let quotas = plan.quotas();
            let quotas =
                quotas.map_err(|(field, error)| (format!("plans[{at}].{field}"), error.to_string()))?;
            read.push(PlanOfWindows { name: &plan.name, matches, quotas });
        }
        self.check_order(plans);
        Ok(read)
    }

    fn plan_match(&mut self, at: usize, plan: &PolicyPlan) -> Result<KeyMatch, Problem> {
        let field = |name: &str| format!("plans[{at}]{name}");
        match (&plan.prefix, &plan.regex, &plan.secret_ref) {
            (Some(prefix), None, None) if !prefix.is_empty() => Ok(KeyMatch::Prefix(prefix.as_str().into())),
            (None, Some(regex), None) => {
                let refused = |error: String| {
                    (field(".regex"), format!("is not a regular expression that is accepted: {error}"))
                };
                pattern::check(regex).map_err(refused)?;
                Pattern::new(regex).map(KeyMatch::Regex).map_err(refused)
            }
            (None, None, Some(secret)) => Ok(KeyMatch::Exact(self.keys_of(&field(".secretRef"), secret))),
            _ => {
                let problem = "a plan has one of `prefix`, `regex` and `secretRef`, and it is not empty";
                Err((field(""), problem.to_owned()))
            }
        }
    }

    /// Says which plans no key comes to.
    fn check_order(&mut self, plans: &[PolicyPlan]) {
        for (at, plan) in plans.iter().enumerate() {
            let Some(first) = plans[..at].iter().position(|first| first.has_all_of(plan)) else { continue };
            let field = format!("{}.plans[{at}]", self.origin.field);
            let message =
                format!("has no effect: whatever key has it has plans[{first}] too, which comes first");
            self.draft.findings.warning(&self.origin.object, field, "PlanNotReached", message);
        }
    }

    /// The keys in a Secret. Without it there are none, and those who would have the plan are counted as everybody is.
    fn keys_of(&mut self, field: &str, secret: &PolicySecretRef) -> KeySet {
        let PolicySecretRef { name, key, .. } = secret;
        let namespace = &self.origin.object.namespace;
        let (reason, problem) = match self.draft.view.keys(namespace, name, key.as_deref()) {
            Some(Ok(keys)) => return keys,
            Some(Err(problem)) => ("InvalidSecret", problem),
            None => ("SecretNotFound", "does not exist".to_owned()),
        };
        let field = format!("{}.{field}", self.origin.field);
        let message = format!("Secret {namespace}/{name} {problem}; no key has the plan");
        self.draft.findings.error(&self.origin.object, field, reason, message);
        KeySet::default()
    }

    /// Whether a header is what the service that lets requests in says, and no client.
    fn is_of_auth(&self, header: &str) -> bool {
        self.effects.external_auth.as_ref().is_some_and(|auth| auth.value.sets(header))
    }

    /// Whether requests are counted by what that service says.
    fn counts_by_auth(&self, key: &Key, cost: &Cost) -> bool {
        let by_auth = |part: &Key| matches!(part, Key::Header(name) if self.is_of_auth(name));
        key.parts().iter().any(by_auth) || matches!(cost, Cost::Header(name) if self.is_of_auth(name))
    }

    /// Tokens are verified before that service is asked, so one that it sets would not be the one that is verified.
    fn come_from_clients(&self, tokens: &[jwt::Token]) -> Result<(), Problem> {
        let headers =
            tokens.iter().map(|token| token.provider.header.as_deref().unwrap_or(jwt::AUTHORIZATION));
        match headers.into_iter().find(|header| self.is_of_auth(header)) {
            None => Ok(()),
            Some(header) => {
                let problem = "is set by the answer of auth-url, which comes after tokens are verified: take it out of \
                               auth-response-headers, or count by another header of that answer";
                Err(("key.jwt.header".to_owned(), format!("{header:?} {problem}")))
            }
        }
    }

    /// The header in which the rate of a key is told. One that a client can set is not believed.
    fn told(&mut self, limit: &PolicyLimit) -> Option<Arc<str>> {
        let header = limit.auth_header.as_deref()?;
        let why = match () {
            () if header.contains('%') => "has a %, which Envoy cannot be told of",
            () if self.is_of_auth(header) => return Some(header.to_ascii_lowercase().into()),
            () => {
                "is not among the auth-response-headers of an auth-url of the target, so that clients could say what they like"
            }
        };
        let field = format!("{}.authHeader", self.origin.field);
        let message = format!("{header:?} {why}; it is not read");
        self.draft.findings.error(&self.origin.object, field, "NotOfAuth", message);
        None
    }

    /// Has requests answered that lack a part of the key, and nothing else counted than what the upstream sees.
    fn ask_for(&mut self, part: &Key) {
        if let Key::Header(name) = part {
            count_first(name, self.effects);
        }
        if self.shadow {
            return;
        }
        if let Key::Header(name) = part
            && self.is_of_auth(name)
        {
            let auth = self.effects.external_auth.iter_mut();
            auth.filter(|auth| !auth.value.required.contains(name))
                .for_each(|auth| auth.value.required.push(name.clone()));
            return;
        }
        for guard in missing(part, self.origin) {
            self.guard(guard);
        }
    }

    /// What has to hold for a cost, and what is worth saying of it.
    fn settle(&mut self, cost: &Cost, quotas: &[(u32, u64)]) {
        match cost {
            Cost::Header(name) if !self.shadow => self.guard(costs::no_number(name, self.origin)),
            // An answer that is compressed cannot be read.
            Cost::Answer { told: Told::Json { .. }, .. } => {
                let plain = HeaderOperation::Remove("accept-encoding".to_owned());
                if !self.effects.request_headers.contains(&plain) {
                    self.effects.request_headers.push(plain);
                }
            }
            _ => {}
        }
        if let Cost::Answer { reserve, .. } = cost
            && quotas.iter().any(|(requests, _)| requests < reserve)
        {
            let field = format!("{}.cost.reserve", self.origin.field);
            let message =
                format!("{reserve} is more than the limit, so every request that no plan has is refused");
            self.draft.findings.warning(&self.origin.object, field, "ReserveAboveLimit", message);
        }
    }

    /// What clients are told that the hits are, if they are. The upstream may have a quota of its own and say so in headers
    /// of the same names, which would stand beside ours.
    fn tell(&mut self, cost: &Cost) -> Option<Counted> {
        if !self.terms.openai_headers || self.shadow {
            return None;
        }
        let counted = if *cost == Cost::One { Counted::Requests } else { Counted::Tokens };
        // All of them: one that we do not tell would be taken for ours beside those that we do.
        for name in [Counted::Requests, Counted::Tokens].into_iter().flat_map(Counted::openai_headers) {
            let theirs = HeaderOperation::Remove(name.to_owned());
            if !self.effects.response_headers.contains(&theirs) {
                self.effects.response_headers.push(theirs);
            }
        }
        Some(counted)
    }

    /// Adds a guard, unless another limit has asked for the same.
    fn guard(&mut self, guard: Guard) {
        let same = |other: &Guard| (other.phase, &other.when) == (guard.phase, &guard.when);
        if !self.effects.guards.iter().any(same) {
            self.effects.guards.push(guard);
        }
    }
}

fn at(quotas: &[Quota], window: usize) -> Quota {
    quotas.get(window).or(quotas.last()).copied().unwrap_or_default()
}

#[cfg(test)]
#[path = "policies_tests.rs"]
mod tests;
