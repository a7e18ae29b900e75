//! From objects to resources, in process: everything from scratch, one Ingress edited, one EndpointSlice edited, one
//! host with very many paths.
//!
//! Allocations and bytes are counted as well, and kept for the report of the `change` bench.
#![allow(missing_docs, reason = "criterion's macros write functions")]

mod manifests;

use std::alloc::System;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use chancery::compile::Compiler;
use chancery::model::Certificate;
use chancery::settings::Settings;
use chancery::source::files::{Content, Item, parse};
use chancery::store::Change;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use manifests::{NAMESPACE, Random, endpoint_slice, host_name, ingress, service, service_name, service_of};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HOSTS: [usize; 4] = [100, 1_000, 10_000, 50_000];
const PATHS_OF_ONE: [usize; 3] = [500, 1_000, 5_000];
const SERVICES: usize = 20;
const PORT: u16 = 8080;
/// Edits over which allocations are counted.
const COUNTED: usize = 1_000;

fn change(file: &str, object: &Value) -> Change {
    let parsed = parse(file, object.to_string().as_bytes(), &[]);
    let items = parsed.documents.into_iter().flat_map(|document| match document.content {
        Content::Read(items, _) => items,
        Content::Unchanged | Content::Unreadable(_) => Vec::new(),
    });
    let mut applied = items.filter_map(|item| match item {
        Item::Applied(applied) => Some(Change::Applied(applied)),
        Item::Broken(_) => None,
    });
    applied.next().expect("the bench's objects are right")
}

fn ingress_change(host: usize, first: usize) -> Change {
    change(&format!("ingress-{host:05}.json"), &ingress(host, first, SERVICES))
}

fn slice_change(number: usize, address: u8) -> Change {
    let slice = endpoint_slice(number, Ipv4Addr::new(127, 0, 0, address), PORT);
    change(&format!("slice-{number:05}.json"), &slice)
}

fn everything(hosts: usize) -> Vec<Change> {
    let services = (0..SERVICES).map(|number| change(&format!("service-{number:05}.json"), &service(number)));
    let slices = (0..SERVICES).map(|number| slice_change(number, 1));
    let ingresses = (0..hosts).map(|host| ingress_change(host, service_of(host, 0, SERVICES)));
    services.chain(slices).chain(ingresses).chain([Change::Ready]).collect()
}

fn compiler() -> Compiler {
    let nobody = Certificate { chain: Vec::new(), private_key: Vec::new() };
    Compiler::new(Settings::default(), nobody).expect("the defaults are right")
}

/// The next edit of a random Ingress: its first path goes to the Service after the one before.
fn next_ingress(random: &mut Random, routes: &mut [usize]) -> Change {
    let host = random.below(routes.len());
    routes[host] = (routes[host] + 1) % SERVICES;
    ingress_change(host, routes[host])
}

fn next_slice(random: &mut Random, addresses: &mut [u8]) -> Change {
    let number = random.below(addresses.len());
    addresses[number] = 3 - addresses[number];
    slice_change(number, addresses[number])
}

fn from_scratch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("from_scratch");
    group.sample_size(10);
    for hosts in HOSTS {
        let changes = everything(hosts);
        group.bench_function(BenchmarkId::from_parameter(hosts), |bencher| {
            bencher.iter_batched(
                || (compiler(), changes.clone()),
                |(mut compiler, changes)| {
                    black_box(compiler.apply(changes));
                    compiler
                },
                BatchSize::PerIteration,
            );
        });
    }
}

