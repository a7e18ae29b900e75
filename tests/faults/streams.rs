//! Watches that break, hang and are slow, and what is large or comes late.

use std::time::Duration;

use serde_json::json;

use crate::cluster::process::until;
use crate::cluster::tools::run;
use crate::objects::{apply, delete, ingress, sent_to};
use crate::programs::{Edge, Replica};
use crate::proxy::Fault;
use crate::world::World;

/// The most that the data of a Secret or a ConfigMap may come to.
const MEBIBYTE: usize = 1 << 20;

/// The kinds that a control plane reads.
const KINDS: usize = 9;

#[test]
fn watches_break_and_are_slow() {
    let world = World::start(&[ingress("kept", "kept.example", "one")]);
    torn(&world);
    slow(&world);
    large(&world);
    defined_later(&world);
}

/// Whatever connection it goes over, each ends somewhere; all that happens arrives.
fn torn(world: &World) {
    const OBJECTS: usize = 8;
    const ROUNDS: usize = 10;
    let name = |index: usize| format!("torn-{index}");
    world.proxy.fault(Fault::Torn(40_000));
    world.proxy.cut();
    for round in 0..ROUNDS {
        let place = format!("round-{round}");
        let all: Vec<_> =
            (0..OBJECTS).map(|i| ingress(&name(i), &format!("{}.example", name(i)), &place)).collect();
        apply(&world.cluster, &all);
        delete(&world.cluster, &[&name(round % OBJECTS)]);
        world.proxy.cut();
    }
    let gone = (ROUNDS - 1) % OBJECTS;
    for index in 0..OBJECTS {
        let answer = if index == gone { "404".to_owned() } else { sent_to(&format!("round-{}", ROUNDS - 1)) };
        world.edge.until(&format!("{}.example", name(index)), &answer);
    }
    world.proxy.fault(Fault::None);
    world.proxy.cut();
}

fn slow(world: &World) {
    world.proxy.fault(Fault::Slow(Duration::from_millis(700)));
    apply(&world.cluster, &[ingress("kept", "kept.example", "two"), ingress("slow", "slow.example", "two")]);
    world.edge.until("slow.example", &sent_to("two"));
    world.edge.until("kept.example", &sent_to("two"));
    world.proxy.fault(Fault::None);
}

/// A Secret and a ConfigMap as large as they may be are read as others are.
fn large(world: &World) {
    let own = rcgen::generate_simple_self_signed(vec!["large.example".to_owned()]).unwrap();
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let filler = "x".repeat(MEBIBYTE - certificate.len() - key.len());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "large", "namespace": "default"},
        "stringData": {"tls.crt": certificate, "tls.key": key, "filler": filler},
    });
    let settings = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "ingress-nginx-controller", "namespace": "ingress-nginx"},
        "data": {"filler": "x".repeat(MEBIBYTE - 30), "proxy-read-timeout": "never"},
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ingress-nginx"}});
    let mut secured = ingress("large", "large.example", "three");
    secured["spec"]["tls"] = json!([{"hosts": ["large.example"], "secretName": "large"}]);
    apply(&world.cluster, &[namespace, secret, settings, secured]);
    until("the certificate", || {
        let dump = world.replica.page("/debug/config_dump?type=Secret");
        let mut secrets = dump["resources"].as_array().unwrap().iter();
        secrets.find(|secret| secret["name"] == "large.example").cloned()
    });
    let about = "/debug/findings?namespace=ingress-nginx&name=ingress-nginx-controller";
    until("the settings", || world.replica.text(about).contains("proxy-read-timeout").then_some(()));
}

/// A definition that comes while the control plane runs is found without a restart, with the objects of its kind.
fn defined_later(world: &World) {
    let install = ["apply", "--server-side", "--filename=manifests/istio-crds"];
    run(world.cluster.kubectl().args(install), "");
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "later", "namespace": "default"},
        "spec": {"hosts": ["later.example"], "http": [{"directResponse": {"status": 204}}]},
    });
    until("the definition", || world.cluster.attempt_to_apply(&object.to_string()).ok());
    world.edge.until("later.example", "204");
}

/// A connection over which nothing comes any more, though nobody has closed it, is given up, be there a watch on it or
/// a list that has not begun.
#[test]
fn connections_fall_silent() {
    let mut world = World::start(&[ingress("kept", "kept.example", "one")]);
    world.edge.until("kept.example", &sent_to("one"));
    world.proxy.fault(Fault::Silent);
    let mut second = Replica::start(&world.cluster, "two", world.proxy.port, Edge::new(), &[]);
    apply(&world.cluster, &[ingress("kept", "kept.example", "two")]);
    until("requests for every kind", || (world.proxy.unanswered() >= KINDS).then_some(()));
    world.proxy.fault(Fault::None);
    world.edge.until("kept.example", &sent_to("two"));
    second.until_ready("sources");
    world.replica.until_ready("sources");
}
