//! Certificates: one body for each Secret, however many hosts it serves.

use super::certificates::{data, make};
use super::wire::changes;
use super::*;
use crate::values::ObjectKey;

fn ingress(name: &str, secret: &str) -> String {
    format!(
        r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: shop}}
spec:
  ingressClassName: nginx
  tls: [{{hosts: [{name}.x.io], secretName: {secret}}}]
  rules:
  - host: {name}.x.io
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: app, port: {{number: 80}}}}}}}}]}}
---"#
    )
}

/// A Secret with a certificate for all of the hosts, another one each time.
fn secret(name: &str) -> String {
    let (certificate, key) = make(&["*.x.io"]);
    format!(
        r#"
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: shop}}
data: {}
---"#,
        data(&certificate, &key)
    )
}

fn secret_of(compiler: &Compiler, host: &str) -> Arc<Resource> {
    compiler.published().snapshot.get(TypeUrl::Secret, host).unwrap_or_else(|| panic!("no {host}")).clone()
}

#[test]
fn hosts_of_one_secret_share_its_body() {
    let mut compiler = compiler(&Settings::default());
    let hosts = ["a", "b", "c"].map(|name| ingress(name, "all"));
    compiler.apply(changes(&(hosts.concat() + &secret("all"))).into_iter().chain([Change::Ready]).collect());
    let first = secret_of(&compiler, "a.x.io");
    let is_shared = |compiler: &Compiler, hosts: &[&str]| {
        let bodies: Vec<_> = hosts.iter().map(|host| secret_of(compiler, host).body().as_ptr()).collect();
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{hosts:?}");
    };
    is_shared(&compiler, &["a.x.io", "b.x.io", "c.x.io"]);

    compiler.apply(changes(&secret("all")));
    assert_ne!(secret_of(&compiler, "a.x.io").body(), first.body());
    is_shared(&compiler, &["a.x.io", "b.x.io", "c.x.io"]);

    // One moves to another Secret, one goes, one more comes.
    compiler.apply(changes(&(ingress("b", "other") + &secret("other") + &ingress("d", "all"))));
    compiler.apply(vec![Change::Deleted(ObjectKey::new(Kind::Ingress, "shop", "c"))]);
    is_shared(&compiler, &["a.x.io", "d.x.io"]);
    assert_ne!(secret_of(&compiler, "b.x.io").body(), secret_of(&compiler, "a.x.io").body());
    assert!(compiler.published().snapshot.get(TypeUrl::Secret, "c.x.io").is_none());

    // And nothing of a Secret is kept that no host refers to.
    let keys = ["a", "b", "d"].map(|name| Change::Deleted(ObjectKey::new(Kind::Ingress, "shop", name)));
    compiler.apply(keys.into());
    assert!(compiler.compiled.references.secrets.is_empty());
}
