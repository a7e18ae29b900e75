//! The protocol, in process: one change to many sessions, and a subscription to very many resources.
#![allow(missing_docs, reason = "criterion's macros write functions")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use chancery::xds::message::{Ask, Protocol, Request, Response};
use chancery::xds::session::{Session, Settings};
use chancery::xds::{Resource, Snapshot, TypeUrl, Update, Version};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

const RESOURCES: usize = 10_000;
/// About that of a host with six routes.
const SIZE: usize = 1_000;

fn name(number: usize) -> String {
    format!("h{number:05}.bench.example")
}

fn resource(number: usize, version: u64) -> Arc<Resource> {
    let body = [0; SIZE];
    Arc::new(Resource::from_bytes(TypeUrl::RouteConfiguration, name(number), Version(version), &body))
}

fn snapshot() -> Arc<Snapshot> {
    let set = (0..RESOURCES).map(|number| resource(number, 0)).collect();
    Arc::new(Snapshot::empty().apply(Update { set, remove: Vec::new() }))
}

fn request(nonce: String, subscribe: Vec<String>) -> Request {
    let ask = Ask::Delta { subscribe, unsubscribe: Vec::new(), initial_versions: HashMap::new() };
    Request { type_url: TypeUrl::RouteConfiguration, nonce, error: None, ask }
}

fn session(snapshot: &Arc<Snapshot>) -> Session {
    Session::new(Protocol::Delta, Settings::default(), snapshot.clone(), Instant::now())
}

/// What is left to do for a response before the network: the entries of its resources.
fn entries(responses: &[Response]) -> usize {
    let mut bytes = Vec::new();
    for (asked, resource) in responses.iter().flat_map(|response| &response.resources) {
        resource.put_entry(asked, &mut bytes);
    }
    black_box(bytes).len()
}

/// Lets the session accept everything.
fn accept(session: &mut Session, mut responses: Vec<Response>) {
    while let Some(response) = responses.pop() {
        responses.extend(session.on_request(request(response.nonce, Vec::new()), Instant::now()));
    }
    session.take_events();
}

fn subscribed(snapshot: &Arc<Snapshot>) -> Session {
    let mut session = session(snapshot);
    let names = (0..RESOURCES).map(name).collect();
    let responses = session.on_request(request(String::new(), names), Instant::now());
    accept(&mut session, responses);
    session
}

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan_out");
    for sessions in [1, 100] {
        let mut latest = snapshot();
        let mut all: Vec<_> = (0..sessions).map(|_| subscribed(&latest)).collect();
        let mut version = 0;
        group.bench_function(BenchmarkId::new("one_change", sessions), |bencher| {
            bencher.iter(|| {
                version += 1;
                let changed = resource(version as usize % RESOURCES, version);
                latest = Arc::new(latest.apply(Update { set: vec![changed], remove: Vec::new() }));
                for session in &mut all {
                    let responses = session.on_snapshot(latest.clone(), Instant::now());
                    assert!(entries(&responses) > SIZE);
                    accept(session, responses);
                }
            });
        });
    }
}

fn subscription(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subscription");
    group.sample_size(20);
    let snapshot = snapshot();
    let names: Vec<_> = (0..RESOURCES).map(name).collect();
    group.bench_function(BenchmarkId::from_parameter(RESOURCES), |bencher| {
        bencher.iter_batched(
            || (session(&snapshot), names.clone()),
            |(mut session, names)| {
                let responses = session.on_request(request(String::new(), names), Instant::now());
                assert!(entries(&responses) > RESOURCES * SIZE);
                accept(&mut session, responses);
                session
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, fan_out, subscription);
criterion_main!(benches);
