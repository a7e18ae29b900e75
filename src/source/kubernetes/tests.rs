#![allow(clippy::disallowed_methods, reason = "a test's tasks end with it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::CustomResourceExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::api_server::{ApiServer, api, apply, assets, delete};
use super::*;
use crate::crd::rate_limit_policy::RateLimitPolicy;
use crate::store::{Object, Store};
use crate::values::key_set::KeySet;
use crate::values::{Finding, ObjectKey};

#[path = "protobuf_tests.rs"]
mod protobuf;

/// Long enough for the slowest machine: nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

fn of(kind: Kind) -> &'static Watched {
    WATCHED.iter().find(|watched| watched.kind == kind).unwrap()
}

fn raw(value: Value) -> Raw {
    serde_json::from_value(value).unwrap()
}

fn slice(name: &str, addresses: Value) -> Raw {
    raw(
        json!({"metadata": {"name": name, "namespace": "a"}, "addressType": "IPv4", "endpoints": [{"addresses": addresses}]}),
    )
}

#[test]
fn events_become_changes() {
    let mut whole = Changes::new(of(Kind::EndpointSlice), false);
    let mut part = Changes::new(of(Kind::EndpointSlice), true);
    let told = |changes: &mut Changes, events: Vec<Event<Raw>>| -> Vec<String> {
        let mut told = Vec::new();
        events.into_iter().for_each(|event| changes.event(event, &mut told));
        told.iter()
            .map(|change| match change {
                Change::Applied(applied) => format!("applied {}", applied.key.name),
                Change::Deleted(key) => format!("deleted {}", key.name),
                Change::Listed(kind, keys) => format!("listed {} {kind}", keys.len()),
                Change::Findings { place, findings } => {
                    let fields: Vec<_> = findings.iter().map(|finding| finding.field.as_str()).collect();
                    format!("{place}: {}", fields.join(" "))
                }
                Change::Ready => "ready".into(),
            })
            .collect()
    };
    let (good, bad) = (json!(["10.0.0.1"]), json!("10.0.0.1"));
    let list = || {
        let (one, two) = (slice("one", good.clone()), slice("two", bad.clone()));
        vec![Event::Init, Event::InitApply(one), Event::InitApply(two), Event::InitDone]
    };
    let broken = "EndpointSlice/a/two: endpoints[0].addresses";
    // What cannot be read is there all the same.
    assert_eq!(told(&mut whole, list()), ["applied one", broken, "listed 2 EndpointSlice"]);
    assert_eq!(told(&mut part, list()), ["applied one", broken]);
    for changes in [&mut whole, &mut part] {
        let mut told = |event| told(changes, vec![event]);
        assert_eq!(told(Event::Apply(slice("two", good.clone()))), ["EndpointSlice/a/two: ", "applied two"]);
        assert_eq!(told(Event::Apply(slice("two", bad.clone()))), [broken]);
        assert_eq!(told(Event::Delete(slice("two", bad.clone()))), ["EndpointSlice/a/two: ", "deleted two"]);
        assert_eq!(told(Event::Apply(slice("two", bad.clone()))), [broken]);
    }
    let none = || vec![Event::Init, Event::InitDone];
    assert_eq!(told(&mut whole, none()), ["EndpointSlice/a/two: ", "listed 0 EndpointSlice"]);
    let mut gone = told(&mut part, none());
    gone.sort();
    assert_eq!(gone, ["EndpointSlice/a/two: ", "deleted one", "deleted two"]);
    assert_eq!(told(&mut part, none()), [""; 0]);
}

