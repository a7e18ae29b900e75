//! How envoyproxy/ratelimit answers by its files, case by case: its own source is where each comes from.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, rate_limit::Unit};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, UInt64Value, Value};
use tokio::sync::watch;

use super::rules_tests::{PLAIN, entries, read};
use super::*;
use crate::ratelimit::counters::memory::Memory;
use crate::ratelimit::decisions::Decided;
use crate::ratelimit::service::{Headers, Modes, Options, RateLimit};

struct Rig(RateLimit<Memory>);

impl Rig {
    fn new(text: &str) -> Self {
        Self::with(text, Compatible::default(), Options::default())
    }

    fn with(text: &str, compatible: Compatible, options: Options) -> Self {
        let rules = read(text, Reading { compatible, ..PLAIN }).unwrap();
        let service =
            RateLimit::new(watch::channel(Arc::default()).1, Arc::new(Memory::default()), Arc::default());
        Self(service.with_rules(watch::channel(Arc::new(rules)).1, options))
    }

    async fn ask(&self, descriptors: Vec<RateLimitDescriptor>, hits_addend: u32) -> RateLimitResponse {
        let request = RateLimitRequest { domain: "d".into(), descriptors, hits_addend };
        self.0.decide(&request).await.unwrap()
    }

    /// Whether the request is let through; then for each descriptor whether it is, with what is left.
    async fn left(&self, descriptors: &[&str]) -> (bool, Vec<(bool, u32)>) {
        let answer = self.ask(descriptors.iter().map(|text| descriptor(text)).collect(), 0).await;
        let ok = |code: i32| code == i32::from(Code::Ok);
        let statuses = answer.statuses.iter().map(|status| (ok(status.code), status.limit_remaining));
        (ok(answer.overall_code), statuses.collect())
    }
}

fn descriptor(text: &str) -> RateLimitDescriptor {
    RateLimitDescriptor { entries: entries(text), ..RateLimitDescriptor::default() }
}

fn hits(n: u64, text: &str) -> RateLimitDescriptor {
    RateLimitDescriptor { hits_addend: Some(UInt64Value { value: n }), ..descriptor(text) }
}

const LIMITS: &str = "
domain: d
descriptors:
- {key: two, rate_limit: {unit: year, requests_per_unit: 2}}
- {key: ten, rate_limit: {unit: year, requests_per_unit: 10, name: big}}
- {key: none, rate_limit: {unit: year, requests_per_unit: 0}}
- {key: free, rate_limit: {unlimited: true}}
- {key: shadow, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 1}}";

#[tokio::test]
async fn statuses_are_in_the_order_of_descriptors() {
    let rig = Rig::new(LIMITS);
    let answer = rig.ask(["ten=k", "unknown=k", "free=k", "none=k"].map(descriptor).into(), 0).await;
    let codes: Vec<_> = answer.statuses.iter().map(|status| status.code()).collect();
    assert_eq!(codes, [Code::Ok, Code::Ok, Code::Ok, Code::OverLimit]);
    let left: Vec<_> = answer.statuses.iter().map(|status| status.limit_remaining).collect();
    assert_eq!(left, [10, 0, u32::MAX, 0]);
    let ten = answer.statuses[0].current_limit.clone().unwrap();
    assert_eq!((ten.requests_per_unit, ten.unit(), &*ten.name), (10, Unit::Year, "big"));
    assert!(answer.statuses[1].current_limit.is_none() && answer.statuses[2].current_limit.is_none());
    assert!(answer.statuses[3].current_limit.is_some() && answer.statuses[3].duration_until_reset.is_some());
    assert_eq!(answer.overall_code(), Code::OverLimit);
    let answer = rig.ask(vec![descriptor("unknown=k"), descriptor("free=k")], 0).await;
    assert_eq!(answer.overall_code(), Code::Ok);
}

