#![allow(clippy::disallowed_methods, reason = "a test's tasks end with it")]

use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, CustomResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::compile::Compiler;
use crate::crd::rate_limit_policy::RateLimitPolicy;
use crate::model::Certificate;
use crate::settings::Settings;
use crate::source::kubernetes::api_server::{ApiServer, api, apply, assets};
use crate::source::kubernetes::follow;

/// Long enough for the slowest machine: nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(120);

/// Follows the API server as the pipeline does.
fn publish(client: Client) -> watch::Receiver<Arc<Published>> {
    let (sender, mut inbox) = mpsc::channel(64);
    let (published, seen) = watch::channel(Arc::default());
    tokio::spawn(follow(client, Vec::new(), Settings::default().config_map, sender));
    tokio::spawn(async move {
        let certificate = Certificate { chain: Vec::new(), private_key: Vec::new() };
        let mut compiler = Compiler::new(Settings::default(), certificate).unwrap();
        while let Some(changes) = inbox.recv().await {
            published.send_replace(Arc::new(compiler.apply(changes).clone()));
        }
    });
    seen
}

/// One that writes.
struct Replica {
    task: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl Replica {
    fn start(client: Client, options: &KubernetesOptions, seen: watch::Receiver<Arc<Published>>) -> Self {
        let (end, ended) = oneshot::channel();
        let ended = async { drop(ended.await) };
        Self { task: tokio::spawn(run(client, options.clone(), seen, ended)), end }
    }

    async fn end(self) {
        self.end.send(()).unwrap();
        timeout(PATIENCE, self.task).await.expect("it ends").unwrap();
    }

    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

fn ingress(name: &str, class: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "ingressClassName": class,
            "rules": [{"host": format!("{name}.example")}],
        },
    })
}

fn class(name: &str, controller: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name},
        "spec": {"controller": controller},
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "edge", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    })
}

/// As strict about a status as Istio's own definition.
fn definition() -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let text = json!({"type": "string"});
    let status = json!({"type": "object", "properties": {
        "observedGeneration": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true},
        "conditions": {"type": "array", "items": {"type": "object", "properties": {
            "type": text, "status": text, "reason": text, "message": text,
            "lastProbeTime": {"type": "string", "format": "date-time"},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
        }}},
        "validationMessages": {"type": "array", "items": {"type": "object", "properties": {
            "documentationUrl": text,
            "level": {"type": "string", "enum": ["UNKNOWN", "ERROR", "WARNING", "INFO"]},
            "type": {"type": "object", "properties": {"code": text, "name": text}},
        }}},
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "virtualservices.networking.istio.io"},
        "spec": {
            "group": "networking.istio.io", "scope": "Namespaced",
            "names": {"kind": "VirtualService", "plural": "virtualservices", "singular": "virtualservice"},
            "versions": [{
                "name": "v1beta1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": any, "status": status}}},
            }],
        },
    })
}

fn virtual_service(http: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": "vs", "namespace": "default"},
        "spec": {"hosts": ["vs.example"], "gateways": ["gateway"], "http": http},
    })
}

async fn read(client: &Client, value: &Value) -> Value {
    let name = value["metadata"]["name"].as_str().unwrap();
    serde_json::to_value(api(client, value).get(name).await.unwrap()).unwrap()
}

