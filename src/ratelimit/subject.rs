//! What each descriptor of a request asks for: pure, but for the limits that are passed in.

use std::borrow::Cow;
use std::ops::Deref;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use envoy_types::pb::envoy::r#type::v3::RateLimitUnit;
use tonic::Status;

use super::counters::{Ask, Hits, Role};
use super::envoyproxy::{Compatible, Rule, Rules};
use super::envoyproxy::{counted, window, window_of};
use super::service::Modes;
use crate::model::limit::{
    DOMAIN, LIMIT_ENTRY, Limit, LimitSet, SETTLE_ENTRY, TOLD_ENTRY, ToldRate, told_rate,
};

/// What a descriptor comes to.
#[derive(Debug)]
pub(super) enum Subject<'a> {
    /// No limit in force.
    Unknown,
    /// A limit that another one of the request replaces.
    Replaced,
    /// A rule that says that there is no limit.
    Unlimited(&'a Rule),
    /// A limit.
    Limited(Limited<'a>),
}

/// A limit, and what is wanted of it.
#[derive(Debug)]
pub(super) struct Limited<'a> {
    pub(super) limit: AnyLimit<'a>,
    pub(super) key: Cow<'a, [Entry]>,
    pub(super) hits: Hits,
    pub(super) role: Role,
    pub(super) origin: Origin<'a>,
}

/// A limit that is in force, or one that is made for a request, which is apart so that the others are small.
#[derive(Debug)]
pub(super) enum AnyLimit<'a> {
    InForce(&'a Limit),
    Made(Box<Limit>),
}

impl Deref for AnyLimit<'_> {
    type Target = Limit;

    fn deref(&self) -> &Limit {
        match self {
            Self::InForce(limit) => limit,
            Self::Made(limit) => limit,
        }
    }
}

impl<'a> From<Cow<'a, Limit>> for AnyLimit<'a> {
    fn from(limit: Cow<'a, Limit>) -> Self {
        match limit {
            Cow::Borrowed(limit) => Self::InForce(limit),
            Cow::Owned(limit) => Self::Made(Box::new(limit)),
        }
    }
}

/// Whose a limit is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    /// One of our own.
    Ours,
    /// One of our own, by a rate that came with the request.
    Told,
    /// One of our own, and the hits have been made.
    Settled,
    /// Of a rule.
    Rule(&'a Rule),
    /// The caller sent it along.
    Caller,
}

impl<'a> Limited<'a> {
    pub(super) fn rule(&self) -> Option<&'a Rule> {
        match self.origin {
            Origin::Rule(rule) => Some(rule),
            Origin::Ours | Origin::Told | Origin::Settled | Origin::Caller => None,
        }
    }

    pub(super) fn ask(&self) -> Ask<'_> {
        Ask { limit: &self.limit, key: &self.key, hits: self.hits, role: self.role }
    }

    /// Whether over the limit is answered as within it.
    pub(super) fn is_shadow(&self) -> bool {
        self.limit.shadow || self.rule().is_some_and(|rule| rule.shadow)
    }

    /// Shown to clients, so none of our own limits has one.
    pub(super) fn name(&self) -> &str {
        self.rule().map_or("", Rule::name)
    }
}

/// What the descriptors of a request come to, in order.
///
/// # Errors
/// When a caller's own limit has a unit that there is not.
pub(super) fn subjects<'a>(
    limits: &'a LimitSet,
    rules: &'a Rules,
    request: &'a RateLimitRequest,
    modes: Modes,
) -> Result<Vec<Subject<'a>>, Status> {
    let subject = |descriptor| subject(limits, rules, request, descriptor);
    let mut subjects = request.descriptors.iter().map(subject).collect::<Result<Vec<_>, _>>()?;
    replace(&mut subjects);
    give_roles(&mut subjects, &request.descriptors, modes);
    Ok(subjects)
}

fn subject<'a>(
    limits: &'a LimitSet,
    rules: &'a Rules,
    request: &'a RateLimitRequest,
    descriptor: &'a RateLimitDescriptor,
) -> Result<Subject<'a>, Status> {
    let limited = |limit: Cow<'a, Limit>, key, hits, origin| {
        Subject::Limited(Limited { limit: limit.into(), key, hits, role: Role::Binding, origin })
    };
    if let Some((first, key)) = descriptor.entries.split_first()
        && request.domain == DOMAIN
        && [LIMIT_ENTRY, SETTLE_ENTRY].contains(&&*first.key)
    {
        let settled = first.key == SETTLE_ENTRY;
        let hits = hits(request, descriptor, Compatible { charge: settled, ..Compatible::default() });
        if let Some(limit) = limits.get(&first.value) {
            let (key, told) = told(key);
            let (limit, origin) = match told.and_then(|rate| limit.told(rate)) {
                Some(limit) => (Cow::Owned(limit), Origin::Told),
                None => (limit.for_value(key.first().map_or("", |entry| &entry.value)), Origin::Ours),
            };
            let origin = if settled { Origin::Settled } else { origin };
            return Ok(limited(limit, Cow::Borrowed(key), hits, origin));
        }
        // Rules may have the domain too, where they are followed from a control plane.
    }
    let hits = hits(request, descriptor, rules.reading().compatible);
    if let Some(own) = descriptor.limit.as_ref().filter(|_| rules.has_domain(&request.domain)) {
        let limit = own_limit(&request.domain, own)?;
        return Ok(limited(Cow::Owned(limit), Cow::Borrowed(&descriptor.entries), hits, Origin::Caller));
    }
    Ok(match rules.find(&request.domain, &descriptor.entries) {
        None => Subject::Unknown,
        Some(found) if found.rule.unlimited => Subject::Unlimited(found.rule),
        Some(found) => limited(Cow::Borrowed(&found.rule.limit), found.key, hits, Origin::Rule(found.rule)),
    })
}

