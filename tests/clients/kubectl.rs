//! kubectl, from the first command for a model to the last.

use serde_json::json;

use crate::cluster::process::until;
use crate::cluster::tools::run;
use crate::models::{self, PORT};
use crate::world::{PUBLISHED, World};

const NAMESPACE: &str = "--namespace=models";

/// What is created, under which name and for whom.
const RULE: &str = "--rule=models.example/sentiment*";

pub(crate) fn test() {
    let world = World::start();
    world.kubectl(&["create", "namespace", "models"]);
    for (name, address) in [("sentiment-v1", "198.18.10.1"), ("sentiment-v2", "198.18.10.2")] {
        models::serve(name, address);
        publish(&world, name, address);
    }
    creates(&world);
    shows_where_it_is_reached(&world);
    patches(&world);
    annotates(&world);
    shifts_a_canary(&world);
    describes_what_is_wrong(&world);
    limits(&world);
    deletes(&world);
}

/// A Service by kubectl, and the EndpointSlice that a controller would make of it.
fn publish(world: &World, name: &str, address: &str) {
    world.kubectl(&["create", "service", "clusterip", name, &format!("--tcp=80:{PORT}"), NAMESPACE]);
    apply(
        world,
        &json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "models", "labels": {"kubernetes.io/service-name": name}},
            // As kubectl names the Service's.
            "ports": [{"name": format!("80-{PORT}"), "port": PORT}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        }),
    );
}

/// As `kubectl apply -f` without more does, which keeps what it applied in an annotation.
fn apply(world: &World, object: &serde_json::Value) {
    run(world.cluster.kubectl().args(["apply", "-f", "-"]), &object.to_string());
}

fn until_answered(world: &World, by: &str) {
    until(by, || (world.answer("models.example", "/sentiment/x", "") == by).then_some(()));
}

/// The words of the last line of a table.
fn last_row(table: &str) -> Vec<&str> {
    table.lines().last().unwrap_or_default().split_whitespace().collect()
}

fn creates(world: &World) {
    until_answered(world, "404");
    let rule = format!("{RULE}=sentiment-v1:80");
    world.kubectl(&["create", "ingress", "sentiment", "--class=nginx", &rule, NAMESPACE]);
    until_answered(world, "200 sentiment-v1");
}

fn shows_where_it_is_reached(world: &World) {
    let address = format!("--for=jsonpath={{.status.loadBalancer.ingress[0].ip}}={PUBLISHED}");
    world.kubectl(&["wait", "ingress/sentiment", &address, "--timeout=60s", NAMESPACE]);
    let table = world.kubectl(&["get", "ingress", NAMESPACE]);
    assert_eq!(last_row(&table)[..5], ["sentiment", "nginx", "models.example", PUBLISHED, "80"], "{table}");
}

fn patches(world: &World) {
    let patch = |kind: &str, patch: serde_json::Value| {
        world.kubectl(&["patch", "ingress", "sentiment", kind, "-p", &patch.to_string(), NAMESPACE]);
    };
    let service = "/spec/rules/0/http/paths/0/backend/service/name";
    patch("--type=json", json!([{"op": "replace", "path": service, "value": "sentiment-v2"}]));
    until_answered(world, "200 sentiment-v2");
    patch("--type=merge", json!({"spec": {"ingressClassName": "other"}}));
    until_answered(world, "404");
    until("what became of it", || described(world, "IngressClassNotFound"));
    patch("--type=strategic", json!({"spec": {"ingressClassName": "nginx"}}));
    until_answered(world, "200 sentiment-v2");
}

fn annotate(world: &World, ingress: &str, annotation: &str) {
    let annotation = format!("nginx.ingress.kubernetes.io/{annotation}");
    world.kubectl(&["annotate", "--overwrite", "ingress", ingress, &annotation, NAMESPACE]);
}

fn annotates(world: &World) {
    annotate(world, "sentiment", "rewrite-target=https://elsewhere.example/");
    until_answered(world, "302");
    annotate(world, "sentiment", "rewrite-target-");
    until_answered(world, "200 sentiment-v2");
}

fn shifts_a_canary(world: &World) {
    let rule = format!("{RULE}=sentiment-v1:80");
    let canary = "--annotation=nginx.ingress.kubernetes.io/canary=true";
    world.kubectl(&["create", "ingress", "canary", "--class=nginx", &rule, canary, NAMESPACE]);
    annotate(world, "canary", "canary-weight=100");
    until_answered(world, "200 sentiment-v1");
    annotate(world, "canary", "canary-weight=0");
    until_answered(world, "200 sentiment-v2");
    world.kubectl(&["delete", "ingress", "canary", NAMESPACE]);
}

/// The Event of a finding, where people look for it.
fn described(world: &World, what: &str) -> Option<String> {
    let description = world.kubectl(&["describe", "ingress", "sentiment", NAMESPACE]);
    let is_it = |line: &&str| line.trim_start().starts_with("Warning") && line.contains(what);
    description.lines().find(is_it).map(str::to_owned)
}

fn describes_what_is_wrong(world: &World) {
    let description = world.kubectl(&["describe", "ingress", "sentiment", NAMESPACE]);
    assert!(description.contains(&format!("sentiment-v2:80 (198.18.10.2:{PORT})")), "{description}");
    assert_eq!(described(world, "proxy-read-timeout"), None);
    annotate(world, "sentiment", "proxy-read-timeout=soon");
    let event = until("an Event in the description", || described(world, "proxy-read-timeout"));
    assert!(event.contains("chancery"), "{event}");
    assert_eq!(world.answer("models.example", "/sentiment", ""), "200 sentiment-v2", "the rest is served");
}

fn limits(world: &World) {
    apply(
        world,
        &json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "RateLimitPolicy",
            "metadata": {"name": "quota", "namespace": "models"},
            "spec": {
                "targetRef": {"kind": "Ingress", "name": "sentiment"},
                "limits": [{"key": {"header": "x-api-key"}, "requests": 1, "window": "1h"}],
            },
        }),
    );
    until_answered(world, "401");
    let mine = || world.answer("models.example", "/sentiment", "x-api-key: mine\r\n");
    assert_eq!([mine(), mine()], ["200 sentiment-v2", "429"]);
    let accepted = "--for=condition=Accepted";
    world.kubectl(&["wait", "ratelimitpolicy/quota", accepted, "--timeout=60s", NAMESPACE]);
    let table = world.kubectl(&["get", "ratelimitpolicies", NAMESPACE]);
    let row = ["quota", "Ingress", "sentiment", "1", "1h", "True"];
    assert_eq!(last_row(&table)[..6], row, "{table}");
    let explained = world.kubectl(&["explain", "ratelimitpolicy.spec.limits"]);
    assert!(explained.contains("window"), "{explained}");
    world.kubectl(&["delete", "ratelimitpolicy", "quota", NAMESPACE]);
    until_answered(world, "200 sentiment-v2");
}

fn deletes(world: &World) {
    world.kubectl(&["delete", "ingress", "--all", NAMESPACE]);
    until_answered(world, "404");
    assert_eq!(world.kubectl(&["get", "ingress", "--output=name", NAMESPACE]), "");
}
