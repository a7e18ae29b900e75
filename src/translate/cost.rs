//! What requests cost, in Envoy's words: numbers of hits as CEL expressions, and the filters that read answers.
//!
//! Envoy leaves a descriptor out whose number of hits cannot be told, and what is left out is not limited. So each
//! expression has a number for whatever may come. All of this was tried with Envoy 1.40.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::route::v3::rate_limit::HitsAddend;
use envoy_types::pb::envoy::extensions::content_parsers::json::v3::JsonContentParser;
use envoy_types::pb::envoy::extensions::content_parsers::json::v3::json_content_parser::RuleConfig;
use envoy_types::pb::envoy::extensions::filters::http::json_to_metadata::v3::JsonToMetadata;
use envoy_types::pb::envoy::extensions::filters::http::json_to_metadata::v3::json_to_metadata::selector::Selector as By;
use envoy_types::pb::envoy::extensions::filters::http::json_to_metadata::v3::json_to_metadata::{
    KeyValuePair, MatchRules, Rule, Selector, ValueType,
};
use envoy_types::pb::envoy::extensions::filters::http::sse_to_metadata::v3::SseToMetadata;
use envoy_types::pb::envoy::extensions::filters::http::sse_to_metadata::v3::sse_to_metadata::ProcessingRules;
use envoy_types::pb::google::protobuf::{UInt32Value, UInt64Value};

use super::proto;
use crate::descriptors::pack;
use crate::features::cost::{Cost, Told};
use crate::features::effects::RouteLimit;

/// The namespace of dynamic metadata in which the parts of answers stand, by their paths.
const NAMESPACE: &str = "chancery.cost";
/// JSON by any name, such as `application/json; charset=utf-8` and `application/problem+json`.
const JSON: &str = r"application/([A-Za-z0-9.+-]+\+)?json *(;.*)?";
/// The largest JSON answer that is read, which Envoy keeps whole until it ends. It answers 500 in place of a larger one.
const LARGEST_ANSWER: u64 = 64 << 20;
/// The largest event that is read. Others pass unread.
const LARGEST_EVENT: u32 = 1 << 20;

