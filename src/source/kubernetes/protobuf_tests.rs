//! Both forms of an object, as a real API server says them, are read to the same.

use std::future::ready;

use futures::TryStreamExt;
use kube::api::WatchParams;
use kube::core::WatchEvent;

use super::*;
use crate::source::read::{NOISE, read};

/// Metadata with all that a client may set.
fn metadata(name: &str) -> Value {
    json!({
        "name": name, "namespace": "default", "generateName": "n-",
        "labels": {"a": "b", "empty": ""},
        "annotations": {"c": "d", "empty": "", NOISE[0]: "{}", NOISE[1]: "now"},
        "finalizers": ["example.com/one", "example.com/two"],
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1",
                "controller": true, "blockOwnerDeletion": false},
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "y", "uid": "2"},
        ],
    })
}

/// Metadata with nothing that matters.
fn bare(name: &str) -> Value {
    json!({"name": name, "namespace": "default", "annotations": {NOISE[0]: "{}"}})
}

/// Objects with every field, and with as few as may be.
fn objects() -> Vec<Value> {
    [ingresses(), ingress_classes(), services(), endpoint_slices(), secrets_and_config_map()].concat()
}

fn ingresses() -> Vec<Value> {
    let ingress = |metadata, spec: Value| {
        let api = "networking.k8s.io/v1";
        json!({"apiVersion": api, "kind": "Ingress", "metadata": metadata, "spec": spec})
    };
    let resource = json!({"resource": {"apiGroup": "example.com", "kind": "Bucket", "name": "b"}});
    let to = |port| json!({"service": {"name": "s", "port": port}});
    vec![
        ingress(
            metadata("full"),
            json!({
                "ingressClassName": "full",
                "defaultBackend": to(json!({"number": 80})),
                "tls": [{"hosts": ["a.example", "b.example"], "secretName": "cert"}, {"hosts": ["c.example"]}, {}],
                "rules": [
                    {"host": "a.example", "http": {"paths": [
                        {"path": "/", "pathType": "Prefix", "backend": to(json!({"number": 80}))},
                        {"path": "/named", "pathType": "Exact", "backend": to(json!({"name": "http"}))},
                        {"path": "/resource", "pathType": "ImplementationSpecific", "backend": resource},
                    ]}},
                    {"http": {"paths": [{"pathType": "ImplementationSpecific", "backend": to(json!({"number": 81}))}]}},
                    {"host": "b.example"},
                ],
            }),
        ),
        ingress(bare("bare"), json!({"defaultBackend": {"resource": {"kind": "ConfigMap", "name": "b"}}})),
    ]
}

fn ingress_classes() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "full"},
            "spec": {"controller": "example.com/c", "parameters":
                {"apiGroup": "example.com", "kind": "P", "name": "p", "scope": "Namespace", "namespace": "default"}},
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "cluster"},
            "spec": {"controller": "example.com/c", "parameters": {"kind": "P", "name": "p", "scope": "Cluster"}},
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "bare"},
            "spec": {"controller": "example.com/c"},
        }),
    ]
}

fn services() -> Vec<Value> {
    let service = |metadata, spec: Value| {
        let version = "v1";
        json!({"apiVersion": version, "kind": "Service", "metadata": metadata, "spec": spec})
    };
    vec![
        service(
            metadata("full"),
            json!({
                "type": "LoadBalancer", "selector": {"app": "a"}, "clusterIP": "10.0.0.10", "clusterIPs": ["10.0.0.10"],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "externalIPs": ["192.0.2.1", "192.0.2.2"],
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}},
                "loadBalancerIP": "192.0.2.3", "loadBalancerSourceRanges": ["192.0.2.0/24"],
                "loadBalancerClass": "example.com/l", "allocateLoadBalancerNodePorts": false,
                "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local", "healthCheckNodePort": 30001,
                "publishNotReadyAddresses": true, "trafficDistribution": "PreferClose",
                "ports": [
                    {"name": "named", "port": 80, "targetPort": "http", "protocol": "TCP",
                        "appProtocol": "http", "nodePort": 30002},
                    {"name": "numbered", "port": 81, "targetPort": 8081, "protocol": "UDP"},
                    {"name": "plain", "port": 82},
                ],
            }),
        ),
        service(bare("bare"), json!({"type": "ExternalName", "externalName": "a.example"})),
        service(bare("headless"), json!({"clusterIP": "None"})),
    ]
}