/// A message of which only the name can be read.
#[test]
fn a_message_that_cannot_be_read_is_a_finding() {
    let message = [&[0x0a, 0x05, 0x0a, 0x03][..], b"one", &[0x12, 0x01, 0x0f]].concat();
    let raw = || serde_json::from_value(json!(BASE64_STANDARD.encode(&message))).unwrap();
    let mut changes = Changes::new(of(Kind::IngressClass), false);
    for event in [Event::Apply(raw()), Event::Delete(raw())] {
        let mut told = Vec::new();
        changes.event(event, &mut told);
        let Some(Change::Findings { place, findings }) = told.first() else { panic!("{told:?}") };
        assert_eq!(&**place, "IngressClass/one");
        match told.len() {
            1 => assert!(
                findings[0].message.starts_with("failed to decode Protobuf message: IngressClass.spec")
            ),
            _ => assert!(findings.is_empty(), "what is gone has no finding"),
        }
    }
}

#[test]
fn what_to_do_about_errors() {
    let cases = [
        (404, Kind::VirtualService, true, false, Remedy::NextVersion),
        (403, Kind::VirtualService, true, true, Remedy::Absent),
        (404, Kind::Ingress, true, false, Remedy::Retry),
        (403, Kind::RateLimitPolicy, true, false, Remedy::Absent),
        (403, Kind::Ingress, true, true, Remedy::Retry),
        (403, Kind::IngressClass, true, true, Remedy::Absent),
        (403, Kind::IngressClass, true, false, Remedy::Retry),
        (403, Kind::ConfigMap, true, true, Remedy::Absent),
        (403, Kind::ConfigMap, true, false, Remedy::Retry),
        (422, Kind::Ingress, true, false, Remedy::Pages),
        (422, Kind::Ingress, false, false, Remedy::Retry),
        (410, Kind::Ingress, true, false, Remedy::Retry),
        (0, Kind::VirtualService, true, true, Remedy::Retry),
    ];
    for (code, kind, streaming, namespaced, expected) in cases {
        let status = Status { code, ..Status::default() };
        let remedy = |listed| remedy(Some(&status), of(kind), streaming, namespaced, listed);
        assert_eq!(remedy(false), expected, "{code} {kind}");
        // That it may be read no more does not mean that it is gone.
        let later = if code == 403 { Remedy::Retry } else { expected };
        assert_eq!(remedy(true), later, "{code} {kind}, listed before");
    }
    assert_eq!(remedy(None, of(Kind::Ingress), true, false, false), Remedy::Retry);
}

/// The watch's own patience decides how long a server is left alone that is overloaded or starts.
#[tokio::test]
async fn an_answer_to_come_later_is_not_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    let address = listener.local_addr().unwrap();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
         clusters: [{{name: it, cluster: {{server: 'http://{address}'}}}}]\nusers: [{{name: it, user: {{}}}}]\n\
         contexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut reader, mut writer) = stream.split();
            let answer =
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            tokio::io::AsyncReadExt::read(&mut reader, &mut [0; 4096]).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut writer, answer).await.unwrap();
        }
    });
    let client = connect(Some(&path)).await.unwrap();
    let request = http::Request::get("/version").body(Vec::new()).unwrap();
    let answer = timeout(PATIENCE, client.request_text(request)).await.expect("an answer");
    assert!(matches!(answer, Err(kube::Error::Api(status)) if status.code == 503));
}

#[test]
fn secrets_are_not_printed() {
    let secret = raw(json!({"metadata": {"name": "n", "namespace": "ns"}, "data": {"tls.key": "secret"}}));
    assert_eq!(format!("{secret:?}"), "ns/n");
    let message = [&[0x0a, 0x03, 0x0a, 0x01][..], b"n", &[0x12, 0x06], b"secret"].concat();
    let secret: Raw = serde_json::from_value(json!(BASE64_STANDARD.encode(message))).unwrap();
    assert_eq!(format!("{secret:?}"), "/n");
}

/// A store that is kept by the changes of a source.
struct Followed {
    inbox: mpsc::Receiver<Vec<Change>>,
    store: Store,
    findings: BTreeMap<Arc<str>, Vec<Finding>>,
    ready: bool,
}

