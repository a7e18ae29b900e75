//! Every certificate, then the authority, are exchanged under traffic.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::certificates::Authority;
use crate::process::{get, until};
use crate::world::{World, ask, body};

const HOST: &str = "api.example.com";

#[test]
fn an_exchange_breaks_no_stream_and_no_request() {
    let (old, new) = (Authority::new(0x0a01), Authority::new(0x0a02));
    let mut world = World::new(&old, 0x1001);
    world.route(HOST);
    world.start_control_plane(false);
    world.start_ratelimit();
    world.start_envoy();
    until("a request that is counted", || world.ask(HOST).ok());
    let streams = world.streams();
    assert_eq!(streams.len(), 2, "those of Envoy and of the rate limit service");

    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let port = world.http;
    let failures = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut failures = Vec::new();
            while !over.load(Ordering::Relaxed) {
                failures.extend(ask(port, HOST).err());
                asked.fetch_add(1, Ordering::Relaxed);
            }
            failures
        });
        // However the exchanges end, the client does.
        let _over = Raise(&over);
        exchange(&world, 0x1002, &old, &[&old]);
        exchange(&world, 0x1003, &old, &[&old, &new]);
        exchange(&world, 0x1004, &new, &[&old, &new]);
        exchange(&world, 0x1005, &new, &[&new]);
        over.store(true, Ordering::Relaxed);
        client.join().unwrap()
    });
    assert!(failures.is_empty(), "{} of {asked:?} failed: {}", failures.len(), failures[0]);
    assert_eq!(world.streams(), streams, "the streams are the same");
    let connections =
        get(world.envoy_admin, "/stats?filter=^cluster.chancery_xds.upstream_cx_total$").unwrap();
    assert!(connections.contains("upstream_cx_total: 1\n"), "{connections}");

    // Whoever connects now knows the other side by the new authority only.
    world.stop_all_but_envoy();
    world.route("later.example.com");
    world.start_control_plane(false);
    world.start_ratelimit();
    until("Envoy's return", || world.ask("later.example.com").ok());
}

struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Exchanges everybody's files, and waits until everybody has taken them.
fn exchange(world: &World, serial: u64, authority: &Authority, trusted: &[&Authority]) {
    world.exchange(serial, authority, trusted);
    let [high, low] = [serial >> 8, serial & 0xff];
    let shown = format!("{high:02x}:{low:02x}");
    until("the control plane's certificate", || {
        get(world.admin, "/metrics").filter(|it| it.contains(&format!("serial=\"{shown}\"")))
    });
    until("the rate limit service's certificate", || {
        world.log("ratelimit.log").contains(&shown).then_some(())
    });
    let expected = (format!("{serial:x}"), trusted.len());
    until("Envoy's certificates", || {
        // Of both clusters.
        (used_by_envoy(world).iter().filter(|used| **used == expected).count() == 2).then_some(())
    });
}

/// The serial numbers of the certificates that Envoy shows, each with how many authorities are trusted in return.
fn used_by_envoy(world: &World) -> Vec<(String, usize)> {
    let page = get(world.envoy_admin, "/certs").unwrap();
    let page: Value = serde_json::from_str(&body(&page)).unwrap();
    let serials = |list: &Value| -> BTreeSet<String> {
        let list = list.as_array().into_iter().flatten();
        list.map(|it| it["serial_number"].as_str().unwrap().to_owned()).collect()
    };
    let contexts = page["certificates"].as_array().unwrap().iter();
    contexts
        .filter_map(|context| {
            let shown = serials(&context["cert_chain"]).into_iter().next()?;
            Some((shown, serials(&context["ca_cert"]).len()))
        })
        .collect()
}
