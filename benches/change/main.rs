//! From an edited manifest to the first request that is served the new way, through a real Envoy.
//!
//! N Ingresses of one host and six paths each, over shared Services, lie in a folder that `chancery serve` follows, one
//! file an Ingress. Every host has been requested once. An edit switches path `/a` of a random Ingress to another
//! Service, by a rename; the clock runs from the rename to the first response of that Service, over a connection that is
//! polled all the time. Beside it, in the same run, stands the layout with one RouteConfiguration for all hosts, from
//! the same compiler, sent by the same xDS server (see [`one_table`]).
//!
//! ```text
//! cargo bench --bench change                                  every number of hosts, both layouts
//! cargo bench --bench change -- --quick                       100 and 1,000 hosts, few edits
//! cargo bench --bench change -- --hosts 10000 --layout scoped
//! cargo bench --bench change -- --source kubernetes           in a real API server: 1,000 and 10,000 hosts
//! cargo bench --bench change -- --status                      only how the statuses of 1,000 Ingresses are written there
//! cargo bench --bench change -- --cold                        only starts
//! cargo bench --bench change -- --report                      writes RESULTS.md and change.svg of what was measured
//! ```
//!
//! What was measured is kept below `target/`, each number of hosts for itself, until it is measured again.
#![allow(
    clippy::disallowed_methods,
    reason = "a bench waits and reads the clock; nothing here serves anybody"
)]

mod backends;
mod bare;
mod churn;
mod client;
mod cluster;
#[path = "../ratelimit/kept.rs"]
#[allow(dead_code, reason = "the other bench writes it")]
mod kept;
mod kubernetes;
#[path = "../manifests.rs"]
mod manifests;
mod measure;
mod one_table;
mod plot;
mod process;
mod pusher;
mod ratelimit;
mod record;
#[path = "../records.rs"]
mod records;
mod report;
mod run;
#[path = "../../tests/cluster/mod.rs"]
mod server;
mod status;
mod workload;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use bare::Listen;
use measure::Plan;
use record::{Layout, Source};

/// Ingresses that are given a status.
const STATUSES: usize = 1000;

#[derive(Debug, Parser)]
struct Args {
    /// Where the manifests are
    #[arg(long, value_enum, default_value_t)]
    source: Source,
    /// Numbers of hosts to measure: 100, 1,000, 10,000 and 50,000 in files, 1,000 and 10,000 in Kubernetes, unless given
    #[arg(long, value_delimiter = ',')]
    hosts: Vec<usize>,
    /// Services that the routes are spread over, each with one EndpointSlice
    #[arg(long, default_value_t = 20)]
    services: usize,
    /// Layouts to measure; all that the source has, unless given
    #[arg(long, value_enum, value_delimiter = ',')]
    layout: Vec<Layout>,
    /// Edits of each series; the layout with one RouteConfiguration gets fewer where each takes long
    #[arg(long, default_value_t = 300)]
    edits: usize,
    /// Starts of which the median is taken
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Measure only starts
    #[arg(long)]
    cold: bool,
    /// Measure only how statuses are written into a real API server
    #[arg(long)]
    status: bool,
    /// 100 and 1,000 hosts, few edits; nothing is kept
    #[arg(long)]
    quick: bool,
    /// Write RESULTS.md and change.svg instead of measuring
    #[arg(long)]
    report: bool,
    /// Serve the layout with one RouteConfiguration: what this bench starts itself for
    #[arg(long, hide = true, value_names = ["FOLDER"])]
    one_table: Option<PathBuf>,
    /// Push what was made before: what this bench starts itself for
    #[arg(long, hide = true, value_names = ["KUBECONFIG"])]
    pusher: Option<PathBuf>,
    #[arg(long, hide = true, default_value = "127.0.0.1:0")]
    xds_listen: SocketAddr,
    #[arg(long, hide = true, default_value = "127.0.0.1:0")]
    admin_listen: SocketAddr,
    #[arg(long, hide = true, default_value_t = 80)]
    http_port: u16,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listen = Listen { xds: args.xds_listen, admin: args.admin_listen, http_port: args.http_port };
    if let Some(folder) = args.one_table {
        return one_table::serve(folder, &listen);
    }
    if let Some(kubeconfig) = args.pusher {
        return pusher::serve(kubeconfig, &listen);
    }
    if args.report {
        return report::write();
    }
    let (mut hosts, edits, starts) =
        if args.quick { (vec![100, 1000], 30, 1) } else { (args.hosts, args.edits, args.starts) };
    if args.status {
        return statuses(starts, args.quick);
    }
    let (all_hosts, all_layouts) = match args.source {
        Source::Files => (&[100, 1000, 10_000, 50_000][..], [Layout::Scoped, Layout::OneTable]),
        Source::Kubernetes => (&[1000, 10_000][..], [Layout::Scoped, Layout::Pusher]),
    };
    if hosts.is_empty() {
        hosts = all_hosts.to_vec();
    }
    let layouts = if args.layout.is_empty() { all_layouts.to_vec() } else { args.layout };
    // With an API server, layouts are compared under churn: they take turns.
    let together: Vec<Vec<Layout>> = match args.source {
        Source::Files => layouts.into_iter().map(|layout| vec![layout]).collect(),
        Source::Kubernetes => vec![layouts],
    };
    for hosts in hosts {
        for layouts in &together {
            let plan = Plan {
                source: args.source,
                layouts: layouts.clone(),
                hosts,
                services: args.services,
                edits,
                starts,
                cold_only: args.cold,
            };
            for record in measure::measure(&plan)? {
                println!("{record}");
                if !args.quick {
                    record.keep()?;
                }
            }
        }
    }
    match args.source {
        Source::Files => Ok(()),
        Source::Kubernetes => statuses(starts, args.quick),
    }
}

fn statuses(rounds: usize, quick: bool) -> anyhow::Result<()> {
    let record = status::measure(STATUSES, rounds)?;
    println!("{record}");
    if quick { Ok(()) } else { record.keep() }
}