#[tokio::test]
async fn addends() {
    let rig = Rig::new(LIMITS);
    for (addend, asked, allowed, left) in [
        (0, descriptor("ten=k"), true, 9),
        (2, descriptor("ten=k"), true, 7),
        (2, hits(3, "ten=k"), true, 4),
        (9, hits(0, "ten=k"), true, 4),
        (0, hits(5, "ten=k"), false, 4),
        (0, hits(4, "ten=k"), true, 0),
        (0, hits(0, "ten=k"), false, 0),
        (0, RateLimitDescriptor { is_negative_hits: true, ..hits(2, "ten=k") }, true, 2),
        (0, RateLimitDescriptor { is_negative_hits: true, ..descriptor("ten=k") }, true, 3),
        (0, hits(0, "ten=k"), true, 3),
    ] {
        let answer = rig.ask(vec![asked.clone()], addend).await;
        let status = &answer.statuses[0];
        assert_eq!(
            (status.code() == Code::Ok, status.limit_remaining),
            (allowed, left),
            "{addend} {asked:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_charges_nobody_unless_it_is_to() {
    let asked = ["ten=k", "two=k"];
    let rig = Rig::new(LIMITS);
    rig.left(&asked).await;
    rig.left(&asked).await;
    for _ in 0..3 {
        assert_eq!(rig.left(&asked).await, (false, vec![(true, 8), (false, 0)]));
    }
    let rig = Rig::with(LIMITS, Compatible { charge: true, ..Compatible::default() }, Options::default());
    rig.left(&asked).await;
    rig.left(&asked).await;
    assert_eq!(rig.left(&asked).await, (false, vec![(true, 7), (false, 0)]));
    assert_eq!(rig.left(&asked).await, (false, vec![(true, 6), (false, 0)]));
    let answer = rig.ask(vec![hits(9, "ten=k")], 0).await;
    assert_eq!(answer.overall_code(), Code::OverLimit);
    assert_eq!(rig.left(&["ten=k"]).await, (false, vec![(false, 0)]), "more than was left is charged too");
}

#[tokio::test]
async fn a_probe_is_refused_at_the_limit_unless_it_is_not_to() {
    let probe = async |rig: &Rig| rig.ask(vec![hits(0, "two=k")], 0).await.overall_code();
    for (compatible, at_the_limit) in [
        (Compatible::default(), Code::OverLimit),
        (Compatible { probe: true, charge: true, keys: false }, Code::Ok),
    ] {
        let rig = Rig::with(LIMITS, compatible, Options::default());
        assert_eq!(probe(&rig).await, Code::Ok);
        rig.left(&["two=k"]).await;
        rig.left(&["two=k"]).await;
        assert_eq!(probe(&rig).await, at_the_limit);
        rig.left(&["two=k"]).await;
        assert_eq!(probe(&rig).await, Code::OverLimit);
    }
}

#[tokio::test]
async fn a_caller_may_bring_its_own_limit() {
    let rig = Rig::new(LIMITS);
    let own = |requests_per_unit, unit, text| RateLimitDescriptor {
        limit: Some(RateLimitOverride { requests_per_unit, unit }),
        ..descriptor(text)
    };
    // Also where nothing else matches, and in place of shadow mode and of no limit at all.
    for text in ["two=k", "unknown=k", "shadow=k", "free=k"] {
        for (left, code) in [(0, Code::Ok), (0, Code::OverLimit)] {
            let answer = rig.ask(vec![own(1, 6, text)], 0).await;
            let status = &answer.statuses[0];
            assert_eq!((status.code(), status.limit_remaining), (code, left), "{text}");
            let limit = status.current_limit.clone().unwrap();
            assert_eq!((limit.requests_per_unit, limit.unit()), (1, Unit::Year));
        }
    }
    assert_eq!(rig.left(&["two=k"]).await, (true, vec![(true, 1)]), "the other limit goes on");
    let request = |domain: &str, unit| RateLimitRequest {
        domain: domain.into(),
        descriptors: vec![own(0, unit, "k=v")],
        hits_addend: 0,
    };
    let answer = rig.0.decide(&request("nowhere", 6)).await.unwrap();
    assert_eq!(answer.overall_code(), Code::Ok, "a domain that there is not has no limits");
    for unit in [0, 77] {
        assert_eq!(rig.0.decide(&request("d", unit)).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}

#[tokio::test]
async fn limits_replace_others_by_name() {
    let text = |other: &str| {
        format!(
            "
domain: d
descriptors:
- {{key: base, rate_limit: {{unit: year, requests_per_unit: 1, name: base}}}}
- {{key: also, rate_limit: {{unit: year, requests_per_unit: 1, name: base}}}}
- {{key: plain, rate_limit: {{unit: year, requests_per_unit: 1}}}}
- {{key: other, rate_limit: {other}}}"
        )
    };
    for other in [
        "{unit: year, requests_per_unit: 3, replaces: [{name: base}, {name: nobody}]}",
        "{unlimited: true, replaces: [{name: base}]}",
    ] {
        let rig = Rig::new(&text(other));
        // Wherever they stand; all of the name.
        for _ in 0..3 {
            let (allowed, statuses) = rig.left(&["base=k", "other=k", "also=k"]).await;
            assert!(allowed, "{other}");
            assert_eq!([statuses[0], statuses[2]], [(true, 0), (true, 0)]);
        }
        assert_eq!(rig.left(&["base=k"]).await, (true, vec![(true, 0)]), "not charged when it was replaced");
        assert!(!rig.left(&["base=k"]).await.0, "nor replaced where the other is not");
        rig.left(&["plain=k"]).await;
        assert!(!rig.left(&["plain=k", "other=l"]).await.0, "what has no name is not replaced");
    }
}

#[tokio::test]
async fn shadow_mode() {
    let rig = Rig::new(LIMITS);
    assert_eq!(rig.left(&["shadow=k", "two=k"]).await, (true, vec![(true, 0), (true, 1)]));
    assert_eq!(rig.left(&["shadow=k", "two=k"]).await, (true, vec![(true, 0), (true, 0)]));
    assert_eq!(rig.left(&["shadow=k", "two=k"]).await, (false, vec![(true, 0), (false, 0)]));
    let rules = rig.0.rules();
    let decided: Vec<_> = rules.iter().map(|rule| (rule.path.to_string(), rule.decided())).collect();
    let counts = Decided { allowed: 1, denied: 0, shadowed: 2 };
    assert_eq!(decided[4], ("d.shadow".into(), counts), "over it is told apart all the same");
    let options = Options { modes: Modes { shadow: true, quota: false }, ..Options::default() };
    let rig = Rig::with(LIMITS, Compatible::default(), options);
    assert_eq!(rig.left(&["none=k", "two=k"]).await, (true, vec![(false, 0), (true, 1)]));
    assert_eq!(rig.left(&["none=k", "two=k"]).await, (true, vec![(false, 0), (true, 0)]));
    assert_eq!(rig.left(&["none=k", "two=k"]).await, (true, vec![(false, 0), (false, 0)]));
}

const QUOTAS: &str = "
domain: d
descriptors:
- {key: q1, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 1}, metadata: {names: {one: 1}, first: q1}}
- {key: q2, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 2}, metadata: {names: {two: 2}, first: q2}}
- {key: hard, rate_limit: {unit: year, requests_per_unit: 3}}
- key: backend_name
  descriptors:
  - key: model_name_override
    quota_mode: true
    rate_limit: {unit: year, requests_per_unit: 1}
    descriptors: [{key: tenant, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 1}}]";

#[tokio::test]
async fn quotas_refuse_only_together() {
    let rig = Rig::new(QUOTAS);
    let asked = ["q1=k", "q2=k", "hard=k"];
    assert_eq!(rig.left(&asked).await, (true, vec![(true, 0), (true, 1), (true, 2)]));
    assert_eq!(rig.left(&asked).await, (true, vec![(false, 0), (true, 0), (true, 1)]));
    assert_eq!(
        rig.left(&asked).await,
        (false, vec![(false, 0), (false, 0), (true, 1)]),
        "and nothing is charged"
    );
    assert_eq!(rig.left(&["q1=k", "unknown=k"]).await, (false, vec![(false, 0), (true, 0)]));
    rig.left(&["hard=k"]).await;
    let rest = rig.left(&["q1=l", "hard=k"]).await;
    assert_eq!(rest, (false, vec![(true, 1), (false, 0)]), "other limits refuse by themselves");
}

#[tokio::test]
async fn quotas_of_one_model_stand_together() {
    let rig = Rig::new(QUOTAS);
    let of = |model: &str| format!("backend_name=b model_name_override={model}");
    let (one, one_tenant, other) = (of("m"), format!("{} tenant=t", of("m")), of("n"));
    assert!(rig.left(&[&one]).await.0);
    // Its tenant has some left, the model has not.
    assert!(!rig.left(&[&one, &one_tenant]).await.0);
    assert!(rig.left(&[&one, &one_tenant, &other]).await.0);
    assert!(!rig.left(&[&one, &one_tenant, &other]).await.0);
}

#[tokio::test]
async fn every_limit_is_a_quota_where_that_is_asked_for() {
    let options = Options { modes: Modes { shadow: false, quota: true }, ..Options::default() };
    let rig = Rig::with(LIMITS, Compatible::default(), options);
    assert!(rig.left(&["none=k", "two=k"]).await.0);
    assert!(!rig.left(&["none=k"]).await.0);
    assert!(rig.left(&["none=k", "unknown=k"]).await.0, "what has no limit is never used up");
    assert!(!rig.left(&["none=k", "free=k"]).await.0, "what is unlimited has no part");
}

#[tokio::test]
async fn headers_tell_of_the_limit_that_refuses_or_has_least_left() {
    let names = Headers { limit: "L".into(), remaining: "R".into(), reset: "X-Reset".into() };
    let options = Options { headers: Some(names), ..Options::default() };
    let rig = Rig::with(LIMITS, Compatible::default(), options);
    let headers = async |asked: &[&str]| -> Vec<(String, String)> {
        let answer = rig.ask(asked.iter().map(|text| descriptor(text)).collect(), 0).await;
        answer.response_headers_to_add.into_iter().map(|header| (header.key, header.value)).collect()
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let found = headers(&["ten=k", "free=k", "two=k", "unknown=k"]).await;
    assert_eq!(found[..2], [pair("L", "2"), pair("R", "1")]);
    assert!(
        found[2].0 == "X-Reset" && found[2].1.parse::<u64>().is_ok_and(|seconds| seconds > 0),
        "{found:?}"
    );
    assert_eq!(
        headers(&["ten=k", "ten=l"]).await[..2],
        [pair("L", "10"), pair("R", "8")],
        "the first of them"
    );
    let found = headers(&["shadow=k", "none=k", "ten=k"]).await;
    assert_eq!(found[..2], [pair("L", "0"), pair("R", "0")], "the one that refuses");
    headers(&["two=k"]).await;
    assert_eq!(headers(&["none=k", "two=k"]).await[0], pair("L", "2"), "the last of those that refuse");
    assert_eq!(headers(&["free=k", "unknown=k"]).await, []);
    assert_eq!(Rig::new(LIMITS).ask(vec![descriptor("ten=k")], 0).await.response_headers_to_add, []);
}

fn shown(fields: &Struct) -> serde_json::Value {
    fields.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect()
}

fn json(value: &Value) -> serde_json::Value {
    match value.kind.as_ref().unwrap() {
        Kind::NullValue(_) => serde_json::Value::Null,
        Kind::NumberValue(number) => (*number).into(),
        Kind::StringValue(text) => text.as_str().into(),
        Kind::BoolValue(bool) => (*bool).into(),
        Kind::StructValue(fields) => shown(fields),
        Kind::ListValue(list) => list.values.iter().map(json).collect(),
    }
}

#[tokio::test]
async fn dynamic_metadata_tells_of_what_there_is_some_left() {
    let options = Options { metadata: true, ..Options::default() };
    let rig = Rig::with(QUOTAS, Compatible::default(), options);
    let metadata =
        async |asked: Vec<RateLimitDescriptor>| shown(&rig.ask(asked, 2).await.dynamic_metadata.unwrap());
    let both = || vec![hits(1, "q1=k"), hits(1, "q2=k")];
    let described = |text: &str| serde_json::json!({"entries": [text], "hitsAddend": 1.0});
    let descriptors = [described("q1=k"), described("q2=k")];
    let expected = |metadata: serde_json::Value| serde_json::json!({"domain": "d", "hitsAddend": 2.0, "descriptors": descriptors, "metadata": metadata});
    let merged = serde_json::json!({"names": {"one": 1.0, "two": 2.0}, "first": "q1"});
    assert_eq!(metadata(both()).await, expected(merged));
    assert_eq!(metadata(both()).await, expected(serde_json::json!({"names": {"two": 2.0}, "first": "q2"})));
    assert!(metadata(both()).await.get("metadata").is_none());
    let of = |model: &str| hits(1, &format!("backend_name=b model_name_override={model}"));
    metadata(vec![of("m")]).await;
    let pairs = metadata(vec![of("m"), of("n")]).await["passedBackends"].clone();
    assert_eq!(pairs, serde_json::json!([{"backend_name": "b", "model_name_override": "n"}]));
    assert!(Rig::new(QUOTAS).ask(both(), 0).await.dynamic_metadata.is_none());
}

#[tokio::test]
async fn what_is_no_request_is_an_error_and_what_has_no_domain_is_let_through() {
    let rig = Rig::new(LIMITS);
    let request = |domain: &str, descriptors: Vec<RateLimitDescriptor>| RateLimitRequest {
        domain: domain.into(),
        descriptors,
        hits_addend: 0,
    };
    for wrong in [request("", vec![descriptor("none=k")]), request("d", vec![])] {
        assert_eq!(rig.0.decide(&wrong).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
    let answer = rig.0.decide(&request("nowhere", vec![descriptor("none=k")])).await.unwrap();
    assert_eq!((answer.overall_code(), answer.statuses.len()), (Code::Ok, 1));
}
