//! From the start of a control plane to the last Ingress that shows where it is reached, and what that costs in writes.
//!
//! The API server counts, in its audit log. Whether nothing more is written is not waited for: of two Ingresses that
//! come one after the other, the second one has its status only once all that was due before is written.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cluster::{Cluster, Shown};
use super::manifests::{endpoint_slice, ingress, service, service_of};
use super::process::Process;
use super::record::{Round, Statuses};
use super::run::{control_plane_program, millis};

/// Shown by every status.
const ADDRESS: &str = "192.0.2.1";
/// Where a kubeconfig of the tests' API server has its Lease.
const LEASES: &str = "chancery-system";
/// Services that the routes are spread over.
const SERVICES: usize = 20;
/// What takes longer than this is broken.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn measure(ingresses: usize, rounds: usize) -> anyhow::Result<Statuses> {
    let cluster = Cluster::start()?;
    cluster.create_namespace(LEASES);
    // There is nothing to find, and so no Event to write.
    cluster.create(
        (0..SERVICES).flat_map(|it| [service(it), endpoint_slice(it, Ipv4Addr::new(192, 0, 2, 2), 80)]),
    )?;
    let rounds = (0..rounds).map(|_| Bench::new(&cluster, ingresses)?.round());
    let rounds = rounds.collect::<anyhow::Result<_>>()?;
    Ok(Statuses { ingresses, at: jiff::Timestamp::now().to_string(), rounds })
}

struct Bench<'a> {
    cluster: &'a Cluster,
    home: tempfile::TempDir,
    ingresses: usize,
    shown: Receiver<Shown>,
    /// Ingresses that came only to be waited for.
    markers: usize,
}

impl<'a> Bench<'a> {
    /// Ingresses without a status.
    fn new(cluster: &'a Cluster, ingresses: usize) -> anyhow::Result<Self> {
        cluster.delete_ingresses()?;
        let shown = cluster.shown()?;
        cluster.create((0..ingresses).map(described))?;
        Ok(Self { cluster, home: tempfile::tempdir()?, ingresses, shown, markers: 0 })
    }

    fn round(mut self) -> anyhow::Result<Round> {
        let (before, cpu_before) = (self.written(), self.cluster.cpu()?);
        let begun = Instant::now();
        let mut control_plane = start(self.cluster, self.home.path())?;
        let last = self.until_shown(self.ingresses, &mut control_plane)?;
        let (cpu, cpu_after) = (control_plane.cpu()?, self.cluster.cpu()?);
        self.settle(&mut control_plane)?;
        let after = self.written();
        drop(control_plane);

        // It reads all anew, under the name that holds the Lease.
        let mut control_plane = start(self.cluster, self.home.path())?;
        self.settle(&mut control_plane)?;
        Ok(Round {
            last: millis(last.saturating_duration_since(begun)),
            control_plane_cpu: millis(cpu),
            api_server_cpu: millis(cpu_after - cpu_before),
            writes: after - before,
            unchanged: self.written() - after,
        })
    }

    /// When the last one of so many more showed an address.
    fn until_shown(&self, many: usize, control_plane: &mut Process) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        let mut names = HashSet::new();
        loop {
            control_plane.check()?;
            anyhow::ensure!(begun.elapsed() < PATIENCE, "only {} of {many} have a status", names.len());
            let Ok(shown) = self.shown.recv_timeout(Duration::from_secs(1)) else { continue };
            names.insert(shown.name);
            if names.len() == many {
                return Ok(shown.at);
            }
        }
    }

    /// Until all that was due is written.
    fn settle(&mut self, control_plane: &mut Process) -> anyhow::Result<()> {
        for _ in 0..2 {
            self.cluster.create([described(self.ingresses + self.markers)])?;
            self.markers += 1;
            self.until_shown(1, control_plane)?;
        }
        Ok(())
    }

    /// Writes of statuses and Events so far, but for the markers' own, which are watched for before they are logged.
    fn written(&self) -> usize {
        let names: HashSet<_> = (0..self.ingresses).map(|host| name_of(&described(host))).collect();
        let is_ours = |about: &Value| about["name"].as_str().is_some_and(|name| names.contains(name));
        let is_write = |event: &&Value| {
            let about = &event["objectRef"];
            let verb = event["verb"].as_str().unwrap_or_default();
            matches!(verb, "create" | "update" | "patch")
                && (about["resource"] == "events"
                    || about["resource"] == "ingresses" && about["subresource"] == "status" && is_ours(about))
        };
        self.cluster.audit().iter().filter(is_write).count()
    }
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn described(host: usize) -> Value {
    ingress(host, service_of(host, 0, SERVICES), SERVICES)
}

fn start(cluster: &Cluster, home: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(control_plane_program());
    command.args(["serve", "--publish-status-address", ADDRESS, "--kubeconfig"]).arg(cluster.kubeconfig());
    for listen in ["--xds-listen", "--admin-listen", "--ratelimit-listen", "--authz-listen"] {
        command.args([listen, "127.0.0.1:0"]);
    }
    command.args(["--envoy-address", "127.0.0.1"]).env("POD_NAME", "bench");
    Process::start("the control plane", command, &home.join("control-plane.log"))
}
