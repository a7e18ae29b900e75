//! The meaning of requests and answers, through real counters.

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, rate_limit::Unit};
use envoy_types::pb::google::protobuf::UInt64Value;

use super::*;
use crate::model::limit::{Algorithm, Body, Key, Limit, SETTLE_ENTRY, ToldAs};
use crate::ratelimit::counters::memory::Memory;

/// Long periods, so that no test depends on how fast it runs.
fn limits() -> LimitSet {
    let limit = |id: &str, algorithm| Limit::new(id.into(), Key::ClientAddress, algorithm);
    LimitSet::from_iter([
        limit("bucket", Algorithm::Gcra { requests: 1, period_ms: 86_400_000, burst: 2 }),
        limit("five", Algorithm::FixedWindow { requests: 5, window_ms: 60_000_000 }),
        limit("hourly", Algorithm::FixedWindow { requests: 100, window_ms: 3_600_000 }),
        limit("none", Algorithm::FixedWindow { requests: 0, window_ms: 1_000 }),
    ])
}

fn descriptor(limit: &str, key: &str) -> RateLimitDescriptor {
    let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into() };
    RateLimitDescriptor {
        entries: vec![entry("limit", limit), entry("remote_address", key)],
        ..RateLimitDescriptor::default()
    }
}

fn hits(n: u64, descriptor: RateLimitDescriptor) -> RateLimitDescriptor {
    RateLimitDescriptor { hits_addend: Some(UInt64Value { value: n }), ..descriptor }
}

struct Rig {
    service: RateLimit<Memory>,
    limits: watch::Sender<Arc<LimitSet>>,
}

impl Rig {
    fn new() -> Self {
        let (sender, receiver) = watch::channel(Arc::new(limits()));
        let service = RateLimit::new(receiver, Arc::new(Memory::default()), Arc::default());
        Self { service, limits: sender }
    }

    async fn ask(&self, addend: u32, descriptors: Vec<RateLimitDescriptor>) -> RateLimitResponse {
        let request = RateLimitRequest { domain: DOMAIN.into(), descriptors, hits_addend: addend };
        self.service.decide(&request).await.unwrap()
    }

    /// Whether the request is allowed, and what each of its limits has left.
    async fn left(&self, addend: u32, descriptors: Vec<RateLimitDescriptor>) -> (bool, Vec<u32>) {
        let answer = self.ask(addend, descriptors).await;
        let left = answer.statuses.iter().map(|status| status.limit_remaining).collect();
        (answer.overall_code == i32::from(Code::Ok), left)
    }
}

#[tokio::test]
async fn a_rate_that_is_told_counts_in_place_of_the_limits_own() {
    let rig = Rig::new();
    let mut limits = limits();
    let algorithm = Algorithm::FixedWindow { requests: 2, window_ms: 3_600_000 };
    limits.insert(Limit {
        told: Some(ToldAs::Window),
        ..Limit::new("told".into(), Key::ClientAddress, algorithm)
    });
    rig.limits.send_replace(Arc::new(limits));
    let told = |limit: &str, key: &str, rate: &str| {
        let mut descriptor = descriptor(limit, key);
        descriptor.entries.push(Entry { key: "told".into(), value: rate.into() });
        vec![descriptor]
    };
    for (limit, key, rate, allowed, left) in [
        ("told", "a", "=3r/d", true, 2),
        ("told", "a", "=3r/d", true, 1),
        // Another key has it for itself, and another rate begins anew.
        ("told", "b", "=3r/d", true, 2),
        ("told", "a", "=5r/d", true, 4),
        ("told", "a", "=0r/d", false, 0),
        // What is no rate is no key either: all share the limit's own counter.
        ("told", "a", "=", true, 1),
        ("told", "a", "=many", true, 0),
        ("told", "a", "=-", false, 0),
        // A limit that is told nothing hears nothing.
        ("five", "a", "=1r/d", true, 4),
        ("five", "a", "=9r/d", true, 3),
    ] {
        let got = rig.left(1, told(limit, key, rate)).await;
        assert_eq!(got, (allowed, vec![left]), "{limit} {key} {rate}");
    }
    assert_eq!(rig.left(1, vec![descriptor("told", "c")]).await, (true, vec![1]), "without the entry");
}

