//! The objects that the benches work with: N Ingresses of one host and six paths each, over shared Services.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

pub(crate) const PATHS: [&str; 6] = ["/a", "/b", "/c", "/d", "/e", "/f"];

pub(crate) const NAMESPACE: &str = "bench";

pub(crate) fn host_name(host: usize) -> String {
    format!("h{host:05}.bench.example")
}

/// The Service of a host's path, before any edit.
pub(crate) fn service_of(host: usize, path: usize, services: usize) -> usize {
    (host * PATHS.len() + path) % services
}

/// An Ingress whose first path goes to a Service of its own choice.
pub(crate) fn ingress(host: usize, first: usize, services: usize) -> Value {
    let paths = PATHS.iter().enumerate().map(|(index, path)| {
        let service = if index == 0 { first } else { service_of(host, index, services) };
        json!({"path": path, "pathType": "Prefix",
               "backend": {"service": {"name": service_name(service), "port": {"number": 80}}}})
    });
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": format!("h{host:05}"), "namespace": NAMESPACE},
        "spec": {"ingressClassName": "nginx",
                 "rules": [{"host": host_name(host), "http": {"paths": paths.collect::<Vec<_>>()}}]},
    })
}

pub(crate) fn service(service: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service_name(service), "namespace": NAMESPACE},
        "spec": {"selector": {"app": service_name(service)},
                 "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}

/// The only EndpointSlice of a Service.
pub(crate) fn endpoint_slice(service: usize, address: Ipv4Addr, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": format!("{}-x", service_name(service)), "namespace": NAMESPACE,
                     "labels": {"kubernetes.io/service-name": service_name(service)}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    })
}

pub(crate) fn service_name(service: usize) -> String {
    format!("model-{service:05}")
}

/// xorshift: the same choices in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }
}