impl Followed {
    fn start(client: Client, namespaces: &[&str]) -> Self {
        let namespaces = namespaces.iter().map(ToString::to_string).collect();
        let (sender, inbox) = mpsc::channel(16);
        tokio::spawn(follow(client, namespaces, ("edge".into(), "globals".into()), sender));
        Self { inbox, store: Store::new("cluster.local"), findings: BTreeMap::new(), ready: false }
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            match timeout(PATIENCE, self.inbox.recv()).await {
                Ok(changes) => changes.expect("the source ended").into_iter().for_each(|it| self.take(it)),
                Err(_) => panic!("{what} does not come: {:?} {:?}", self.names(), self.findings),
            }
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Applied(applied) => drop(self.store.apply(applied)),
            Change::Deleted(key) => drop(self.store.delete(&key)),
            Change::Listed(kind, keys) => {
                for key in self.store.missing_from(kind, &keys) {
                    self.store.delete(&key);
                }
            }
            Change::Findings { place, findings } => drop(self.findings.insert(place, findings)),
            Change::Ready => {
                assert!(!self.ready, "ready comes once");
                self.ready = true;
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.store.iter().map(|(key, _)| key.to_string()).collect();
        names.sort();
        names
    }

    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.store.get(&ObjectKey::new(kind, namespace, name)).map(|stored| &stored.object)
    }
}

/// What a source may read, and no more.
fn role() -> Value {
    let rules: Vec<Value> = WATCHED
        .iter()
        .map(|it| json!({"apiGroups": [it.group], "resources": [it.plural], "verbs": ["list", "watch"]}))
        .collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "reader"},
        "rules": rules,
    })
}

fn binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}],
    })
}

/// A definition that lets anything through, in one version.
fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "virtualservices.networking.istio.io"},
        "spec": {
            "group": "networking.istio.io", "scope": "Namespaced",
            "names": {"kind": "VirtualService", "plural": "virtualservices", "singular": "virtualservice"},
            "versions": [{
                "name": "v1beta1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

fn ingress(namespace: &str, name: &str, host: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"rules": [{"host": host}]},
    })
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn config_map(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}})
}

fn secret(kind: &str, name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": kind,
        "metadata": {"name": name, "namespace": "default"}, "data": data,
    })
}

fn virtual_service(name: &str, http: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "default"}, "spec": {"hosts": ["a.example"], "http": http},
    })
}

fn host_of(object: Option<&Object>) -> Option<&str> {
    let Some(Object::Ingress(ingress)) = object else { return None };
    ingress.spec.as_ref()?.rules.as_ref()?.first()?.host.as_deref()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server() {
    let Some(assets) = assets() else {
        println!("SKIPPED: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver");
        return;
    };
    let server = ApiServer::start(&assets).await;
    let admin = server.client("admin").await;
    apply(&admin, role()).await;
    apply(&admin, ingress("default", "one", "one.example")).await;
    apply(&admin, namespace("other")).await;
    apply(&admin, ingress("other", "two", "two.example")).await;
    let data = json!({"tls.crt": "YQ==", "tls.key": "YQ=="});
    apply(&admin, secret("kubernetes.io/tls", "cert", data)).await;
    apply(&admin, secret("Opaque", "password", json!({"password": "YQ==", "ca.crt": "YQ=="}))).await;
    apply(&admin, namespace("edge")).await;
    for (namespace, name) in [("edge", "globals"), ("edge", "other"), ("default", "globals")] {
        apply(&admin, config_map(namespace, name)).await;
    }
    apply(&admin, secret("helm.sh/release.v1", "release", json!({"release": "YQ=="}))).await;

    // Nothing is ready, and nothing fails, while it may not be read.
    let mut followed = Followed::start(server.client("reader").await, &[]);
    let early = timeout(Duration::from_millis(500), followed.until("nothing", |it| it.ready)).await;
    assert!(early.is_err());
    apply(&admin, binding()).await;
    followed.until("ready", |it| it.ready).await;
    let names = followed.names();
    for name in [
        "Ingress/default/one",
        "Ingress/other/two",
        "Secret/default/cert",
        "ConfigMap/edge/globals",
        "Service/default/kubernetes",
    ] {
        assert!(names.iter().any(|it| it == name), "{name} of {names:?}");
    }
    assert!(!names.iter().any(|it| it.contains("release")), "{names:?}");
    assert_eq!(names.iter().filter(|it| it.starts_with("ConfigMap/")).count(), 1, "{names:?}");
    let Some(Object::Secret(secret)) = followed.get(Kind::Secret, "default", "password") else { panic!() };
    let kept: Vec<_> =
        secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.clone())).collect();
    // Of what is not a certificate only the digests of its lines are kept.
    let digests = KeySet::of_lines(b"a").to_bytes();
    assert_eq!(kept, [("ca.crt", b"a".to_vec()), ("password", digests)]);
    changes_of_objects(&mut followed, &admin).await;
    definitions_that_come_and_go(&mut followed, &admin).await;

    let mut two = Followed::start(server.client("reader").await, &["other", "third"]);
    two.until("ready", |it| it.ready).await;
    assert_eq!(two.names(), ["ConfigMap/edge/globals", "Ingress/other/two"]);
    apply(&admin, namespace("third")).await;
    apply(&admin, ingress("third", "three", "three.example")).await;
    two.until("a third", |it| it.names().len() == 3).await;
    assert_eq!(two.names(), ["ConfigMap/edge/globals", "Ingress/other/two", "Ingress/third/three"]);
}

