//! The endpoint over a snapshot that was compiled of real objects.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use base64::Engine as _;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tonic::codegen::Service as _;

use super::*;
use crate::compile::{Compiler, Event};
use crate::descriptors;
use crate::fleet::ResponseSize;
use crate::model::Certificate;
use crate::settings::Settings;
use crate::store::{Change, Object, Stored};
use crate::values::{Age, Kind, ObjectKey};
use crate::xds::message::Protocol;
use crate::xds::session::{self, Progress};
use crate::xds::{Resource, Snapshot, TypeUrl, Update, Version};

const KEY: &str =
    "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LWtleS1tYXRlcmlhbC1vZi1hLXRlc3Q=\n-----END PRIVATE KEY-----\n";

struct Fixture {
    state: State,
    snapshots: snapshot::Sender,
    published: watch::Sender<Arc<Published>>,
}

fn fixture() -> Fixture {
    let snapshots = snapshot::Sender::new(None);
    let published = watch::Sender::new(Arc::new(Published::default()));
    let (fleet, metrics) = (Fleet::new(), Metrics::new());
    let state = State {
        snapshots: snapshots.subscribe(),
        published: published.subscribe(),
        fleet: fleet.clone(),
        changes: Changes::new(fleet, metrics.clone()),
        ratelimit: Some(RateLimit { decisions: Arc::default(), counters: Arc::default() }),
        metrics,
        tls: None,
    };
    Fixture { state, snapshots, published }
}

fn ingress() -> Change {
    let object = json!({
        "metadata": {"namespace": "shop", "name": "api", "annotations": {
            "nginx.ingress.kubernetes.io/limit-rps": "5",
            "nginx.ingress.kubernetes.io/no-such-annotation": "x",
        }},
        "spec": {"ingressClassName": "nginx", "rules": [{"host": "api.example.com", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "api", "port": {"number": 80}}}},
        ]}}, {"host": "*.example.com"}]},
    });
    let object = Object::Ingress(serde_json::from_value(object).unwrap());
    Change::Applied(Arc::new(Stored::new(object, Age::default(), vec![])))
}

/// What an Ingress compiles to, and resources that hold a key in every way that Envoy has.
fn ready() -> Fixture {
    let fixture = fixture();
    let certificate = Certificate { chain: b"chain".into(), private_key: KEY.as_bytes().into() };
    let mut compiler = Compiler::new(Settings::default(), certificate).unwrap();
    let published = compiler.apply(vec![ingress(), Change::Ready]).clone();
    let inline =
        json!({"certificate_chain": {"inline_string": "chain"}, "private_key": {"inline_string": KEY}});
    let bytes = base64::engine::general_purpose::STANDARD.encode(KEY);
    let secrets = [
        ("string", json!({"name": "string", "tls_certificate": inline})),
        ("bytes", json!({"name": "bytes", "tls_certificate": {"private_key": {"inline_bytes": bytes}}})),
        ("generic", json!({"name": "generic", "generic_secret": {"secret": {"inline_string": KEY}}})),
        ("tickets", json!({"name": "tickets", "session_ticket_keys": {"keys": [{"inline_bytes": bytes}]}})),
        ("wrong", json!({"name": "wrong", "tls_certificate": {"certificate_chain": {"inline_string": KEY}}})),
    ];
    let mut update = Update::default();
    for (name, json) in secrets {
        update.set.push(resource(TypeUrl::Secret, name, &json));
    }
    let context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [inline]},
    });
    let chain = json!({"transport_socket": {"name": "tls", "typed_config": context}});
    update.set.push(resource(
        TypeUrl::Listener,
        "chains",
        &json!({"name": "chains", "filter_chains": [chain]}),
    ));
    let snapshot = Arc::new(published.snapshot.apply(update));
    fixture.snapshots.send_replace(Some(snapshot));
    fixture.published.send_replace(Arc::new(published));
    fixture
}

fn resource(type_url: TypeUrl, name: &str, json: &Value) -> Arc<Resource> {
    let body = descriptors::from_json(type_url.as_str(), json).unwrap();
    Arc::new(Resource::from_bytes(type_url, name, Version(1), &body))
}

