//! Objects that go while they are being read.

use serde_json::Value;

use crate::cluster::Cluster;
use crate::cluster::process::{get, until};
use crate::cluster::tools::run;
use crate::objects::{ingress, namespace};
use crate::programs::{Edge, Replica};
use crate::proxy::{Fault, Proxy};

/// More than come on a page.
const OBJECTS: usize = 600;
/// How many of them go, at either end of the list.
const GONE: usize = 20;

/// Bytes that are read before they go: more than TLS and the other kinds need, less than a page.
const PART: usize = 200_000;

#[test]
fn objects_go_while_they_are_read() {
    let mut cluster = Cluster::start();
    cluster.apply(&namespace().to_string());
    let name = |index: usize| format!("i{index:03}");
    let all: Vec<Value> =
        (0..OBJECTS).map(|it| ingress(&name(it), &format!("{}.example", name(it)), "one")).collect();
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string();
    run(cluster.kubectl().args(["create", "-f", "-"]), &list);
    let mut left = 0..OBJECTS;
    // As a watch, and page by page, as API servers before 1.32 are listed.
    for (mode, flags) in [("watch", &[][..]), ("pages", &["--feature-gates=WatchList=false"])] {
        cluster.serve(flags);
        let proxy = Proxy::to(cluster.port());
        proxy.fault(Fault::Held(PART));
        let mut replica = Replica::start(&cluster, mode, proxy.port, Edge::new(), &[]);
        until("a part of the list", || (proxy.carried() >= PART).then_some(()));
        let ends = (left.start..left.start + GONE).chain(left.end - GONE..left.end);
        let delete = ["delete", "ingress", "--namespace=default", "--wait=false"];
        run(cluster.kubectl().args(delete).args(ends.map(name)), "");
        // Further pages of the same list are not to be had any more.
        cluster.compact();
        assert_eq!(get(replica.admin, "/readyz"), None, "{mode}");
        proxy.fault(Fault::None);
        replica.until_ready("sources");
        left = left.start + GONE..left.end - GONE;
        until("what is left", || (replica.metric("chancery_hosts") == left.len() as f64).then_some(()));
    }
}