#[tokio::test]
async fn addends_of_request_and_descriptor() {
    let rig = Rig::new();
    let five = || descriptor("five", "k");
    for (addend, asked, expected) in [
        (0, five(), (true, vec![4])),
        (2, five(), (true, vec![2])),
        (2, hits(1, five()), (true, vec![1])),
        (9, hits(0, five()), (true, vec![1])),
        (2, five(), (false, vec![1])),
        (1, five(), (true, vec![0])),
        (1, hits(0, five()), (false, vec![0])),
        (0, RateLimitDescriptor { is_negative_hits: true, ..hits(2, five()) }, (true, vec![2])),
    ] {
        assert_eq!(rig.left(addend, vec![asked.clone()]).await, expected, "{addend} {asked:?}");
    }
}

#[tokio::test]
async fn every_descriptor_has_its_status_in_order_and_a_refusal_charges_nothing() {
    let rig = Rig::new();
    let asked = || vec![descriptor("hourly", "k"), descriptor("gone", "k"), descriptor("five", "k")];
    for left in (0..5).rev() {
        assert_eq!(rig.left(1, asked()).await, (true, vec![95 + left, 0, left]));
    }
    assert_eq!(rig.left(1, asked()).await, (false, vec![95, 0, 0]));
    let answer = rig.ask(1, asked()).await;
    let codes: Vec<i32> = answer.statuses.iter().map(|status| status.code).collect();
    assert_eq!(codes, [Code::Ok, Code::Ok, Code::OverLimit].map(i32::from));
    let hourly = answer.statuses[0].current_limit.clone().unwrap();
    assert_eq!((hourly.requests_per_unit, hourly.unit()), (100, Unit::Hour));
    assert_eq!(answer.statuses[1].current_limit, None);
    assert_eq!(answer.statuses[2].current_limit.as_ref().unwrap().unit(), Unit::Unknown);
    let report = rig.service.report();
    let counted: Vec<_> =
        report.limits.iter().map(|l| (&*l.limit.id, l.decided.allowed, l.decided.denied)).collect();
    assert_eq!(counted, [("bucket", 0, 0), ("five", 5, 2), ("hourly", 5, 0), ("none", 0, 0)]);
    assert_eq!((report.totals.allowed, report.totals.denied, report.totals.unknown), (5, 2, 7));
}

#[tokio::test]
async fn what_names_no_limit_is_let_through() {
    let rig = Rig::new();
    let entry = Entry { key: "other".into(), value: "none".into() };
    for descriptors in [
        vec![],
        vec![RateLimitDescriptor::default()],
        vec![RateLimitDescriptor { entries: vec![entry], ..RateLimitDescriptor::default() }],
        vec![descriptor("", "k"), descriptor("nobody", "k")],
    ] {
        let answer = rig.ask(1, descriptors.clone()).await;
        assert_eq!(answer.overall_code, i32::from(Code::Ok), "{descriptors:?}");
        assert_eq!(answer.statuses.len(), descriptors.len());
    }
    let request = RateLimitRequest {
        domain: "theirs".into(),
        descriptors: vec![descriptor("none", "k")],
        hits_addend: 1,
    };
    let answer = rig.service.decide(&request).await.unwrap();
    assert_eq!(answer.overall_code, i32::from(Code::Ok));
    assert_eq!(rig.left(1, vec![descriptor("none", "k")]).await, (false, vec![0]));
}

#[tokio::test]
async fn reset_is_in_whole_seconds_rounded_up() {
    let rig = Rig::new();
    let answer = rig.ask(3, vec![descriptor("bucket", "k")]).await;
    let reset = |answer: &RateLimitResponse| answer.statuses[0].duration_until_reset.unwrap();
    assert_eq!((reset(&answer).seconds, reset(&answer).nanos), (3 * 86_400, 0));
    let answer = rig.ask(1, vec![descriptor("bucket", "k")]).await;
    assert_eq!(answer.overall_code, i32::from(Code::OverLimit));
    assert_eq!((reset(&answer).seconds, reset(&answer).nanos), (86_400, 0));
}

#[tokio::test]
async fn a_new_set_of_limits_holds_at_once_and_keeps_the_counters_of_the_old() {
    let rig = Rig::new();
    assert_eq!(rig.left(5, vec![descriptor("five", "k")]).await, (true, vec![0]));
    let mut next = limits();
    next.remove("hourly");
    let id = "new".into();
    let algorithm = Algorithm::FixedWindow { requests: 1, window_ms: 60_000_000 };
    next.insert(Limit::new(id, Key::Header("x-api-key".into()), algorithm));
    rig.limits.send_replace(Arc::new(next));
    assert_eq!(rig.left(1, vec![descriptor("five", "k")]).await, (false, vec![0]));
    assert_eq!(rig.left(1, vec![descriptor("new", "k")]).await, (true, vec![0]));
    assert_eq!(rig.left(1, vec![descriptor("new", "k")]).await, (false, vec![0]));
    assert_eq!(rig.ask(1, vec![descriptor("hourly", "k")]).await.statuses[0].current_limit, None);
}