/// The hits taken when a request comes.
pub(super) fn at_start(cost: &Cost) -> Option<HitsAddend> {
    match cost {
        Cost::One => None,
        // What is no number costs the most there is: several headers of the name can get past the guard.
        Cost::Header(name) => {
            let value = format!(r#"request.headers["{name}"]"#);
            let number = format!(r#"{value}.matches("^[1-9][0-9]{{0,8}}$") ? {value} : "{}""#, Cost::MOST);
            Some(cel(format!(r#""{name}" in request.headers ? ({number}) : "1""#)))
        }
        // None asks whether there is anything left.
        Cost::Answer { reserve, .. } => Some(HitsAddend {
            number: Some(UInt64Value { value: (*reserve).into() }),
            ..HitsAddend::default()
        }),
    }
}

/// The hits taken, or given back, when the answer has ended.
pub(super) fn at_end(cost: &Cost) -> Vec<HitsAddend> {
    let Cost::Answer { told, reserve } = cost else { return Vec::new() };
    let told = told_by(told, *reserve);
    // What was not let through has taken nothing.
    let refused = r#"response.code_details in ["request_rate_limited", "rate_limiter_error"]"#;
    if *reserve == 0 {
        return vec![cel(format!("{refused} ? 0 : {told}"))];
    }
    let more = cel(format!("{refused} ? 0 : {told} > {reserve} ? {told} - {reserve} : 0"));
    let less = cel(format!("{refused} ? 0 : {told} < {reserve} ? {reserve} - {told} : 0"));
    vec![more, HitsAddend { is_negative_hits: true, ..less }]
}

/// What an answer says it has cost. One that says nothing, or no number, has cost what was reserved, or one hit; one that
/// is an error costs one hit.
fn told_by(told: &Told, reserve: u32) -> String {
    let most = Cost::MOST;
    let silent = format!("(response.code < 400 ? {} : 1)", reserve.max(1));
    match told {
        Told::Header(name) => {
            let value = format!(r#"response.headers["{name}"]"#);
            format!(
                r#"("{name}" in response.headers ? ({value}.matches("^[0-9]{{1,9}}$") ? int({value}) : {value}.matches("^[0-9]+$") ? {most} : {silent}) : {silent})"#
            )
        }
        Told::Json { path, .. } => {
            let all = format!(r#"metadata.filter_metadata["{NAMESPACE}"]"#);
            let value = format!(r#"{all}["{path}"]"#);
            format!(
                r#"("{NAMESPACE}" in metadata.filter_metadata && "{path}" in {all} ? ({value} < 0.0 ? 0 : {value} > {most}.0 ? {most} : int({value})) : {silent})"#
            )
        }
    }
}

fn cel(expression: String) -> HitsAddend {
    HitsAddend { format: format!("%CEL({expression})%"), ..HitsAddend::default() }
}

/// The most that Envoy may keep of a body on a route with these limits, if they say.
pub(super) fn buffer_limit(limits: &[RouteLimit]) -> Option<UInt64Value> {
    let reads = |limit: &RouteLimit| json(limit).is_some();
    limits.iter().any(reads).then_some(UInt64Value { value: LARGEST_ANSWER })
}

/// The filters that read the answers to requests with these limits.
pub(super) fn readers(limits: &[RouteLimit]) -> Vec<TypedExtensionConfig> {
    let paths: BTreeSet<&str> = limits.iter().filter_map(json).map(|(path, _)| path).collect();
    let of_events: BTreeSet<&str> =
        limits.iter().filter_map(json).filter(|(_, events)| *events).map(|(path, _)| path).collect();
    let mut readers = Vec::new();
    if !paths.is_empty() {
        let response_rules = MatchRules {
            rules: paths.into_iter().map(rule).collect(),
            allow_content_types_regex: Some(proto::regex(JSON)),
            ..MatchRules::default()
        };
        let config = JsonToMetadata { response_rules: Some(response_rules), ..JsonToMetadata::default() };
        readers.push(named("envoy.filters.http.json_to_metadata", pack(&config)));
    }
    if !of_events.is_empty() {
        let rule = |path| RuleConfig { rule: Some(rule(path)), ..RuleConfig::default() };
        let parser = JsonContentParser { rules: of_events.into_iter().map(rule).collect() };
        let rules = ProcessingRules {
            content_parser: Some(named("envoy.content_parsers.json", pack(&parser))),
            max_event_size: Some(UInt32Value { value: LARGEST_EVENT }),
        };
        let config = SseToMetadata { response_rules: Some(rules) };
        readers.push(named("envoy.filters.http.sse_to_metadata", pack(&config)));
    }
    readers
}

fn json(limit: &RouteLimit) -> Option<(&str, bool)> {
    match &limit.cost {
        Cost::Answer { told: Told::Json { path, events }, .. } => Some((path, *events)),
        _ => None,
    }
}

fn named(name: &str, config: envoy_types::pb::google::protobuf::Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
}

fn rule(path: &str) -> Rule {
    let selector = |key: &str| Selector { selector: Some(By::Key(key.to_owned())) };
    Rule {
        selectors: path.split('.').map(selector).collect(),
        on_present: Some(KeyValuePair {
            metadata_namespace: NAMESPACE.to_owned(),
            key: path.to_owned(),
            r#type: ValueType::Number.into(),
            ..KeyValuePair::default()
        }),
        ..Rule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(told: Told, reserve: u32) -> Cost {
        Cost::Answer { told, reserve }
    }

    #[test]
    fn hits_are_numbers_or_expressions() {
        assert_eq!((at_start(&Cost::One), at_end(&Cost::One)), (None, Vec::new()));
        let header = Cost::Header("x-cost".into());
        let value = r#"request.headers["x-cost"]"#;
        let number = format!(r#"{value}.matches("^[1-9][0-9]{{0,8}}$") ? {value} : "1000000000""#);
        let format = format!(r#"%CEL("x-cost" in request.headers ? ({number}) : "1")%"#);
        assert_eq!(at_start(&header).unwrap().format, format);
        assert!(at_end(&header).is_empty());
        for (reserve, signs) in [(0, &[false][..]), (9, &[false, true])] {
            let cost = answer(Told::Header("x-tokens".into()), reserve);
            assert_eq!(at_start(&cost).unwrap().number.unwrap().value, u64::from(reserve));
            let end = at_end(&cost);
            let negative: Vec<_> = end.iter().map(|hits| hits.is_negative_hits).collect();
            assert_eq!(negative, signs);
            for hits in end {
                let refused = "%CEL(response.code_details in [";
                assert!(hits.format.starts_with(refused) && hits.format.ends_with(")%"), "{}", hits.format);
                let opened = hits.format.matches('(').count();
                assert_eq!(opened, hits.format.matches(')').count(), "{}", hits.format);
            }
        }
    }

    #[test]
    fn answers_are_read_where_a_limit_asks() {
        let limit = |cost| RouteLimit {
            id: "l".into(),
            key: crate::values::LimitKey::Path,
            tokens: Vec::new(),
            exempt: Vec::new(),
            under_way: false,
            cost,
            after_auth: false,
            told: None,
            refusal: crate::features::effects::Refusal::status(429),
            origin: crate::values::Origin::new(
                &crate::values::ObjectKey::new(crate::values::Kind::RateLimitPolicy, "a", "b"),
                "spec.limits[0]",
            ),
        };
        let json = |path: &str, events| limit(answer(Told::Json { path: path.into(), events }, 0));
        let names = |limits: &[RouteLimit]| -> Vec<String> {
            let last = |name: &str| name.rsplit_once('.').unwrap().1.to_owned();
            readers(limits).iter().map(|reader| last(&reader.name)).collect()
        };
        let none: Vec<String> = Vec::new();
        let by_header = limit(answer(Told::Header("x".into()), 0));
        assert_eq!(names(&[limit(Cost::One), by_header.clone()]), none);
        assert_eq!(buffer_limit(&[by_header]), None);
        assert_eq!(names(&[json("a", false), json("b.c", false)]), ["json_to_metadata"]);
        assert_eq!(names(&[json("a", false), json("a", true)]), ["json_to_metadata", "sse_to_metadata"]);
        assert_eq!(buffer_limit(&[json("a", false)]).unwrap().value, LARGEST_ANSWER);
        let keys: Vec<_> = rule("b.c").selectors.into_iter().map(|it| it.selector.unwrap()).collect();
        assert_eq!(keys, [By::Key("b".into()), By::Key("c".into())]);
    }
}
