//! Limits on their way to rate limit services.

use super::wire::changes;
use super::*;

fn manifests(rps: u32) -> String {
    format!(
        r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: api
  namespace: shop
  annotations:
    nginx.ingress.kubernetes.io/limit-rps: "{rps}"
    nginx.ingress.kubernetes.io/limit-connections: "3"
spec:
  ingressClassName: nginx
  rules:
  - host: a.io
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: app, port: {{number: 80}}}}}}}}]}}
  - host: b.io
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: app, port: {{number: 80}}}}}}}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: app, namespace: shop}}
spec: {{ports: [{{port: 80}}]}}
"#
    )
}

/// What is said with a reason, by field.
fn said<'p>(published: &'p Published, reason: &str) -> Vec<(&'p str, &'p str)> {
    let findings = published.findings.values().flat_map(|findings| findings.iter());
    let found = findings.filter(|finding| finding.reason == reason);
    found.map(|finding| (finding.field.as_str(), finding.message.as_str())).collect()
}

fn export(published: &Published) -> Option<Version> {
    published.snapshot.get(TypeUrl::RateLimitConfig, "chancery").map(|resource| resource.version())
}

#[test]
fn an_export_follows_and_says_what_is_lost() {
    let settings = Settings { ratelimit_config: true, ..Settings::default() };
    let mut compiler = compiler(&settings);
    let published =
        compiler.apply(changes(&manifests(10)).into_iter().chain([Change::Ready]).collect()).clone();
    let annotation = |name: &str| format!("nginx.ingress.kubernetes.io/{name}");
    let lost = said(&published, "LostInRateLimitConfig");
    let fields: Vec<_> = lost.iter().map(|(field, _)| field.to_string()).collect();
    assert_eq!(fields, [annotation("limit-connections"), annotation("limit-rps")]);
    assert!(lost[1].1.contains("is 10 a second with envoyproxy/ratelimit, without the burst of 50"));
    let first = export(&published).unwrap();

    let again = compiler.apply(changes(&manifests(10)));
    assert_eq!(export(again), Some(first), "nothing changed");
    let changed = compiler.apply(changes(&manifests(11)));
    assert_ne!(export(changed), Some(first));
    assert!(said(changed, "LostInRateLimitConfig")[1].1.contains("is 11 a second"));

    let mut without = super::compiler(&Settings::default());
    let published = without.apply(changes(&manifests(10)).into_iter().chain([Change::Ready]).collect());
    assert_eq!((export(published), said(published, "LostInRateLimitConfig")), (None, vec![]));
}

#[test]
fn a_change_of_a_limit_changes_its_set_alone() {
    let mut compiler = compiler(&Settings::default());
    let before = compiler.apply(changes(&manifests(10)).into_iter().chain([Change::Ready]).collect()).clone();
    assert_eq!(before.snapshot.iter(TypeUrl::LimitSet).count(), 2);
    let after = compiler.apply(changes(&manifests(11)));
    let changed: Vec<_> = after.snapshot.changes_since(before.snapshot.sequence()).unwrap().collect();
    let limits = changed.iter().filter(|(_, type_url, _)| *type_url == TypeUrl::LimitSet);
    let names: Vec<_> = limits.map(|(_, _, name)| &***name).collect();
    assert_eq!(names, ["Ingress/shop/api/limit-rps"]);
    let gone = compiler.apply(vec![Change::Deleted(ObjectKey::new(Kind::Ingress, "shop", "api"))]);
    assert_eq!(gone.snapshot.iter(TypeUrl::LimitSet).count(), 0);
}

#[test]
fn a_rejection_is_told_to_whoever_says_the_limit() {
    let mut compiler = compiler(&Settings::default());
    compiler.apply(changes(&manifests(10)).into_iter().chain([Change::Ready]).collect());
    let rejection = (TypeUrl::LimitSet, "Ingress/shop/api/limit-rps", Some("no such thing"));
    let published = compiler.reject([rejection].into_iter());
    let told = said(published, "RejectedByEnvoy");
    assert_eq!(told.len(), 1);
    assert!(told[0].1.starts_with("the rate limit service rejected what this became"), "{told:?}");
    assert!(published.findings.contains_key(&ObjectKey::new(Kind::Ingress, "shop", "api")));
}
