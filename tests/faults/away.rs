//! An API server that goes away and comes back.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::cluster::process::until;
use crate::objects::{apply, delete, ingress, sent_to};
use crate::programs::start_envoy;
use crate::proxy::Fault;
use crate::world::World;

/// Waits until what is created now is younger than all that was created before: creation is told in seconds.
#[expect(clippy::disallowed_methods, reason = "the API server's clock is this one")]
fn new_second() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let before = now();
    until("a new second", || (now() > before).then_some(()));
}

#[test]
fn an_api_server_goes_and_comes_back() {
    let first = ["kept", "old"].map(|name| ingress(name, &format!("{name}.example"), "one"));
    let mut world = World::start(&first);
    apply(&world.cluster, &[ingress("a-rival", "rivals.example", "a")]);
    new_second();
    apply(&world.cluster, &[ingress("b-rival", "rivals.example", "b")]);
    for (host, place) in [("kept.example", "one"), ("old.example", "one"), ("rivals.example", "a")] {
        world.edge.until(host, &sent_to(place));
    }
    away_at_start(&mut world);
    away_later(&mut world);
    without_etcd(&mut world);
}

/// The last good snapshot serves a new Envoy, and what was missed comes with the API server.
fn away_at_start(world: &mut World) {
    world.replica.kill();
    world.proxy.fault(Fault::Refused);
    world.envoy = None;
    apply(&world.cluster, &[ingress("kept", "kept.example", "two"), ingress("new", "new.example", "two")]);
    delete(&world.cluster, &["old"]);
    let before = world.replica.said().len();
    world.replica.restart();
    world.replica.until_ready("state");
    world.replica.until_said(before, "serving the last good snapshot until the sources have been read");
    world.replica.until_said(before, "watching Kubernetes: ");
    world.envoy = Some(start_envoy(&world.cluster, "another", world.replica.xds));
    world.edge.until("kept.example", &sent_to("one"));
    world.serves("old.example", &sent_to("one"));
    world.serves("rivals.example", &sent_to("a"));
    world.serves("new.example", "404");

    world.proxy.fault(Fault::None);
    world.replica.until_ready("sources");
    world.edge.until("kept.example", &sent_to("two"));
    world.edge.until("new.example", &sent_to("two"));
    world.edge.until("old.example", "404");
}

/// What changed, went and came again meanwhile is found out, though etcd and the API server have forgotten how.
fn away_later(world: &mut World) {
    world.proxy.fault(Fault::Refused);
    apply(
        &world.cluster,
        &[ingress("kept", "kept.example", "three"), ingress("late", "late.example", "three")],
    );
    // Another object of the same name, which is the younger one now.
    delete(&world.cluster, &["new", "a-rival"]);
    new_second();
    apply(&world.cluster, &[ingress("a-rival", "rivals.example", "a")]);
    world.cluster.compact();
    world.cluster.serve(&[]);
    world.serves("kept.example", &sent_to("two"));
    world.serves("new.example", &sent_to("two"));
    world.serves("rivals.example", &sent_to("a"));

    let before = world.replica.said().len();
    world.proxy.fault(Fault::None);
    world.edge.until("kept.example", &sent_to("three"));
    world.edge.until("late.example", &sent_to("three"));
    world.edge.until("new.example", "404");
    world.edge.until("rivals.example", &sent_to("b"));
    world.replica.until_said(before, "too old resource version");
}

/// An API server whose etcd is away, and comes back, is one that nothing changes on for a while.
fn without_etcd(world: &mut World) {
    let change = ingress("kept", "kept.example", "four").to_string();
    world.cluster.stop_store();
    world.proxy.cut();
    until("an error", || world.cluster.attempt_to_apply(&change).err());
    world.serves("kept.example", &sent_to("three"));
    world.cluster.store();
    until("etcd", || world.cluster.attempt_to_apply(&change).ok());
    world.edge.until("kept.example", &sent_to("four"));
    world.serves("late.example", &sent_to("three"));
    world.serves("rivals.example", &sent_to("b"));
    world.serves("new.example", "404");
}