fn one_edit(criterion: &mut Criterion) {
    let mut counts = BTreeMap::new();
    for hosts in HOSTS {
        let changes = everything(hosts);
        let held = Region::new(ALLOCATOR);
        let mut compiler = compiler();
        compiler.apply(changes);
        let stats = held.change();
        let held =
            stats.bytes_allocated as f64 + stats.bytes_reallocated as f64 - stats.bytes_deallocated as f64;

        let mut random = Random::new();
        let mut routes: Vec<_> = (0..hosts).map(|host| service_of(host, 0, SERVICES)).collect();
        let mut addresses = [1; SERVICES];
        let mut entry = vec![("bytes held more".to_owned(), held)];
        entry.extend(count("ingress", &mut compiler, || next_ingress(&mut random, &mut routes)));
        entry.extend(count("endpoint_slice", &mut compiler, || next_slice(&mut random, &mut addresses)));
        counts.insert(hosts, entry.into_iter().collect::<BTreeMap<_, _>>());

        let mut group = criterion.benchmark_group("one_edit");
        group.bench_function(BenchmarkId::new("ingress", hosts), |bencher| {
            bencher.iter_batched(
                || vec![next_ingress(&mut random, &mut routes)],
                |changes| black_box(compiler.apply(changes)).snapshot.sequence(),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("endpoint_slice", hosts), |bencher| {
            bencher.iter_batched(
                || vec![next_slice(&mut random, &mut addresses)],
                |changes| black_box(compiler.apply(changes)).snapshot.sequence(),
                BatchSize::SmallInput,
            );
        });
    }
    keep(&counts);
}

/// A host of so many paths, each declared three times: by the Ingress that serves it, by a canary, and by a younger
/// Ingress that comes too late.
fn many_paths(paths: usize) -> Vec<Change> {
    let ingress = |name: &str, service: usize, annotations: &Value| {
        let paths: Vec<_> = (0..paths)
            .map(|path| {
                json!({"path": format!("/p{path:05}/"), "pathType": "Prefix",
                       "backend": {"service": {"name": service_name(service), "port": {"number": 80}}}})
            })
            .collect();
        let object = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
            "spec": {"ingressClassName": "nginx", "rules": [{"host": host_name(0), "http": {"paths": paths}}]},
        });
        change(&format!("{name}.json"), &object)
    };
    let canary = json!({"nginx.ingress.kubernetes.io/canary": "true", "nginx.ingress.kubernetes.io/canary-weight": "10"});
    let services = (0..2).map(|number| change(&format!("service-{number:05}.json"), &service(number)));
    let slices = (0..2).map(|number| slice_change(number, 1));
    let ingresses =
        [ingress("a", 0, &json!({})), ingress("b", 1, &canary), ingress("c", 0, &json!({})), Change::Ready];
    services.chain(slices).chain(ingresses).collect()
}

fn one_host(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one_host");
    group.sample_size(10);
    for paths in PATHS_OF_ONE {
        let changes = many_paths(paths);
        group.bench_function(BenchmarkId::from_parameter(paths), |bencher| {
            bencher.iter_batched(
                || (compiler(), changes.clone()),
                |(mut compiler, changes)| {
                    black_box(compiler.apply(changes));
                    compiler
                },
                BatchSize::PerIteration,
            );
        });
    }
}

/// Allocations and bytes of an edit, without those of reading its manifest.
fn count(name: &str, compiler: &mut Compiler, mut next: impl FnMut() -> Change) -> [(String, f64); 2] {
    let edits: Vec<_> = (0..COUNTED).map(|_| vec![next()]).collect();
    let region = Region::new(ALLOCATOR);
    for changes in edits {
        compiler.apply(changes);
    }
    let stats = region.change();
    let each = |total: usize| total as f64 / COUNTED as f64;
    [
        (format!("{name}: allocations"), each(stats.allocations + stats.reallocations)),
        (format!("{name}: bytes"), each(stats.bytes_allocated)),
    ]
}

fn keep(counts: &BTreeMap<usize, BTreeMap<String, f64>>) {
    println!("counted: {counts:#?}");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("counted.json");
    let text = serde_json::to_vec_pretty(counts).expect("numbers are JSON");
    std::fs::write(file, text).expect("the target folder can be written");
}

criterion_group!(benches, from_scratch, one_edit, one_host);
criterion_main!(benches);