/// A key, and the rate that is told for it.
fn told(entries: &[Entry]) -> (&[Entry], Option<ToldRate>) {
    match entries.split_last() {
        Some((last, key)) if last.key == TOLD_ENTRY => (key, told_rate(&last.value)),
        _ => (entries, None),
    }
}

/// The limit that a caller sends along, in place of the one of the rules.
fn own_limit(domain: &str, own: &RateLimitOverride) -> Result<Limit, Status> {
    let unit = RateLimitUnit::try_from(own.unit).map_or("", |unit| unit.as_str_name());
    let Some(window_ms) = window_of(unit) else {
        return Err(Status::invalid_argument(format!("a descriptor's own limit has the unit {}", own.unit)));
    };
    Ok(counted(domain, "", window(own.requests_per_unit, window_ms)))
}

/// A descriptor's own addend goes before the request's, of which 0 stands for 1; a descriptor's own 0 only asks.
fn hits(request: &RateLimitRequest, descriptor: &RateLimitDescriptor, compatible: Compatible) -> Hits {
    let hits = match &descriptor.hits_addend {
        Some(own) => own.value,
        None => u64::from(request.hits_addend.max(1)),
    };
    let charged = if hits == 0 { compatible.probe } else { compatible.charge };
    match () {
        () if descriptor.is_negative_hits => Hits::Return(hits),
        () if charged => Hits::Charge(hits),
        () => Hits::Take(hits),
    }
}

/// Takes the limits out that others replace by their name.
fn replace(subjects: &mut [Subject<'_>]) {
    let rules = subjects.iter().filter_map(|subject| match subject {
        Subject::Unlimited(rule) => Some(*rule),
        Subject::Limited(limited) => limited.rule(),
        _ => None,
    });
    let replaced: Vec<&str> = rules.flat_map(|rule| rule.replaces().iter().map(|name| &**name)).collect();
    for subject in subjects.iter_mut().filter(|_| !replaced.is_empty()) {
        if let Subject::Limited(limited) = subject
            && replaced.contains(&limited.name())
        {
            *subject = Subject::Replaced;
        }
    }
}

/// Who refuses together with whom: the quotas of one model of one backend, else those of the same entries.
#[derive(PartialEq, Eq)]
enum Group<'a> {
    Model { backend: &'a str, model: &'a str },
    Entries(&'a [Entry]),
}

/// The entries that name a model, as AI gateways send them.
pub(super) const BACKEND_ENTRY: &str = "backend_name";
pub(super) const MODEL_ENTRY: &str = "model_name_override";

/// The backend and the model that a descriptor names; empty is none.
pub(super) fn model(descriptor: &RateLimitDescriptor) -> (&str, &str) {
    let last = |key: &str| {
        descriptor
            .entries
            .iter()
            .rev()
            .find(|entry| entry.key == key)
            .map_or("", |entry| entry.value.as_str())
    };
    (last(BACKEND_ENTRY), last(MODEL_ENTRY))
}

fn group(descriptor: &RateLimitDescriptor) -> Group<'_> {
    match model(descriptor) {
        ("", "") => Group::Entries(&descriptor.entries),
        (backend, model) => Group::Model { backend, model },
    }
}

fn give_roles<'a>(subjects: &mut [Subject<'_>], descriptors: &'a [RateLimitDescriptor], modes: Modes) {
    let is_quota = |limited: &Limited<'_>| modes.quota || limited.rule().is_some_and(|rule| rule.quota);
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (subject, descriptor) in subjects.iter_mut().zip(descriptors) {
        let Subject::Limited(limited) = subject else { continue };
        limited.role = match () {
            () if modes.shadow || limited.is_shadow() => Role::Shadow,
            () if matches!(limited.origin, Origin::Settled) => Role::Shadow,
            () if is_quota(limited) => {
                let group = group(descriptor);
                let known = groups.iter().position(|known| *known == group);
                Role::Quota(known.unwrap_or_else(|| {
                    groups.push(group);
                    groups.len() - 1
                }))
            }
            () => Role::Binding,
        };
    }
    // Where all are quotas, one without a limit is never used up.
    let free = |(subject, descriptor): (&Subject<'_>, &RateLimitDescriptor)| {
        matches!(subject, Subject::Unknown | Subject::Replaced) && !groups.contains(&group(descriptor))
    };
    if modes.quota && subjects.iter().zip(descriptors).any(free) {
        for subject in subjects {
            if let Subject::Limited(limited) = subject {
                limited.role = Role::Shadow;
            }
        }
    }
}
