//! Whom a rejection is told.

use super::certificates::{data, make};
use super::wire::changes;
use super::*;
use crate::translate::names;

fn manifests() -> String {
    let ingress = |name: &str, host: &str, secret: &str| {
        format!(
            r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: shop}}
spec:
  ingressClassName: nginx
  tls: [{{hosts: ["{host}"], secretName: {secret}}}]
  rules:
  - host: "{host}"
    http: {{paths: [{{path: /{name}, pathType: Prefix, backend: {{service: {{name: app, port: {{number: 80}}}}}}}}]}}
---"#
        )
    };
    let secret = |name: &str, host: &str| {
        let (certificate, key) = make(&[host]);
        format!(
            r#"
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: shop}}
data: {}
---"#,
            data(&certificate, &key)
        )
    };
    let other = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: other, namespace: shop}
spec:
  ingressClassName: nginx
  defaultBackend: {service: {name: app, port: {number: 80}}}
  rules:
  - host: "a.io"
    http: {paths: [{path: /other, pathType: Prefix, backend: {service: {name: lone, port: {number: 80}}}}]}
  - http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: lone, namespace: shop}
spec: {ports: [{port: 80}]}
---"#;
    [
        ingress("exact", "a.io", "exact"),
        ingress("wild", "*.b.io", "wild"),
        secret("exact", "a.io"),
        secret("wild", "*.b.io"),
        secret("default", "any.io"),
        other.to_owned(),
    ]
    .concat()
}

fn of_rejections(published: &Published) -> Vec<String> {
    let findings = published.findings.values().flat_map(|findings| findings.iter());
    let rejected = findings.filter(|finding| finding.reason == "RejectedByEnvoy");
    rejected.map(|finding| finding.object.to_string()).collect()
}

/// Who is told of a rejection, which is over then.
fn told(compiler: &mut Compiler, type_url: TypeUrl, name: &str) -> Vec<String> {
    let told = of_rejections(compiler.reject([(type_url, name, Some("no such thing"))].into_iter()));
    assert_eq!(of_rejections(compiler.reject([(type_url, name, None)].into_iter())), [""; 0]);
    told
}

#[test]
fn whoever_can_mend_a_rejection_is_told() {
    let settings = Settings {
        default_ssl_certificate: Some(("shop".into(), "default".into())),
        config_map: ("edge".into(), "globals".into()),
        ..Settings::default()
    };
    let mut compiler = compiler(&settings);
    compiler.apply(changes(&manifests()).into_iter().chain([Change::Ready]).collect());
    let cluster = |service: &str| {
        let clusters = compiler.published().snapshot.iter(TypeUrl::Cluster);
        let names: Vec<_> = clusters.map(|cluster| cluster.name().clone()).collect();
        names.into_iter().find(|name| name.starts_with(&format!("shop/{service}/80~"))).unwrap()
    };
    let (app, lone) = (cluster("app"), cluster("lone"));
    let (exact, wild, other) = ("Ingress/shop/exact", "Ingress/shop/wild", "Ingress/shop/other");
    let globals = "ConfigMap/edge/globals";
    for (type_url, name, expected) in [
        (TypeUrl::RouteConfiguration, "a.io", vec![exact, other]),
        (TypeUrl::RouteConfiguration, "a.io/https", vec![exact, other]),
        (TypeUrl::RouteConfiguration, "*.b.io", vec![wild]),
        (TypeUrl::RouteConfiguration, names::ANY_HOST, vec![other]),
        (TypeUrl::ScopedRouteConfiguration, "https/*.b.io", vec![wild]),
        (TypeUrl::Cluster, &app, vec![exact, other, wild]),
        (TypeUrl::Cluster, &lone, vec![other]),
        (TypeUrl::ClusterLoadAssignment, &lone, vec!["Service/shop/lone"]),
        (TypeUrl::Secret, "a.io", vec![exact, "Secret/shop/exact"]),
        (TypeUrl::Secret, "some.b.io", vec![wild, "Secret/shop/wild"]),
        (TypeUrl::Secret, "unknown.io", vec!["Secret/shop/default"]),
        (TypeUrl::Listener, names::HTTP, vec![globals]),
        (TypeUrl::TypedExtensionConfig, names::FALLBACK, vec![globals]),
        (TypeUrl::Cluster, names::RATE_LIMIT_CLUSTER, vec![globals]),
        (TypeUrl::RouteConfiguration, "gone.io", vec![globals]),
    ] {
        assert_eq!(told(&mut compiler, type_url, name), expected, "{type_url} {name}");
    }
}

/// What is said of one rejection stays until that one is over, whatever is said of others.
#[test]
fn a_rejection_leaves_others_alone() {
    let mut compiler = compiler(&Settings::default());
    compiler.apply(changes(&manifests()).into_iter().chain([Change::Ready]).collect());
    let routes = |name, message| (TypeUrl::RouteConfiguration, name, message);
    let (exact, wild, other) = ("Ingress/shop/exact", "Ingress/shop/wild", "Ingress/shop/other");
    for (changed, expected) in [
        (routes("a.io", Some("one")), vec![exact, other]),
        (routes("*.b.io", Some("two")), vec![exact, other, wild]),
        (routes("*.b.io", Some("three")), vec![exact, other, wild]),
        (routes("none.io", None), vec![exact, other, wild]),
        (routes("a.io", None), vec![wild]),
        (routes("*.b.io", None), vec![]),
    ] {
        assert_eq!(of_rejections(compiler.reject([changed].into_iter())), expected, "{changed:?}");
    }
}
