//! The API as it is asked over HTTP and gRPC, and what it does to decisions.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Request;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tonic::codegen::Service as _;

use super::v1::quota_service_client::QuotaServiceClient;
use super::v1::{GetQuotaRequest, GrantQuotaRequest, ListQuotasRequest, ResetQuotaRequest, Subject};
use super::*;
use crate::model::limit::{Algorithm, Key, KeyMatch, Limit, LimitSet, Plan, ToldAs};
use crate::ratelimit::counters::Store;
use crate::ratelimit::envoyproxy::{Reading, Rules};
use crate::ratelimit::service::{Options, RateLimit};

const RULES: &str = "
domain: theirs
descriptors:
- {key: user, rate_limit: {unit: year, requests_per_unit: 2}}
- {key: path, value: /static/*, share_threshold: true, rate_limit: {unit: year, requests_per_unit: 2}}
- {key: free, rate_limit: {unlimited: true}}
- {key: one, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 1}}
- {key: two, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 1}}";

fn window(requests: u32) -> Algorithm {
    Algorithm::FixedWindow { requests, window_ms: 3_600_000 }
}

pub(super) struct Rig {
    service: RateLimit<Store>,
    pages: Pages,
}

impl Rig {
    fn new() -> Self {
        Self::on(Arc::default())
    }

    fn with(access: Access) -> Self {
        Self::asked_by(access, Arc::default())
    }

    pub(super) fn on(store: Arc<Store>) -> Self {
        Self::asked_by(Access::new(None, true).unwrap(), store)
    }

    fn asked_by(access: Access, store: Arc<Store>) -> Self {
        let plan =
            Plan { name: "pro".into(), matches: KeyMatch::Prefix("pro_".into()), algorithm: window(9) };
        let several = Key::Several(vec![Key::Generic("g".into()), Key::ClientAddress]);
        let limits = LimitSet::from_iter([
            Limit {
                plans: vec![plan.clone()],
                ..Limit::new("keyed".into(), Key::Header("x-api-key".into()), window(2))
            },
            Limit {
                told: Some(ToldAs::Window),
                plans: vec![plan],
                ..Limit::new("told".into(), Key::Header("x-user".into()), window(2))
            },
            Limit::new("several".into(), several, window(5)),
            Limit::new("none".into(), Key::Path, window(0)),
            Limit::new("short".into(), Key::Path, Algorithm::FixedWindow { requests: 0, window_ms: 1_000 }),
            Limit::new(
                "gauge".into(),
                Key::ClientAddress,
                Algorithm::Concurrency { limit: 1, lease_ms: 60_000 },
            ),
        ]);
        let rules = Rules::read(&[("a.yaml".into(), RULES.into())], Reading::default()).unwrap();
        let service = RateLimit::new(watch::channel(Arc::new(limits)).1, store, Arc::default())
            .with_rules(watch::channel(Arc::new(rules)).1, Options::default());
        Self { pages: router(service.clone(), access), service }
    }

    /// Whether so many hits on these descriptors are let through, and what is left of each.
    pub(super) async fn hit(
        &self,
        domain: &str,
        hits: u32,
        descriptors: &[&[(&str, &str)]],
    ) -> (bool, Vec<u32>) {
        let entry = |(key, value): &(&str, &str)| Entry { key: (*key).into(), value: (*value).into() };
        let descriptor = |entries: &&[(&str, &str)]| RateLimitDescriptor {
            entries: entries.iter().map(entry).collect(),
            ..RateLimitDescriptor::default()
        };
        let descriptors = descriptors.iter().map(descriptor).collect();
        let request = RateLimitRequest { domain: domain.into(), descriptors, hits_addend: hits };
        let answer = self.service.decide(&request).await.unwrap();
        let left = answer.statuses.iter().map(|status| status.limit_remaining).collect();
        (answer.overall_code() == Code::Ok, left)
    }

    pub(super) async fn keyed(&self, hits: u32, key: &str) -> (bool, Vec<u32>) {
        self.hit("chancery", hits, &[&[("limit", "keyed"), ("key", key)]]).await
    }

    /// With a rate that the auth service's answer told.
    async fn told(&self, hits: u32, key: &str, rate: &str) -> (bool, Vec<u32>) {
        self.hit("chancery", hits, &[&[("limit", "told"), ("key", key), ("told", rate)]]).await
    }

    pub(super) async fn ask(&self, path: &str, body: Option<Value>, token: Option<&str>) -> (u16, Value) {
        let request = Request::builder().uri(path);
        let request =
            token.into_iter().fold(request, |r, token| r.header("authorization", format!("Bearer {token}")));
        let request = match body {
            None => request.body(Body::empty()),
            Some(body) => {
                let request = request.method("POST").header("content-type", "application/json");
                request.body(Body::from(body.to_string()))
            }
        };
        let answer = self.pages.clone().call(request.unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// What is answered about a key, unless it is an error.
    pub(super) async fn quota(&self, what: &str, subject: Value, hits: Option<u64>) -> Value {
        let mut body = json!({"subject": subject});
        if let Some(hits) = hits {
            body["hits"] = hits.into();
        }
        let (status, mut answer) = self.ask(&format!("/v1/quotas/{what}"), Some(body), None).await;
        assert_eq!(status, 200, "{what}: {answer}");
        answer["quota"].take()
    }
}

pub(super) fn alice() -> Value {
    json!({"limit": "keyed", "key": ["alice"]})
}

/// Without what depends on how fast a test runs.
fn timeless(quota: &Value) -> Value {
    let mut quota = quota.clone();
    quota.as_object_mut().unwrap().remove("resetMs");
    quota
}

#[tokio::test]
async fn a_key_is_looked_at_and_reset() {
    let rig = Rig::new();
    assert_eq!(rig.quota("get", alice(), None).await["remaining"], 2);
    for (allowed, left) in [(true, 1), (true, 0), (false, 0)] {
        assert_eq!(rig.keyed(1, "alice").await, (allowed, vec![left]));
    }
    let quota = rig.quota("get", alice(), None).await;
    let told = ["limit", "key", "plan", "requests", "windowMs", "remaining", "granted", "hits", "denied"];
    let told: Vec<_> = told.iter().map(|field| quota[field].clone()).collect();
    assert_eq!(json!(told), json!(["keyed", ["[redacted]"], "", 2, 3_600_000, 0, 0, 3, 1]));
    assert!(quota["resetMs"].as_u64().is_some_and(|ms| ms > 3_500_000), "{quota}");
    let listed = rig.ask("/v1/quotas?limit=keyed&max=5", None, None).await.1;
    assert_eq!(timeless(&listed["quotas"][0]), timeless(&quota), "{listed}");
    let named = json!({"fingerprint": listed["quotas"][0]["fingerprint"]});
    assert_eq!(rig.quota("reset", named, None).await["remaining"], 2);
    assert_eq!(rig.keyed(2, "alice").await, (true, vec![0]));
    let pro = rig.quota("get", json!({"limit": "keyed", "key": ["pro_1"]}), None).await;
    assert_eq!((&pro["plan"], &pro["requests"], &pro["remaining"]), (&json!("pro"), &json!(9), &json!(9)));
}

#[tokio::test]
async fn granted_hits_come_first_and_go_with_the_window() {
    granted_hits_come_first(&Rig::new()).await;
}

/// Wherever they are kept.
pub(super) async fn granted_hits_come_first(rig: &Rig) {
    rig.keyed(2, "alice").await;
    assert_eq!(rig.quota("grant", alice(), Some(3)).await["remaining"], 3);
    assert_eq!(rig.keyed(4, "alice").await, (false, vec![3]), "all or none");
    assert_eq!(rig.keyed(2, "alice").await, (true, vec![1]));
    let none = [("limit", "none"), ("key", "/p")];
    let both: &[&[(&str, &str)]] = &[&[("limit", "keyed"), ("key", "alice")], &none];
    assert_eq!(rig.hit("chancery", 1, both).await, (false, vec![1, 0]), "refused by another limit");
    assert_eq!(rig.quota("get", alice(), None).await["granted"], 1, "so it was given back");
    assert_eq!(rig.keyed(1, "bob").await, (true, vec![1]), "to nobody else");
    assert_eq!(rig.keyed(1, "alice").await, (true, vec![0]));
    assert_eq!(rig.keyed(1, "alice").await, (false, vec![0]));
    // More than the limit has, where nothing is used yet; the rest is the counter's.
    assert_eq!(rig.quota("grant", json!({"limit": "keyed", "key": ["eve"]}), Some(3)).await["remaining"], 5);
    assert_eq!(rig.keyed(4, "eve").await, (true, vec![1]));
    assert_eq!(rig.keyed(2, "eve").await, (false, vec![1]));
}

#[tokio::test]
async fn a_key_is_looked_at_by_the_rate_that_was_told() {
    let rig = Rig::new();
    let ann = |rate: &str| json!({"limit": "told", "key": ["pro_ann"], "rate": rate});
    let left =
        |quota: &Value| json!([quota["plan"], quota["requests"], quota["windowMs"], quota["remaining"]]);
    const HOUR_MS: u32 = 3_600_000;
    let own = rig.quota("get", ann(""), None).await;
    assert_eq!(left(&own), json!(["pro", 9, HOUR_MS, 9]), "nobody told a rate yet");
    assert_eq!(rig.told(3, "pro_ann", "=3r/h").await, (true, vec![0]));
    let quota = rig.quota("get", ann(""), None).await;
    assert_eq!(left(&quota), json!(["", 3, HOUR_MS, 0]));
    let listed = rig.ask("/v1/quotas?limit=told", None, None).await.1;
    assert_eq!(timeless(&listed["quotas"][0]), timeless(&quota), "{listed}");
    let named = json!({"fingerprint": quota["fingerprint"]});
    assert_eq!(rig.quota("reset", named, None).await["remaining"], 3);
    assert_eq!(rig.told(3, "pro_ann", "=3r/h").await, (true, vec![0]));
    assert_eq!(rig.quota("grant", ann(""), Some(2)).await["remaining"], 2);
    assert_eq!(rig.told(2, "pro_ann", "=3r/h").await, (true, vec![0]));
    // The last one told, unless another is named.
    assert_eq!(rig.told(1, "pro_ann", "=7r/d").await, (true, vec![6]));
    assert_eq!(left(&rig.quota("get", ann(""), None).await), json!(["", 7, 24 * HOUR_MS, 6]));
    assert_eq!(left(&rig.quota("reset", ann("3r/h"), None).await), json!(["", 3, HOUR_MS, 3]));
    assert_eq!(left(&rig.quota("get", ann("7r/d"), None).await), json!(["", 7, 24 * HOUR_MS, 6]));
    assert_eq!(rig.told(1, "pro_ann", "=-").await, (true, vec![8]));
    assert_eq!(left(&rig.quota("get", ann(""), None).await), json!(["pro", 9, HOUR_MS, 8]));
}

#[tokio::test]
async fn a_quota_that_a_grant_pays_is_not_used_up() {
    granted_quota_is_not_used_up(&Rig::new()).await;
}

/// So those beside it refuse nothing.
pub(super) async fn granted_quota_is_not_used_up(rig: &Rig) {
    let quotas: &[&[(&str, &str)]] = &[&[("one", "v")], &[("two", "v")]];
    assert!(rig.hit("theirs", 1, quotas).await.0 && !rig.hit("theirs", 1, quotas).await.0);
    let subject = json!({"domain": "theirs", "entries": [{"key": "one", "value": "v"}]});
    assert_eq!(rig.quota("grant", subject.clone(), Some(2)).await["granted"], 2);
    assert!(!rig.hit("theirs", 3, quotas).await.0, "not wholly");
    assert!(rig.hit("theirs", 1, quotas).await.0);
    assert_eq!(rig.quota("get", subject, None).await["granted"], 1);
    assert!(rig.hit("theirs", 1, quotas).await.0 && !rig.hit("theirs", 1, quotas).await.0);
}

#[tokio::test]
async fn what_cannot_be_asked_is_said() {
    let rig = Rig::new();
    let mut words = Vec::new();
    for (what, body) in [
        ("get", json!({"subject": {"limit": "nobody"}})),
        ("get", json!({"subject": {"limit": "keyed"}})),
        ("get", json!({"subject": {"limit": "several", "key": ["g", "a"]}})),
        ("get", json!({"subject": {"fingerprint": "xyz"}})),
        ("get", json!({"subject": {"fingerprint": "0000000000000000"}})),
        ("get", json!({"subject": {"limit": "keyed", "domain": "theirs"}})),
        ("get", json!({"subject": {"domain": "nowhere", "entries": [{"key": "k", "value": "v"}]}})),
        ("get", json!({"subject": {"domain": "theirs", "entries": [{"key": "k", "value": "v"}]}})),
        ("get", json!({"subject": {"domain": "theirs", "entries": [{"key": "free", "value": "v"}]}})),
        ("get", json!({"subject": {"limit": "keyed", "key": ["k"], "rate": "3r/h"}})),
        (
            "get",
            json!({"subject": {"domain": "theirs", "entries": [{"key": "user", "value": "v"}], "rate": "3r/h"}}),
        ),
        ("get", json!({"subject": {"limit": "told", "key": ["k"], "rate": "3 an hour"}})),
        ("get", json!({})),
        ("get", json!({"subject": {"limt": "keyed"}})),
        ("grant", json!({"subject": alice()})),
        ("grant", json!({"subject": {"limit": "gauge", "key": ["192.0.2.7"]}, "hits": 1})),
    ] {
        let (status, answer) = rig.ask(&format!("/v1/quotas/{what}"), Some(body), None).await;
        words.push(format!("{status} {}\n", answer["error"].as_str().unwrap()));
    }
    insta::assert_snapshot!(words.concat());
    assert_eq!(rig.ask("/v1/quotas?maximum=1", None, None).await.0, 400);
    let several = json!({"limit": "several", "key": ["192.0.2.7"]});
    assert_eq!(rig.quota("get", several, None).await["key"], json!(["g", "192.0.2.7"]));
}

#[tokio::test]
async fn rules_of_files_have_keys_too() {
    let rig = Rig::new();
    for path in ["/static/a", "/static/b"] {
        rig.hit("theirs", 1, &[&[("path", path)]]).await;
    }
    let subject = json!({"domain": "theirs", "entries": [{"key": "path", "value": "/static/c"}]});
    let quota = rig.quota("get", subject.clone(), None).await;
    assert_eq!((&quota["limit"], &quota["remaining"]), (&json!("theirs.path_/static/*"), &json!(0)));
    assert_eq!(quota["key"], json!(["path=/static/*"]), "they share a threshold");
    let listed = rig.ask("/v1/quotas?limit=theirs.path_/static/*", None, None).await.1;
    assert_eq!(timeless(&listed["quotas"][0]), timeless(&quota));
    rig.quota("reset", json!({"fingerprint": quota["fingerprint"]}), None).await;
    rig.quota("grant", subject, Some(1)).await;
    assert_eq!(rig.hit("theirs", 3, &[&[("path", "/static/d")]]).await, (true, vec![0]));
}

#[tokio::test]
async fn only_those_with_a_token_or_on_this_machine_may_ask() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "alice 0123456789abcdef\nfedcba9876543210\n").unwrap();
    let rig = Rig::with(Access::new(Some(file.path().to_owned()), true).unwrap());
    for (token, status) in [
        (None, 401),
        (Some("0123456789abcdef"), 200),
        (Some("fedcba9876543210"), 200),
        (Some("0123456789abcdeg"), 401),
        (Some("alice 0123456789abcdef"), 401),
        (Some(""), 401),
    ] {
        assert_eq!(rig.ask("/v1/quotas", None, token).await.0, status, "{token:?}");
    }
    std::fs::write(file.path(), "another-token-of-16\n").unwrap();
    assert_eq!(rig.ask("/v1/quotas", None, Some("0123456789abcdef")).await.0, 401, "read anew");
    std::fs::remove_file(file.path()).unwrap();
    assert_eq!(rig.ask("/v1/quotas", None, Some("another-token-of-16")).await.0, 401, "gone");
    let rig = Rig::with(Access::new(None, false).unwrap());
    let (status, answer) = rig.ask("/v1/quotas/reset", Some(json!({"subject": alice()})), None).await;
    assert!(status == 403 && answer["error"].as_str().unwrap().contains("--quota-token-file"), "{answer}");
    let mut client = QuotaServiceClient::new(rig.pages);
    let refused = client.list_quotas(ListQuotasRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn the_same_over_grpc() {
    let rig = Rig::new();
    rig.keyed(2, "alice").await;
    let subject = || Some(Subject { limit: "keyed".into(), key: vec!["alice".into()], ..Subject::default() });
    let mut client = QuotaServiceClient::new(rig.pages.clone());
    let get = GetQuotaRequest { subject: subject() };
    let got = client.get_quota(get).await.unwrap().into_inner().quota.unwrap();
    assert_eq!((got.remaining, got.hits, &*got.key), (0, 2, &["[redacted]".to_owned()][..]));
    let granted = client.grant_quota(GrantQuotaRequest { subject: subject(), hits: 4 }).await.unwrap();
    assert_eq!(granted.into_inner().quota.unwrap().granted, 4);
    let reset = client.reset_quota(ResetQuotaRequest { subject: subject() }).await.unwrap();
    assert_eq!(reset.into_inner().quota.unwrap().remaining, 6);
    let list = client.list_quotas(ListQuotasRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.quotas.len(), 1);
    let unknown = GetQuotaRequest::default();
    assert_eq!(client.get_quota(unknown).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// On this thread alone, which is the test's.
#[tokio::test]
async fn who_did_what_is_logged_without_the_credential() {
    let lines = Lines::default();
    let writer = {
        let lines = lines.clone();
        move || lines.clone()
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "alice 0123456789abcdef").unwrap();
    let rig = Rig::with(Access::new(Some(file.path().to_owned()), true).unwrap());
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(writer).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    // Another test that comes by a line first, and listens to none, has nobody hear it until all are asked anew.
    while lines.0.lock().unwrap().iter().filter(|byte| **byte == b'\n').count() < 2 {
        tracing::callsite::rebuild_interest_cache();
        lines.0.lock().unwrap().clear();
        for token in ["0123456789abcdef", "wrong-wrong-wrong-"] {
            rig.ask("/v1/quotas/grant", Some(json!({"subject": alice(), "hits": 5})), Some(token)).await;
        }
    }
    lines.0.lock().unwrap().clear();
    let body = json!({"subject": {"limit": "keyed", "key": ["hunter2"]}, "hits": 5});
    assert_eq!(rig.ask("/v1/quotas/grant", Some(body.clone()), Some("0123456789abcdef")).await.0, 200);
    assert_eq!(rig.ask("/v1/quotas/grant", Some(body), Some("wrong-wrong-wrong-")).await.0, 401);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = ["target", "who", "action", "limit", "key", "hits", "remaining"];
    let said: Vec<_> = said.iter().map(|field| lines[0][field].clone()).collect();
    assert_eq!(json!(said), json!(["audit", "alice", "grant", "keyed", "[redacted]", 5, 7]));
    assert_eq!((&lines[1]["target"], &lines[1]["level"]), (&json!("audit"), &json!("WARN")));
    for secret in ["hunter2", "0123456789abcdef", "wrong-wrong"] {
        assert!(!text.contains(secret), "{text}");
    }
}
