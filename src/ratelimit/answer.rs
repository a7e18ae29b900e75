//! Answers in the words of RLS: pure.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit as CurrentLimit, rate_limit::Unit,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::{Duration, ListValue, Struct, Value, value::Kind};
use serde_json::{Map, Value as Json, json};

use super::counters::{Outcome, Role};
use super::service::{Headers, Options};
use super::subject::{BACKEND_ENTRY, Limited, MODEL_ENTRY, Subject, model};
use super::{ietf, openai};
use crate::model::limit::{Algorithm, Body};

/// A descriptor's limit with what the counters say, if it has one.
pub(super) type Decided<'a> = (&'a Subject<'a>, Option<&'a Outcome>);

/// The whole answer.
pub(super) fn answer(
    request: &RateLimitRequest,
    decided: &[Decided<'_>],
    admitted: bool,
    options: &Options,
) -> RateLimitResponse {
    let statuses: Vec<DescriptorStatus> = decided.iter().map(status).collect();
    let mut headers =
        options.headers.as_ref().map_or_else(Vec::new, |names| headers(names, decided, &statuses));
    if let Some(ietf) = options.ietf {
        headers.extend(ietf::headers(ietf, decided, admitted));
    }
    headers.extend(openai::headers(decided));
    let metadata = options.metadata.then(|| metadata(request, decided, &statuses));
    let mut answer = RateLimitResponse {
        overall_code: code(admitted).into(),
        statuses,
        response_headers_to_add: headers,
        dynamic_metadata: metadata,
        ..RateLimitResponse::default()
    };
    if !admitted && let Some((content_type, body)) = decided.iter().find_map(body) {
        answer.raw_body = body;
        answer.response_headers_to_add.push(header("content-type", content_type));
    }
    answer
}

fn header(name: &str, value: String) -> HeaderValue {
    HeaderValue { key: name.to_owned(), value, ..HeaderValue::default() }
}

/// The type and text of the body of a refusal, if this is what refuses and it has one.
fn body((subject, outcome): &Decided<'_>) -> Option<(String, Vec<u8>)> {
    let (Subject::Limited(limited), Some(outcome)) = (subject, outcome) else { return None };
    if outcome.allowed || limited.is_shadow() {
        return None;
    }
    Some(match limited.limit.body.as_ref()? {
        Body::Text { content_type, text } => (content_type.to_string(), text.as_bytes().to_vec()),
        Body::Json => {
            let (requests, period_ms) = limited.limit.algorithm.quota();
            let wait = whole_seconds(outcome.reset_ms).seconds;
            let limit = match period_ms {
                0 => format!("{requests} at once"),
                period_ms => format!("{requests} in {} seconds", period_ms.div_ceil(1_000)),
            };
            let error = json!({"error": {
                "message": format!("the rate limit of {limit} is reached; try again in {wait} seconds"),
                "type": "rate_limit_exceeded",
                "code": "rate_limit_exceeded",
                "param": null,
                "retry_after": wait,
            }});
            ("application/json".to_owned(), error.to_string().into_bytes())
        }
    })
}

fn code(allowed: bool) -> Code {
    if allowed { Code::Ok } else { Code::OverLimit }
}

fn status(decided: &Decided<'_>) -> DescriptorStatus {
    let without = |remaining| DescriptorStatus {
        code: Code::Ok.into(),
        limit_remaining: remaining,
        ..DescriptorStatus::default()
    };
    match decided {
        (Subject::Limited(limited), Some(outcome)) => DescriptorStatus {
            code: code(outcome.allowed || limited.is_shadow()).into(),
            current_limit: Some(current_limit(&limited.limit.algorithm, limited.name())),
            limit_remaining: u32::try_from(outcome.remaining).unwrap_or(u32::MAX),
            duration_until_reset: Some(whole_seconds(outcome.reset_ms)),
            ..DescriptorStatus::default()
        },
        (Subject::Unlimited(_), _) => without(u32::MAX),
        _ => without(0),
    }
}

/// RLS knows only units; Envoy leaves the window out of its headers where the period is none of them.
pub(super) fn current_limit(algorithm: &Algorithm, name: &str) -> CurrentLimit {
    let (requests_per_unit, period_ms) = algorithm.quota();
    let unit = match period_ms {
        1_000 => Unit::Second,
        60_000 => Unit::Minute,
        3_600_000 => Unit::Hour,
        86_400_000 => Unit::Day,
        604_800_000 => Unit::Week,
        2_592_000_000 => Unit::Month,
        31_536_000_000 => Unit::Year,
        _ => Unit::Unknown,
    };
    CurrentLimit { name: name.to_owned(), requests_per_unit, unit: unit.into() }
}

/// Rounded up, because Envoy cuts fractions off in `x-ratelimit-reset` and `retry-after`, and a client that comes
/// back then must not be too early.
fn whole_seconds(ms: u64) -> Duration {
    Duration { seconds: i64::try_from(ms.div_ceil(1_000)).unwrap_or(i64::MAX), nanos: 0 }
}

/// Those of the limit that refuses, the last if there are several; else of the one with the least left, the first if
/// there are several.
fn headers(names: &Headers, decided: &[Decided<'_>], statuses: &[DescriptorStatus]) -> Vec<HeaderValue> {
    let refuses = |(subject, status): &(&Decided<'_>, &DescriptorStatus)| match subject {
        (Subject::Limited(Limited { role, .. }), _) => {
            !matches!(role, Role::Quota(_)) && status.code == i32::from(Code::OverLimit)
        }
        _ => false,
    };
    let all = || decided.iter().zip(statuses).filter(|(_, status)| status.current_limit.is_some());
    let shown = all().rfind(refuses).or_else(|| all().min_by_key(|(_, status)| status.limit_remaining));
    let Some((_, status)) = shown else { return Vec::new() };
    let limit = status.current_limit.as_ref().map_or(0, |limit| limit.requests_per_unit);
    let reset = status.duration_until_reset.map_or(0, |reset| reset.seconds);
    [
        (&names.limit, limit.to_string()),
        (&names.remaining, status.limit_remaining.to_string()),
        (&names.reset, reset.to_string()),
    ]
    .map(|(key, value)| header(key, value))
    .into()
}

/// What was asked, and of what there is some left: so that a router after this can choose among models.
fn metadata(request: &RateLimitRequest, decided: &[Decided<'_>], statuses: &[DescriptorStatus]) -> Struct {
    let mut fields = BTreeMap::from([
        ("domain", text(&request.domain)),
        ("descriptors", list(request.descriptors.iter().map(described))),
    ]);
    if request.hits_addend != 0 {
        fields.insert("hitsAddend", number(f64::from(request.hits_addend)));
    }
    let mut merged = Map::new();
    let mut passed: Vec<(&str, &str)> = Vec::new();
    let refused = |(subject, outcome): &Decided<'_>| match (subject, outcome) {
        (Subject::Limited(limited), Some(outcome)) if !outcome.allowed => Some(limited.role),
        _ => None,
    };
    let used_up = |role| {
        matches!(role, Role::Quota(_)) && decided.iter().filter_map(refused).any(|refused| refused == role)
    };
    let mut quotas = false;
    for ((subject, _), (descriptor, status)) in decided.iter().zip(request.descriptors.iter().zip(statuses)) {
        let Subject::Limited(limited) = subject else { continue };
        quotas |= matches!(limited.role, Role::Quota(_));
        if status.code == i32::from(Code::OverLimit) || used_up(limited.role) {
            continue;
        }
        if let Some(metadata) = limited.rule().and_then(|rule| rule.metadata()) {
            merge(&mut merged, metadata);
        }
        if model(descriptor) != ("", "") && !passed.contains(&model(descriptor)) {
            passed.push(model(descriptor));
        }
    }
    if !merged.is_empty() {
        fields.insert("metadata", value(&Json::Object(merged)));
    }
    if quotas && !passed.is_empty() {
        let pair = |(backend, model): &(&str, &str)| {
            structure(BTreeMap::from([(BACKEND_ENTRY, text(backend)), (MODEL_ENTRY, text(model))]))
        };
        fields.insert("passedBackends", list(passed.iter().map(pair)));
    }
    match structure(fields).kind {
        Some(Kind::StructValue(fields)) => fields,
        _ => Struct::default(),
    }
}

fn described(descriptor: &RateLimitDescriptor) -> Value {
    let entry = |entry: &Entry| text(&format!("{}={}", entry.key, entry.value));
    let mut fields = BTreeMap::from([("entries", list(descriptor.entries.iter().map(entry)))]);
    if let Some(hits) = &descriptor.hits_addend {
        fields.insert("hitsAddend", number(hits.value as f64));
    }
    structure(fields)
}

/// Adds what is not there yet, in nested objects too.
fn merge(into: &mut Map<String, Json>, from: &Map<String, Json>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Json::Object(into)), Json::Object(from)) => merge(into, from),
            (Some(_), _) => {}
            (None, _) => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value { kind: Some(Kind::NullValue(0)) },
        Json::Bool(bool) => Value { kind: Some(Kind::BoolValue(*bool)) },
        Json::Number(found) => number(found.as_f64().unwrap_or_default()),
        Json::String(found) => text(found),
        Json::Array(items) => list(items.iter().map(value)),
        Json::Object(fields) => {
            structure(fields.iter().map(|(key, json)| (key.as_str(), value(json))).collect())
        }
    }
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn number(number: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(number)) }
}

fn list(values: impl Iterator<Item = Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values: values.collect() })) }
}

fn structure(fields: BTreeMap<&str, Value>) -> Value {
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Value { kind: Some(Kind::StructValue(Struct { fields })) }
}
