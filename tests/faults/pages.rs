//! A list that comes page by page, and whose revision is gone before its end.

use serde_json::Value;

use crate::cluster::process::until;
use crate::objects::{apply, delete, ingress, sent_to};
use crate::proxy::Fault;
use crate::world::World;

/// More than one page has.
const OBJECTS: usize = 600;
/// What kubectl applies without holding itself back.
const AT_ONCE: usize = 140;
/// Well within the first page, and more than all other kinds come to.
const WITHIN_A_PAGE: usize = 150_000;

fn host(index: usize) -> String {
    format!("page-{index:03}.example")
}

fn object(index: usize, place: &str) -> Value {
    ingress(&format!("page-{index:03}"), &host(index), place)
}

/// The API server answers the second page with 410 Gone: what etcd held when the first one was made is compacted. The
/// list starts anew, with what has changed meanwhile.
#[test]
fn a_list_expires_between_two_pages() {
    let mut world = World::start(&[object(0, "one")]);
    // As API servers before 1.32, and without snapshots that outlive etcd's revisions.
    world.cluster.serve(&["--feature-gates=WatchList=false,ListFromCacheSnapshot=false"]);
    let all: Vec<_> = (1..OBJECTS).map(|index| object(index, "one")).collect();
    all.chunks(AT_ONCE).for_each(|some| apply(&world.cluster, some));
    let ends = [0, OBJECTS - 1];
    ends.iter().for_each(|index| world.edge.until(&host(*index), &sent_to("one")));

    let before = world.replica.said().len();
    world.replica.kill();
    let held = world.proxy.carried() + WITHIN_A_PAGE;
    world.proxy.fault(Fault::Held(held));
    world.replica.restart();
    until("a part of the first page", || (world.proxy.carried() >= held).then_some(()));
    // Of this page and of the next: one that changes, one that goes; and one that comes.
    apply(&world.cluster, &[object(0, "two"), object(OBJECTS - 1, "two"), object(OBJECTS, "two")]);
    delete(&world.cluster, &["page-001", "page-598"]);
    world.cluster.compact();
    world.proxy.fault(Fault::None);

    world.replica.until_said(before, "The provided continue parameter is too old");
    world.replica.until_ready("sources");
    for index in [0, OBJECTS - 1, OBJECTS] {
        world.edge.until(&host(index), &sent_to("two"));
    }
    for index in [1, 598] {
        world.edge.until(&host(index), "404");
    }
    (2..598).step_by(40).for_each(|index| world.serves(&host(index), &sent_to("one")));
}