async fn answer(state: &State, request: Request<Body>) -> (StatusCode, header::HeaderMap, String) {
    let response = router(state.clone()).call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.into()).unwrap())
}

async fn text(state: &State, path: &str) -> (u16, String) {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    let (status, _, body) = answer(state, request).await;
    (status.as_u16(), body)
}

async fn json(state: &State, path: &str) -> (u16, Value) {
    let (status, body) = text(state, path).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let fixture = fixture();
    for path in ["/readyz", "/debug/config_dump"] {
        let (status, body) = json(&fixture.state, path).await;
        assert_eq!(status, 503, "{path}");
        assert!(body["error"].as_str().unwrap().contains("not every source has been read"), "{body}");
    }
    assert_eq!(json(&fixture.state, "/healthz").await, (200, json!({"status": "ok"})));
    fixture.snapshots.send_replace(Some(Arc::new(Snapshot::empty())));
    assert_eq!(
        json(&fixture.state, "/readyz").await.1,
        json!({"status": "ready", "sequence": 0, "from": "state"})
    );
    drop(fixture.snapshots);
    assert_eq!(json(&fixture.state, "/healthz").await.0, 503);
}

#[tokio::test]
async fn no_key_leaves_by_any_path() {
    let fixture = ready();
    let encoded = base64::engine::general_purpose::STANDARD.encode(KEY);
    let key_body = KEY.lines().nth(1).unwrap();
    let dumps = TypeUrl::ALL.map(|type_url| format!("/debug/config_dump?type={type_url}"));
    let paths = PATHS.iter().map(|path| path.split('?').next().unwrap().to_owned()).chain(dumps);
    for path in paths.chain(["/debug/config_dump?name=bytes".to_owned()]) {
        let (status, body) = text(&fixture.state, &path).await;
        assert_eq!(status, 200, "{path}: {body}");
        for secret in ["PRIVATE KEY", key_body, &encoded, &encoded[..40]] {
            assert!(!body.contains(secret), "{path} shows {secret}");
        }
    }
    let (_, body) = json(&fixture.state, "/debug/config_dump?type=Secret&name=string").await;
    let certificate = &body["resources"][0]["resource"]["tls_certificate"];
    assert_eq!(certificate["private_key"], "[redacted]");
    assert_eq!(certificate["certificate_chain"]["inline_string"], "chain");
}

/// Whoever may ask for metrics need not be let see routes.
#[tokio::test]
async fn machines_are_shown_no_more_than_they_need() {
    let fixture = ready();
    for path in PATHS.iter().map(|path| path.split('?').next().unwrap()) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = machines_router(fixture.state.clone()).call(request).await.unwrap();
        let expected = if MACHINES_PATHS.contains(&path) { 200 } else { 404 };
        assert_eq!(response.status().as_u16(), expected, "{path}");
    }
}

/// What a VirtualService sets and compares headers, cookies and query parameters with, where these are credentials.
#[tokio::test]
async fn no_credential_leaves_by_any_path() {
    let object = json!({
        "metadata": {"namespace": "shop", "name": "api"},
        "spec": {"hosts": ["api.example.com"], "http": [{
            "match": [{
                "headers": {"x-api-key": {"exact": "hunter2"}, "x-team": {"exact": "red"}},
                "queryParams": {"access_token": {"exact": "hunter2"}},
            }],
            "headers": {
                "request": {"set": {"Authorization": "Bearer hunter2", "x-shown": "blue"}, "add": {"cookie": "hunter2"}},
                "response": {"set": {"x-shared-secret": "hunter2"}},
            },
            "route": [{
                "destination": {"host": "api", "port": {"number": 80}},
                "headers": {"request": {"set": {"x-auth-token": "hunter2"}}},
            }],
        }]},
    });
    let object = Object::VirtualService(serde_json::from_value(object).unwrap());
    let applied = Change::Applied(Arc::new(Stored::new(object, Age::default(), vec![])));
    let certificate = Certificate { chain: b"chain".into(), private_key: KEY.as_bytes().into() };
    let mut compiler = Compiler::new(Settings::default(), certificate).unwrap();
    let published = compiler.apply(vec![applied, Change::Ready]).clone();
    let fixture = fixture();
    fixture.snapshots.send_replace(Some(published.snapshot.clone()));
    fixture.published.send_replace(Arc::new(published));
    for path in ["/debug/config_dump?type=RouteConfiguration", "/debug/routes?host=api.example.com"] {
        let (status, body) = text(&fixture.state, path).await;
        assert_eq!(status, 200, "{path}: {body}");
        for shown in
            ["x-api-key", "red", "access_token", "authorization", "blue", "x-auth-token", "x-shared-secret"]
        {
            assert!(body.to_ascii_lowercase().contains(shown), "{path} does not show {shown}: {body}");
        }
        assert!(!body.contains("hunter2"), "{path} shows a credential: {body}");
    }
}

