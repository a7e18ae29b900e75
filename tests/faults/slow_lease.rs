//! A leader whose API server is slow, and a candidate whose is not.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::cluster::process::until;
use crate::objects::{apply, ingress, namespace};
use crate::programs::{Edge, Replica};
use crate::proxy::{Fault, Proxy};
use crate::replicas::{OURS, holder, until_shown};

/// Renewals that take longer together than a Lease lasts.
const RENEWALS: usize = 6;

/// Slow answers are no reason to lose the Lease as long as it is renewed in time; later it goes over, and never do two
/// write.
#[test]
fn a_slow_api_server_and_the_lease() {
    let cluster = Cluster::start();
    apply(&cluster, &[namespace()]);
    let proxy = Proxy::to(cluster.port());
    let publish = [&*format!("--publish-status-address={OURS}")];
    let mut one = Replica::start_as("one", &cluster, "one", proxy.port, Edge::new(), &publish);
    one.until_ready("sources");
    shows(&cluster, "at-first");
    let mut two = Replica::start_as("two", &cluster, "two", cluster.port(), Edge::new(), &publish);
    two.until_ready("sources");

    proxy.fault(Fault::Slow(Duration::from_millis(700)));
    let renewed = || events(&cluster).iter().filter(|event| **event == Event::Leads("one".into())).count();
    let before = renewed();
    shows(&cluster, "slow");
    until("renewals", || (renewed() >= before + RENEWALS).then_some(()));
    assert_eq!(holder(&cluster), "one");

    proxy.fault(Fault::Slow(Duration::from_secs(6)));
    shows(&cluster, "slower");
    until("another leader", || (holder(&cluster) == "two").then_some(()));
    // The slow one learns of the first before the second: had it thought that it leads, it would have written by then.
    for name in ["handed-over", "later"] {
        shows(&cluster, name);
        let page = format!("/debug/routes?host={name}.example");
        until("the slow replica", || one.text(&page).contains(&format!("\"{name}\"")).then_some(()));
    }

    proxy.fault(Fault::None);
    one.until_ready("sources");
    shows(&cluster, "recovered");
    assert_eq!(holder(&cluster), "two");
    let seen = events(&cluster);
    for who in ["one", "two"] {
        assert!(seen.contains(&Event::Writes(who.into())), "{seen:?}");
    }
    writes_alone(&seen);
}

/// A new Ingress is given its status.
fn shows(cluster: &Cluster, name: &str) {
    apply(cluster, &[ingress(name, &format!("{name}.example"), "one")]);
    until_shown(cluster, name, OURS);
}

/// What a replica did, by its user's name.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    /// Took or renewed the Lease.
    Leads(String),
    /// Wrote a status.
    Writes(String),
}

/// Nobody writes whose Lease another one has taken.
fn writes_alone(events: &[Event]) {
    let mut leader = None;
    for event in events {
        match event {
            Event::Leads(who) => leader = Some(who),
            Event::Writes(who) => assert_eq!(Some(who), leader, "{events:?}"),
        }
    }
}

/// What replicas did so far, in the order in which the API server was asked for it.
fn events(cluster: &Cluster) -> Vec<Event> {
    let mut audit: Vec<(String, Event)> = cluster
        .audit()
        .iter()
        .filter(|event| event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300))
        .filter_map(|event| Some((event["requestReceivedTimestamp"].as_str()?.to_owned(), of(event)?)))
        .collect();
    audit.sort_by(|a, b| a.0.cmp(&b.0));
    audit.into_iter().map(|(_, event)| event).collect()
}

fn of(event: &Value) -> Option<Event> {
    let who = event["user"]["username"].as_str().filter(|who| ["one", "two"].contains(who))?.to_owned();
    let about = &event["objectRef"];
    match (event["verb"].as_str()?, about["resource"].as_str()?) {
        ("create" | "update", "leases") => Some(Event::Leads(who)),
        ("patch", "ingresses") if about["subresource"] == "status" => Some(Event::Writes(who)),
        _ => None,
    }
}
