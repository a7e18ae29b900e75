//! Nothing is sent that Envoy warns of: a line in its log for each, and a field that some later Envoy refuses.

use std::collections::BTreeSet;

use super::bootstrap::{MAX_CONNECTIONS, NODE_CLUSTER, Options, bootstrap};
use super::golden_tests::{compiled, inputs};
use crate::descriptors::{deprecated_fields, from_json};
use crate::xds::TypeUrl;

/// What has no replacement that does the same.
const KNOWN: &[&str] = &[
    // `route_effects::grpc_timeout` says why; Istio sends it for the same reason.
    "envoy.config.route.v3.RouteAction.max_grpc_timeout",
];

#[test]
fn no_resource_has_a_deprecated_field() {
    let mut found = BTreeSet::new();
    for input in inputs() {
        let snapshot = compiled(&input).snapshot;
        for resource in TypeUrl::ALL.into_iter().flat_map(|type_url| snapshot.iter(type_url)) {
            found.append(&mut deprecated_fields(resource.type_url().as_str(), resource.body()));
        }
    }
    assert_eq!(found, KNOWN.iter().copied().map(str::to_owned).collect());
}

#[test]
fn no_bootstrap_has_a_deprecated_field() {
    const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
    for host in ["10.0.0.1", "chancery.svc"] {
        let made = bootstrap(&Options {
            node_id: "edge-0".into(),
            node_cluster: NODE_CLUSTER.into(),
            xds: (host.into(), 18000),
            admin: ([127, 0, 0, 1], 9901).into(),
            memory_limit: Some(1 << 30),
            max_connections: MAX_CONNECTIONS,
            tls: None,
        });
        let bytes = from_json(BOOTSTRAP, &made.unwrap()).unwrap();
        assert_eq!(deprecated_fields(BOOTSTRAP, &bytes), BTreeSet::new());
    }
}