async fn changes_of_objects(followed: &mut Followed, admin: &Client) {
    let one = |it: &Followed| host_of(it.get(Kind::Ingress, "default", "one")).map(str::to_owned);
    apply(admin, ingress("default", "one", "new.example")).await;
    followed.until("a change", |it| one(it).as_deref() == Some("new.example")).await;
    let stored = followed.store.get(&ObjectKey::new(Kind::Ingress, "default", "one")).unwrap();
    assert!(stored.age.created.is_some());
    let metadata = stored.object.metadata();
    assert_eq!((&metadata.managed_fields, &metadata.resource_version), (&None, &None));
    delete(admin, ingress("default", "one", "")).await;
    followed.until("a deletion", |it| one(it).is_none()).await;
}

/// Definitions that are installed while the source runs, with objects that cannot be read.
async fn definitions_that_come_and_go(followed: &mut Followed, admin: &Client) {
    let definitions: Api<DynamicObject> = api(admin, &definition());
    let policies = serde_json::to_value(RateLimitPolicy::crd()).unwrap();
    for value in [definition(), policies] {
        definitions.create(&PostParams::default(), &serde_json::from_value(value).unwrap()).await.unwrap();
    }
    let first = virtual_service("first", json!([]));
    let patch = Patch::Apply(&first);
    let parameters = PatchParams::apply("test");
    // It takes the server a moment to serve what was defined.
    while api(admin, &first).patch("first", &parameters, &patch).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let has =
        |name: &'static str| move |it: &Followed| it.get(Kind::VirtualService, "default", name).is_some();
    followed.until("a VirtualService", has("first")).await;
    let place = "VirtualService/default/first";
    apply(admin, virtual_service("first", json!("none"))).await;
    followed.until("a finding", |it| it.findings.get(place).is_some_and(|it| it.len() == 1)).await;
    assert_eq!(followed.findings[place][0].field, "spec.http");
    assert!(has("first")(followed), "the last good form stays");
    apply(admin, virtual_service("second", json!([]))).await;
    followed.until("another VirtualService", has("second")).await;
    apply(admin, virtual_service("first", json!([]))).await;
    followed.until("no finding", |it| it.findings[place].is_empty()).await;
    definitions.delete("virtualservices.networking.istio.io", &DeleteParams::default()).await.unwrap();
    followed.until("their end", |it| !has("first")(it) && !has("second")(it)).await;
}