fn endpoint_slices() -> Vec<Value> {
    let slice = |metadata, endpoints: Value, ports: Value| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
        })
    };
    vec![
        slice(
            metadata("full"),
            json!([
                {
                    "addresses": ["10.1.0.1"], "hostname": "h", "nodeName": "n", "zone": "z",
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "targetRef": {"kind": "Pod", "name": "p", "namespace": "default", "uid": "3"},
                    "deprecatedTopology": {"a": "b"},
                    "hints": {"forZones": [{"name": "z"}], "forNodes": [{"name": "n"}]},
                },
                {"addresses": ["10.1.0.2"], "conditions": {"ready": false}, "hints": {}},
                {"addresses": ["10.1.0.3"]},
            ]),
            json!([{"name": "http", "protocol": "UDP", "port": 8080, "appProtocol": "http"}, {"name": ""}]),
        ),
        slice(bare("bare"), json!([]), json!([])),
    ]
}

fn secrets_and_config_map() -> Vec<Value> {
    let secret = |metadata, kind: &str, data: Value| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata,
            "type": kind, "data": data, "immutable": true,
        })
    };
    vec![
        secret(
            metadata("cert"),
            "kubernetes.io/tls",
            json!({"tls.crt": "YQ==", "tls.key": "Yg==", "ca.crt": "", "other": "Yw=="}),
        ),
        secret(metadata("keys"), "Opaque", json!({"keys": "YQpi", "empty": ""})),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": bare("bare")}),
        // The one that is followed.
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "globals", "namespace": "edge"},
            "data": {"a": "b", "empty": ""}, "binaryData": {"c": "/w==", "none": ""}, "immutable": false,
        }),
    ]
}

fn status() -> Value {
    json!({"status": {
        "loadBalancer": {"ingress": [
            {"ip": "192.0.2.9", "ipMode": "Proxy",
                "ports": [{"port": 80, "protocol": "TCP", "error": "Bad"}, {"port": 81, "protocol": "TCP"}]},
            {"hostname": "lb.example"},
        ]},
        "conditions": [
            {"type": "A", "status": "True", "reason": "R", "message": "m", "observedGeneration": 3,
                "lastTransitionTime": "2026-01-02T03:04:05Z"},
            {"type": "B", "status": "False", "reason": "R", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"},
        ],
    }})
}

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_are_read_to_the_same() {
    let Some(assets) = assets() else {
        println!("SKIPPED: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver");
        return;
    };
    let server = ApiServer::start(&assets).await;
    let admin = server.client("admin").await;
    apply(&admin, namespace("edge")).await;
    let objects = objects();
    for value in &objects {
        let object = serde_json::from_value(value.clone()).unwrap();
        api(&admin, value).create(&PostParams::default(), &object).await.unwrap();
    }
    let full = objects.iter().find(|it| it["kind"] == "Service").unwrap();
    let patch = Patch::Merge(status());
    api(&admin, full).patch_status("full", &PatchParams::default(), &patch).await.unwrap();
    // It has a finalizer: it stays, and says since when it goes.
    delete(&admin, full.clone()).await;

    let mut followed = Followed::start(admin.clone(), &[]);
    followed.until("ready", |it| it.ready).await;
    for value in objects {
        let watched = WATCHED.iter().find(|watched| watched.kind.as_str() == value["kind"]).unwrap();
        let name = value["metadata"]["name"].as_str().unwrap();
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
        let said = api(&admin, &value).get(name).await.unwrap();
        let expected = read(watched, serde_json::to_value(&said).unwrap(), None).unwrap();
        let found = followed.get(watched.kind, namespace, name);
        assert_eq!(found, Some(&expected), "{} {name}", watched.kind);
    }
    come_as_protobuf(&admin).await;
}

/// Every kind that has that form comes in it.
async fn come_as_protobuf(admin: &Client) {
    let client = wire::client(admin.clone());
    for watched in WATCHED.iter().filter(|watched| watched.protobuf.is_some()) {
        let api: Api<Raw> = Api::all_with(client.clone(), &watched.resource(watched.versions[0]));
        let events = api.watch(&WatchParams::default().initial_events(), "0").await.unwrap();
        let objects = events.try_take_while(|event| ready(Ok(!matches!(event, WatchEvent::Bookmark(_)))));
        let objects: Vec<_> = objects.try_collect().await.unwrap();
        assert!(!objects.is_empty(), "{}", watched.kind);
        for event in objects {
            let WatchEvent::Added(raw) = event else { panic!("{event:?}") };
            assert!(raw.is_protobuf(), "{} {raw:?}", watched.kind);
        }
    }
}
