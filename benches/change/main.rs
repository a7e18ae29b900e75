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
mod client;
#[path = "../manifests.rs"]
mod manifests;
mod one_table;
mod plot;
mod process;
mod record;
mod report;
mod run;
mod workload;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use record::Layout;
use run::Plan;

#[derive(Debug, Parser)]
struct Args {
    /// Numbers of hosts to measure
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,50000")]
    hosts: Vec<usize>,
    /// Services that the routes are spread over, each with one EndpointSlice
    #[arg(long, default_value_t = 20)]
    services: usize,
    /// Layouts to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Layout::Scoped, Layout::OneTable])]
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
    /// 100 and 1,000 hosts, few edits; nothing is kept
    #[arg(long)]
    quick: bool,
    /// Write RESULTS.md and change.svg instead of measuring
    #[arg(long)]
    report: bool,
    /// Serve the layout with one RouteConfiguration: what this bench starts itself for
    #[arg(long, hide = true, value_names = ["FOLDER"])]
    one_table: Option<PathBuf>,
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
    if let Some(folder) = args.one_table {
        return one_table::serve(folder, args.xds_listen, args.admin_listen, args.http_port);
    }
    if args.report {
        return report::write();
    }
    let (hosts, edits, starts) =
        if args.quick { (vec![100, 1000], 30, 1) } else { (args.hosts, args.edits, args.starts) };
    for hosts in hosts {
        for layout in &args.layout {
            let plan =
                Plan { layout: *layout, hosts, services: args.services, edits, starts, cold_only: args.cold };
            let record = run::measure(&plan)?;
            println!("{record}");
            if !args.quick {
                record.keep()?;
            }
        }
    }
    Ok(())
}
