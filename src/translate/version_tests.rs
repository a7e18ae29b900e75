//! The versions of a small input are what they have always been. An Envoy that comes back after an upgrade is sent anew
//! whatever has another version, and one that is between replicas of two releases is sent it to and fro. So when these
//! change, it should be because what is sent has changed: write the new ones down, and say so in the changelog.

use crate::compile::Compiler;
use crate::model::Certificate;
use crate::settings::Settings;
use crate::source::files::{self, Content, Item};
use crate::store::Change;
use crate::values::hash;
use crate::xds::TypeUrl;

const MANIFESTS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: app, namespace: shop}
spec:
  ingressClassName: nginx
  rules:
  - host: a.io
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: app, namespace: shop, labels: {kubernetes.io/service-name: app}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]
"#;

/// Listeners depend on settings alone, and change with every release that adds a filter.
const PINNED: &str = "\
0d3f04d7b71ea9ce ClusterLoadAssignment shop/app/80~e67abf5325dee21f
10ce9b27fb54e0c2 Cluster shop/app/80~e67abf5325dee21f
b7f02b474bc5003c Secret *
052dae31c5adacb3 TypedExtensionConfig fallback
dce0317317fceba0 RouteConfiguration a.io
6d3c3be238798305 ScopedRouteConfiguration http/a.io
46b2f3e0abb9d180 ScopedRouteConfiguration https/a.io
";

#[test]
fn versions_are_what_they_were() {
    let parsed = files::parse("all.yaml", MANIFESTS.as_bytes(), &[]);
    let items = parsed.documents.into_iter().flat_map(|document| match document.content {
        Content::Read(items, _) => items,
        other => panic!("{other:?}"),
    });
    let changes = items.map(|item| match item {
        Item::Applied(applied) => Change::Applied(applied),
        Item::Broken(key) => panic!("{key} is broken"),
    });
    let certificate = Certificate { chain: b"chain".to_vec(), private_key: b"key".to_vec() };
    let mut compiler = Compiler::new(Settings::default(), certificate).unwrap();
    let snapshot = &compiler.apply(changes.chain([Change::Ready]).collect()).snapshot;
    let mut versions = String::new();
    for resource in TypeUrl::ALL.into_iter().flat_map(|type_url| snapshot.iter(type_url)) {
        if resource.type_url() != TypeUrl::Listener {
            let (type_url, name, version) = (resource.type_url(), resource.name(), resource.version());
            versions += &format!("{version} {type_url} {name}\n");
        }
    }
    assert_eq!(versions, PINNED, "\n{versions}");
}

/// What they are made of: how the standard library feeds a hash, and the hash itself.
#[test]
fn hashes_are_what_they_were() {
    assert_eq!(hash::stable(&()), 0x2d06_8005_38d3_94c2);
    assert_eq!(hash::stable(&("a", 1_u32, Some(vec![2_u8]), [true, false])), 0x7d5dbea45a84224a);
}