#[tokio::test]
async fn a_dump_is_of_what_is_asked() {
    let fixture = ready();
    let dump = async |query: &str| json(&fixture.state, &format!("/debug/config_dump{query}")).await;
    let (_, all) = dump("").await;
    let snapshot = fixture.state.snapshots.borrow().clone().unwrap();
    let count: usize = TypeUrl::ALL.into_iter().map(|type_url| snapshot.len(type_url)).sum();
    assert_eq!(all["resources"].as_array().unwrap().len(), count);
    assert!(all["resources"].as_array().unwrap().iter().all(|entry| entry["error"].is_null()), "{all}");
    assert_eq!(all["sequence"], snapshot.sequence());

    let full = "?type=envoy.config.listener.v3.Listener";
    assert_eq!(dump("?type=listener").await, dump(full).await);
    let (_, listener) = dump("?type=Listener&name=http").await;
    let manager = listener.pointer("/resources/0/resource/filter_chains/0/filters/0/typed_config").unwrap();
    assert!(manager["@type"].as_str().unwrap().ends_with("HttpConnectionManager"), "{manager}");
    assert_eq!(dump("?type=Cluster&name=nothing").await.1["resources"], json!([]));

    for (query, status, words) in [
        ("?type=Thing", 400, "no resources of type Thing"),
        ("?typ=Cluster", 400, "unknown field `typ`"),
        ("?node=nobody", 404, "no Envoy with the id nobody"),
    ] {
        let (answered, body) = dump(query).await;
        assert_eq!(answered, status, "{query}");
        assert!(body["error"].as_str().unwrap().contains(words), "{query}: {body}");
    }
}

#[tokio::test]
async fn a_nodes_dump_marks_what_it_rejects() {
    let fixture = ready();
    let cluster = Cluster { name: "c".into(), ..Cluster::default() };
    let cluster = Arc::new(Resource::new(TypeUrl::Cluster, "c", Version(2), &cluster));
    let snapshot = fixture.state.snapshots.borrow().clone().unwrap();
    let snapshot = snapshot.apply(Update { set: vec![cluster], remove: vec![] });
    fixture.snapshots.send_replace(Some(Arc::new(snapshot)));
    let connection = fixture.state.fleet.connect(Protocol::Delta, None, SystemTime::UNIX_EPOCH);
    connection.identify("edge-0", "edge", "envoy 1.40.0".into());
    let rejected = session::Event::Rejected {
        type_url: TypeUrl::Cluster,
        name: "c".into(),
        version: Version(2),
        message: "no".into(),
    };
    connection.on_event(&rejected, SystemTime::UNIX_EPOCH);
    let (_, body) = json(&fixture.state, "/debug/config_dump?type=Cluster&name=c&node=edge-0").await;
    assert_eq!(
        (&body["node"], &body["resources"][0]["rejected"]["message"]),
        (&json!("edge-0"), &json!("no"))
    );
    let (_, body) = json(&fixture.state, "/debug/nodes").await;
    assert_eq!(
        (&body["nodes"][0]["id"], &body["nodes"][0]["rejected"][0]["name"]),
        (&json!("edge-0"), &json!("c"))
    );
    assert_eq!(body["nodes"][0]["behind"], body["sequence"]);
}

