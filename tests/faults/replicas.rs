//! Several control planes, and another controller beside them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::process::until;
use crate::cluster::tools::run;
use crate::objects::{apply, ingress, namespace, sent_to};
use crate::programs::{Edge, Replica, start_envoy};
use crate::proxy::Proxy;

/// The address that statuses show, and that of another controller.
pub(crate) const OURS: &str = "192.0.2.1";
const THEIRS: &str = "192.0.2.9";

/// How long a Lease is good for, and how long it may take at most until another candidate has looked and written.
const LEASE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_secs(10);

#[test]
fn replicas_are_equal_and_one_writes() {
    let cluster = Cluster::start();
    apply(&cluster, &[namespace()]);
    let first: Vec<Value> =
        (0..5).map(|it| ingress(&format!("i{it}"), &format!("i{it}.example"), "one")).collect();
    apply(&cluster, &first);
    let edge = Edge::new();
    let publish = [&*format!("--publish-status-address={OURS}")];
    let mut replicas =
        ["one", "two"].map(|name| Replica::start(&cluster, name, cluster.port(), edge, &publish));
    replicas.iter_mut().for_each(|replica| replica.until_ready("sources"));
    assert!(versions(&replicas[0]).len() > 10);
    assert_eq!(versions(&replicas[0]), versions(&replicas[1]));

    an_envoy_moves(&cluster, edge, &replicas);
    another_controller(&cluster, &mut replicas);
    the_leader_is_killed(&cluster, &mut replicas);
}

/// The version of every resource.
fn versions(replica: &Replica) -> BTreeMap<String, String> {
    let dump = replica.page("/debug/config_dump");
    let resources = dump["resources"].as_array().unwrap();
    resources.iter().map(|it| (format!("{} {}", it["type"], it["name"]), it["version"].to_string())).collect()
}

/// It is sent nothing by the other replica but what changes from then on.
fn an_envoy_moves(cluster: &Cluster, edge: Edge, [one, two]: &[Replica; 2]) {
    let way = Proxy::to(one.xds);
    let _envoy = start_envoy(cluster, "envoy", way.port);
    edge.until("i0.example", &sent_to("one"));
    assert!(one.metric("chancery_xds_resources_total") > 10.0);
    assert_eq!(two.metric("chancery_xds_resources_total"), 0.0);
    way.turn_to(two.xds);
    until("the Envoy", || (two.metric("chancery_envoys") == 1.0).then_some(()));
    apply(cluster, &[ingress("i0", "i0.example", "two")]);
    edge.until("i0.example", &sent_to("two"));
    assert_eq!(two.metric("chancery_xds_resources_total"), 1.0, "the routes of one host");
    assert_eq!(two.metric("chancery_xds_removed_total"), 0.0);
    assert_eq!(versions(one), versions(two));
}

/// The addresses that an Ingress's status shows.
fn shown(cluster: &Cluster, name: &str) -> String {
    let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
    run(cluster.kubectl().args(["get", "ingress", "--namespace=default", name, "-o", path]), "")
}

pub(crate) fn until_shown(cluster: &Cluster, name: &str, address: &str) {
    until(&format!("{address} of {name}"), || (shown(cluster, name) == address).then_some(()));
}

/// Who has the Lease.
pub(crate) fn holder(cluster: &Cluster) -> String {
    let get =
        ["get", "lease", "chancery", "--namespace=chancery-system", "-o", "jsonpath={.spec.holderIdentity}"];
    run(cluster.kubectl().args(get), "")
}

/// How often a control plane has written the status of an Ingress.
fn writes(cluster: &Cluster, name: &str) -> usize {
    let is = |event: &&Value| {
        let about = &event["objectRef"];
        event["verb"] == "patch"
            && about["subresource"] == "status"
            && about["name"] == name
            && event["requestURI"].as_str().is_some_and(|it| it.contains("fieldManager=chancery-status"))
    };
    cluster.audit().iter().filter(is).count()
}

/// A controller that always puts its own address back, as ingress-nginx does.
fn insist(cluster: &Cluster, name: &str) {
    let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": THEIRS}]}}}).to_string();
    let args =
        ["patch", "ingress", name, "--namespace=default", "--subresource=status", "--type=merge", "-p"];
    run(cluster.kubectl().args(args).arg(patch), "");
}

/// The two do not overwrite each other without end: a replica writes an object's status once when it begins to lead.
fn another_controller(cluster: &Cluster, replicas: &mut [Replica; 2]) {
    let marker = |number: usize| ingress(&format!("marker-{number}"), "marker.example", "one");
    until_shown(cluster, "i1", OURS);
    insist(cluster, "i1");
    let mut marked = 0;
    for round in 1..3 {
        // What happens to others is no reason to write, nor is a change of what the other controller shows.
        for _ in 0..3 {
            apply(cluster, &[marker(marked), ingress("i1", "i1.example", &format!("round-{marked}"))]);
            until_shown(cluster, &format!("marker-{marked}"), OURS);
            assert_eq!(shown(cluster, "i1"), THEIRS);
            insist(cluster, "i1");
            marked += 1;
        }
        assert_eq!(writes(cluster, "i1"), round);
        if round == 1 {
            // One that leads from now on does not know who was first.
            replicas.iter_mut().for_each(Replica::restart);
            replicas.iter_mut().for_each(|replica| replica.until_ready("sources"));
            until_shown(cluster, "i1", OURS);
            insist(cluster, "i1");
        }
    }
}

/// The other one goes on within the time of the Lease.
fn the_leader_is_killed(cluster: &Cluster, replicas: &mut [Replica; 2]) {
    let leader = holder(cluster);
    let (leading, other) = if leader == "one" { (0, "two") } else { (1, "one") };
    apply(cluster, &[ingress("before", "before.example", "one")]);
    until_shown(cluster, "before", OURS);
    replicas[leading].kill();
    let killed = Instant::now();
    apply(cluster, &[ingress("after", "after.example", "one")]);
    until_shown(cluster, "after", OURS);
    let took = killed.elapsed();
    assert_eq!(holder(cluster), other);
    assert!(took < LEASE + LOOK, "{took:?}");
    println!("status is written {took:?} after the end of the leader");
    assert_eq!(writes(cluster, "before"), 1, "what the first one has written is not written again");
}
