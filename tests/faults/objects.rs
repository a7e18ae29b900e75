//! The objects that these tests apply.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::tools::run;

/// The namespace of the Lease, which a kubeconfig of these tests names.
pub(crate) fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "chancery-system"}})
}

/// An Ingress that sends clients of a host to a place: one sees from outside which form of it is served.
pub(crate) fn ingress(name: &str, host: &str, place: &str) -> Value {
    let service = json!({"name": "none", "port": {"number": 80}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": service}});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {
            "name": name, "namespace": "default",
            "annotations": {"nginx.ingress.kubernetes.io/rewrite-target": format!("http://{place}/")},
        },
        "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": [path]}}]},
    })
}

/// What such a host answers.
pub(crate) fn sent_to(place: &str) -> String {
    format!("302 http://{place}/")
}

/// Applies objects, all by one command.
pub(crate) fn apply(cluster: &Cluster, objects: &[Value]) {
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
}

/// Deletes Ingresses, all by one command.
pub(crate) fn delete(cluster: &Cluster, names: &[&str]) {
    run(cluster.kubectl().args(["delete", "ingress", "--namespace=default"]).args(names), "");
}