#[tokio::test]
async fn routes_are_those_of_the_scope_that_serves() {
    let fixture = ready();
    let (_, body) = json(&fixture.state, "/debug/routes").await;
    assert!(body["hosts"].as_array().unwrap().iter().any(|host| host["name"] == "api.example.com"), "{body}");
    let (_, body) = json(&fixture.state, "/debug/routes?host=API.example.com.:8080").await;
    assert_eq!(body["host"]["name"], "api.example.com");
    assert_eq!(body["host"]["routes"][0]["origin"]["object"]["name"], "api", "{body}");
    let (status, body) = json(&fixture.state, "/debug/routes?host=other.org").await;
    assert_eq!((status, &body["error"]), (404, &json!("nothing is routed on other.org")));
    assert_eq!(json(&fixture.state, "/debug/routes?host=a%20b").await.0, 400);
}

/// As the `fallback` filter finds a host.
#[tokio::test]
async fn routes_are_those_of_the_wildcard_that_serves() {
    let service = json!({
        "metadata": {"namespace": "shop", "name": "wild"},
        "spec": {"hosts": ["*.deep.org"], "http": [{"directResponse": {"status": 200}}]},
    });
    let service = Object::VirtualService(Box::new(serde_json::from_value(service).unwrap()));
    let service = Change::Applied(Arc::new(Stored::new(service, Age::default(), vec![])));
    let certificate = Certificate { chain: b"chain".into(), private_key: KEY.as_bytes().into() };
    let mut compiler = Compiler::new(Settings::default(), certificate).unwrap();
    let fixture = fixture();
    fixture.published.send_replace(Arc::new(compiler.apply(vec![service, Change::Ready]).clone()));
    for (host, scope) in
        [("a.deep.org", "*.deep.org"), ("a.b.deep.org", "**.deep.org"), ("a.b.c.deep.org", "**.deep.org")]
    {
        let (_, body) = json(&fixture.state, &format!("/debug/routes?host={host}")).await;
        assert_eq!(body["host"]["name"], scope, "{host}: {body}");
    }
    assert_eq!(json(&fixture.state, "/debug/routes?host=deep.org").await.0, 404);
}

#[tokio::test]
async fn findings_are_counted_and_picked() {
    let fixture = ready();
    let (_, all) = json(&fixture.state, "/debug/findings").await;
    let list = all["findings"].as_array().unwrap();
    assert!(!list.is_empty());
    let counted = ["errors", "warnings", "infos"].map(|key| all[key].as_u64().unwrap());
    assert_eq!(counted.iter().sum::<u64>(), list.len() as u64);
    assert_eq!(json(&fixture.state, "/debug/findings?kind=ingress&namespace=shop&name=api").await.1, all);
    let (_, none) = json(&fixture.state, "/debug/findings?kind=Service").await;
    assert_eq!(none, json!({"errors": 0, "warnings": 0, "infos": 0, "findings": []}));
}

#[tokio::test]
async fn limits_are_shown_with_their_decisions_and_as_they_are_sent() {
    let fixture = ready();
    let (_, report) = json(&fixture.state, "/debug/ratelimits").await;
    assert_eq!(report["limits"][0]["allowed"], 0, "{report}");
    let (_, sent) = json(&fixture.state, "/debug/config_dump?type=LimitSet").await;
    let sent = &sent["resources"][0];
    assert_eq!(sent["name"], report["limits"][0]["id"], "{sent}");
    assert_eq!(sent["resource"]["limits"][0]["id"], report["limits"][0]["id"], "{sent}");
    let origin = "Ingress/shop/api nginx.ingress.kubernetes.io/limit-rps";
    assert_eq!(report["limits"][0]["origins"], json!([origin]), "{report}");
    assert_eq!(report["store"]["counters"], 0, "{report}");
}