#[tokio::test]
async fn the_keys_with_the_most_hits_are_told_and_no_credential() {
    let rig = Rig::new();
    let mut next = limits();
    let algorithm = Algorithm::FixedWindow { requests: 1, window_ms: 60_000_000 };
    next.insert(Limit::new("keyed".into(), Key::Header("x-api-key".into()), algorithm));
    rig.limits.send_replace(Arc::new(next));
    rig.ask(1, vec![descriptor("keyed", "hunter2")]).await;
    rig.ask(1, vec![descriptor("keyed", "hunter2")]).await;
    rig.ask(5, vec![descriptor("five", "192.0.2.7")]).await;
    let report = rig.service.report();
    let keys: Vec<_> =
        report.keys.iter().map(|key| (&*key.limit, &*key.key[0], key.hits, key.denied)).collect();
    assert_eq!(keys, [("five", "192.0.2.7", 5, 0), ("keyed", "[redacted]", 2, 1)]);
    let json = serde_json::to_value(&report).unwrap();
    assert!(!json.to_string().contains("hunter2"), "{json}");
    assert_eq!(json["keys"][1]["fingerprint"].as_str().unwrap().len(), 16);
    assert_eq!((&json["limits"][3]["id"], &json["limits"][3]["denied"]), (&"keyed".into(), &1.into()));
    assert_eq!(json["store"]["kind"], "memory");
}

/// What an answer has cost counts though there is less left, and is no decision: the next request is refused.
#[tokio::test]
async fn settled_hits_are_never_refused() {
    let rig = Rig::new();
    let settled = |n, negative| {
        let mut descriptor = hits(n, descriptor("five", "a"));
        descriptor.entries[0].key = SETTLE_ENTRY.into();
        RateLimitDescriptor { is_negative_hits: negative, ..descriptor }
    };
    let probe = || vec![hits(0, descriptor("five", "a"))];
    assert_eq!(rig.left(0, probe()).await, (true, vec![5]));
    assert!(rig.left(0, vec![settled(3, false), settled(0, true)]).await.0);
    assert_eq!(rig.left(0, probe()).await, (true, vec![2]));
    assert!(rig.left(0, vec![settled(9, false), settled(0, true)]).await.0);
    assert_eq!(rig.left(0, probe()).await, (false, vec![0]));
    assert!(rig.left(0, vec![settled(0, false), settled(8, true)]).await.0);
    assert_eq!(rig.left(0, probe()).await, (true, vec![1]));
    assert_eq!(rig.service.report().limits[1].decided.denied, 1, "one probe was refused");
}

/// The body of a refusal is that of the limit that refuses; there is none where nothing is refused.
#[tokio::test]
async fn refusals_have_the_bodies_of_their_limits() {
    let rig = Rig::new();
    let with = |id: &str, body, shadow| Limit { body, shadow, ..limits().get(id).unwrap().clone() };
    let text = Body::Text { content_type: "text/html".into(), text: "<p>".into() };
    rig.limits.send_replace(Arc::new(LimitSet::from_iter([
        with("five", Some(text), false),
        with("none", Some(Body::Json), false),
        with("bucket", Some(Body::Json), true),
    ])));
    let ask = async |ids: &[&str], n| {
        let answer = rig.ask(0, ids.iter().map(|id| hits(n, descriptor(id, "a"))).collect()).await;
        let headers = answer.response_headers_to_add.into_iter().map(|header| (header.key, header.value));
        (String::from_utf8(answer.raw_body).unwrap(), headers.collect::<Vec<_>>())
    };
    let kind = |kind: &str| vec![("content-type".to_owned(), kind.to_owned())];
    assert_eq!(ask(&["five"], 1).await, (String::new(), vec![]));
    assert_eq!(ask(&["bucket", "five"], 100).await, ("<p>".to_owned(), kind("text/html")));
    let (body, headers) = ask(&["five", "none"], 1).await;
    assert_eq!(headers, kind("application/json"));
    let error: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(error["error"]["type"], "rate_limit_exceeded");
    assert!(error["error"]["message"].as_str().unwrap().contains("0 in 1 seconds"), "{body}");
}