/// Waits until the object's status is as it should be.
async fn until(client: &Client, object: &Value, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let seen = timeout(PATIENCE, async {
        loop {
            last = read(client, object).await["status"].take();
            if holds(&last) {
                return last.clone();
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    match seen.await {
        Ok(status) => status,
        Err(_) => panic!("{what} does not come: {last}"),
    }
}

fn shows(status: &Value, address: &str) -> bool {
    let addresses = status["loadBalancer"]["ingress"].as_array();
    addresses.is_some_and(|all| all.len() == 1 && (all[0]["ip"] == address || all[0]["hostname"] == address))
}

async fn set_status(client: &Client, object: &Value, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    let name = object["metadata"]["name"].as_str().unwrap();
    api(client, object).patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn balance(client: &Client, ip: &str) {
    set_status(client, &service(), json!({"loadBalancer": {"ingress": [{"ip": ip}]}})).await;
}

/// How many requests for the status of Ingresses the server has had.
async fn writes(client: &Client) -> f64 {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let metrics = client.request_text(request).await.unwrap();
    let mine = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"ingresses\"")
            && line.contains("subresource=\"status\"")
            && line.contains("verb=\"APPLY\"")
    });
    mine.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn events(client: &Client, name: &str) -> Vec<Value> {
    let events: Api<DynamicObject> =
        api(client, &json!({"apiVersion": "v1", "kind": "Event", "metadata": {"namespace": "default"}}));
    let of = ListParams::default().fields(&format!("involvedObject.name={name}"));
    events.list(&of).await.unwrap().items.into_iter().map(|event| event.data).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server() {
    let Some(assets) = assets() else {
        println!("SKIPPED: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver");
        return;
    };
    let server = ApiServer::start(&assets).await;
    let admin = server.client("admin").await;
    apply(&admin, class("nginx", "k8s.io/ingress-nginx")).await;
    apply(&admin, class("other", "example.com/other")).await;
    apply(&admin, service()).await;
    apply(&admin, ingress("one", "nginx")).await;
    apply(&admin, ingress("theirs", "other")).await;
    let foreign = json!({"loadBalancer": {"ingress": [{"ip": "9.9.9.9"}]}});
    set_status(&admin, &ingress("theirs", "other"), foreign).await;

    let options = KubernetesOptions {
        publish_service: Some(("default".into(), "edge".into())),
        leader_election: true,
        ..KubernetesOptions::default()
    };
    let seen = publish(server.client("admin").await);
    let first = Replica::start(server.client("admin").await, &options, seen.clone());
    balance(&admin, "192.0.2.1").await;
    until(&admin, &ingress("one", "nginx"), "an address", |it| shows(it, "192.0.2.1")).await;
    let second = Replica::start(server.client("admin").await, &options, seen.clone());
    a_thousand(&admin).await;
    what_changes(&admin).await;
    findings(&admin).await;
    policies(&admin).await;

    // The second one goes on after the first was killed, and hands over at once when it ends.
    first.kill().await;
    balance(&admin, "192.0.2.3").await;
    until(&admin, &ingress("one", "nginx"), "another leader", |it| shows(it, "192.0.2.3")).await;
    assert_eq!(events(&admin, "odd").await.len(), 1, "what was told is not told again");
    let third = Replica::start(server.client("admin").await, &options, seen);
    second.end().await;
    balance(&admin, "192.0.2.4").await;
    until(&admin, &ingress("one", "nginx"), "a third leader", |it| shows(it, "192.0.2.4")).await;
    third.end().await;
    assert!(shows(&read(&admin, &ingress("theirs", "other")).await["status"], "9.9.9.9"));
}

/// Each gets its address by one write.
async fn a_thousand(admin: &Client) {
    use futures::stream::{StreamExt as _, iter};
    let before = writes(admin).await;
    let all: Vec<_> = (0..1000).map(|index| ingress(&format!("i{index}"), "nginx")).collect();
    iter(&all).for_each_concurrent(16, |object| apply(admin, object.clone())).await;
    for object in &all {
        until(admin, object, "an address", |it| shows(it, "192.0.2.1")).await;
    }
    assert_eq!(writes(admin).await - before, 1000.0);
    let begun = Instant::now();
    balance(admin, "192.0.2.2").await;
    let ingresses = api(admin, &all[0]);
    let shown = || async {
        let list = ingresses.list(&ListParams::default()).await.unwrap();
        list.items.iter().filter(|it| shows(&it.data["status"], "192.0.2.2")).count()
    };
    while shown().await < 1001 {
        assert!(begun.elapsed() < PATIENCE, "{} of them have the new address", shown().await);
    }
    println!("1,001 addresses changed in {:?}", begun.elapsed());
    assert_eq!(writes(admin).await - before, 2001.0);
}

async fn what_changes(admin: &Client) {
    let one = ingress("one", "nginx");
    // No longer ours, and ours again.
    apply(admin, ingress("one", "other")).await;
    until(admin, &one, "no address", |it| it["loadBalancer"]["ingress"].is_null()).await;
    apply(admin, one.clone()).await;
    until(admin, &one, "an address", |it| shows(it, "192.0.2.2")).await;
    // What others write stays, as long as nothing of ours changes.
    let other = json!({"loadBalancer": {"ingress": [{"ip": "9.9.9.9"}]}});
    set_status(admin, &ingress("i1", "nginx"), other).await;
    apply(admin, ingress("two", "nginx")).await;
    until(admin, &ingress("two", "nginx"), "an address", |it| shows(it, "192.0.2.2")).await;
    assert!(shows(&read(admin, &ingress("i1", "nginx")).await["status"], "9.9.9.9"));
}

async fn findings(admin: &Client) {
    let mut odd = ingress("odd", "nginx");
    odd["metadata"]["annotations"] = json!({"nginx.ingress.kubernetes.io/no-such-thing": "1"});
    apply(admin, odd.clone()).await;
    until(admin, &odd, "an address", |it| shows(it, "192.0.2.2")).await;
    let uid = read(admin, &odd).await["metadata"]["uid"].clone();
    let told = timeout(PATIENCE, async {
        while events(admin, "odd").await.is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
        events(admin, "odd").await
    });
    let told = told.await.expect("an Event comes");
    assert_eq!((told.len(), &told[0]["count"], &told[0]["type"]), (1, &json!(1), &json!("Warning")));
    assert_eq!(told[0]["involvedObject"]["uid"], uid);

    let good = json!([{"directResponse": {"status": 200}}]);
    apply(admin, definition()).await;
    let patch = virtual_service(json!([{}]));
    apply_once_served(admin, &patch).await;
    let condition = |it: &Value| it["conditions"][0]["status"].clone();
    let status = until(admin, &patch, "a failure", |it| condition(it) == "False").await;
    assert_eq!(status["validationMessages"][0]["level"], "ERROR");
    assert_eq!(status["observedGeneration"], 1);
    let message = status["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("spec.http[0]: "), "{message}");
    apply(admin, virtual_service(good)).await;
    let status = until(admin, &patch, "success", |it| condition(it) == "True").await;
    assert_eq!(status["observedGeneration"], 2);
}

/// It takes the server a moment to serve what was defined.
async fn apply_once_served(admin: &Client, object: &Value) {
    let (name, parameters) =
        (object["metadata"]["name"].as_str().unwrap(), PatchParams::apply("test").force());
    while api(admin, object).patch(name, &parameters, &Patch::Apply(object)).await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Accepted or why not, in the shape that the definition of our own holds the server to.
async fn policies(admin: &Client) {
    let policy = |target: &str, window: &str| {
        json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "RateLimitPolicy",
            "metadata": {"name": "quota", "namespace": "default"},
            "spec": {
                "targetRef": {"kind": "Ingress", "name": target},
                "limits": [{"key": {"clientAddress": true}, "requests": 5, "window": window}],
            },
        })
    };
    let of = |it: &Value, field: &str| it["conditions"][0][field].clone();
    apply(admin, serde_json::to_value(RateLimitPolicy::crd()).unwrap()).await;
    apply_once_served(admin, &policy("absent", "1m")).await;
    let object = policy("absent", "1m");
    let status = until(admin, &object, "a status", |it| of(it, "reason") == "TargetNotFound").await;
    assert_eq!((of(&status, "type"), of(&status, "status")), (json!("Accepted"), json!("False")));
    for (generation, target, window, holds, reason) in [
        (2, "one", "1m", "True", "Accepted"),
        (3, "one", "1000d", "False", "Invalid"),
        (4, "theirs", "1m", "False", "Invalid"),
        (5, "one", "1h", "True", "Accepted"),
    ] {
        apply(admin, policy(target, window)).await;
        let status = until(admin, &object, reason, |it| it["observedGeneration"] == generation).await;
        assert_eq!((of(&status, "status"), of(&status, "reason")), (json!(holds), json!(reason)));
        assert_eq!(of(&status, "observedGeneration"), generation);
    }
}