#[tokio::test]
async fn changes_are_followed_to_every_envoy() {
    let fixture = ready();
    let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
    let connection = fixture.state.fleet.connect(Protocol::Delta, None, at(0));
    connection.identify("edge-0", "edge", "envoy".into());
    let counts = [session::Counts::default(); TypeUrl::COUNT];
    connection.on_progress(Progress { seen: 1, sent: 1, acked: 1 }, counts, at(0));
    let object = ObjectKey::new(Kind::Ingress, "shop", "api");
    fixture.state.changes.record([(object.clone(), Event::Applied)], at(100), at(101), Some(2));
    fixture.state.changes.record([(object, Event::Deleted)], at(200), at(200), None);
    connection.on_progress(Progress { seen: 2, sent: 2, acked: 1 }, counts, at(102));
    let latest = json(&fixture.state, "/debug/changes").await.1;
    assert_eq!(latest["changes"][0]["event"], "deleted");
    assert_eq!(latest["changes"][0]["envoys"], json!([]));
    let change = &latest["changes"][1];
    assert_eq!((&change["object"], &change["published_ms"]), (&json!("Ingress/shop/api"), &json!(1.0)));
    assert_eq!(change["at"], "1970-01-01T00:00:00.1Z");
    assert_eq!(
        (&change["envoys"][0]["sent_ms"], &change["envoys"][0]["acked_ms"]),
        (&json!(2.0), &Value::Null)
    );

    connection.on_progress(Progress { seen: 2, sent: 2, acked: 2 }, counts, at(104));
    assert_eq!(json(&fixture.state, "/debug/changes").await.1["changes"][1]["envoys"][0]["acked_ms"], 4.0);
    for _ in 0..2 {
        let (_, metrics) = text(&fixture.state, "/metrics").await;
        assert!(metrics.contains("chancery_change_acked_seconds_count 1\n"), "{metrics}");
        assert!(
            metrics.contains("chancery_changes_total{kind=\"Ingress\",event=\"deleted\"} 1\n"),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn metrics_tell_what_is() {
    let fixture = ready();
    fixture.state.metrics.observe_compile(Duration::from_millis(1));
    let connection = fixture.state.fleet.connect(Protocol::Delta, None, SystemTime::UNIX_EPOCH);
    connection.on_response(
        TypeUrl::Cluster,
        ResponseSize { resources: 2, removed: 1, bytes: 9 },
        SystemTime::UNIX_EPOCH,
    );
    let nack = session::Event::Nacked { type_url: TypeUrl::Cluster, message: "no".into() };
    connection.on_event(&nack, SystemTime::UNIX_EPOCH);
    drop(connection);
    let (status, metrics) = text(&fixture.state, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "chancery_ready 1",
        "chancery_envoys 0",
        "chancery_resources{type=\"Secret\"} 6",
        "chancery_compile_duration_seconds_count 1",
        "chancery_xds_bytes_total{type=\"Cluster\"} 9",
        "chancery_xds_nacks_total{type=\"Cluster\"} 1",
        "chancery_rejected_resources{type=\"Cluster\"} 0",
        "chancery_ratelimit_decisions_total{decision=\"denied\"} 0",
        "chancery_ratelimit_counters 0",
        "chancery_ratelimit_limit_decisions_total{limit=\"other\",decision=\"denied\"} 0",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line} is not in\n{metrics}");
    }
    let reason = metrics.lines().find(|line| line.starts_with("chancery_findings{severity=")).unwrap();
    assert!(reason.contains("reason=\""), "{reason}");
}

#[tokio::test]
async fn other_requests_are_errors_in_json() {
    let fixture = ready();
    let (status, body) = json(&fixture.state, "/debug/nope").await;
    assert_eq!((status, body["paths"].as_array().map(Vec::len)), (404, Some(PATHS.len())));
    let post = Request::post("/debug/nodes").body(Body::empty()).unwrap();
    let (status, _, body) = answer(&fixture.state, post).await;
    assert_eq!(status, 405);
    assert!(body.contains("\"error\""), "{body}");
}
