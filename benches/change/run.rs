//! One number of hosts from one source in one layout: start, request every host, edit.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chancery::translate::bootstrap;
use serde_json::Value;

use super::backends;
use super::churn;
use super::client::Client;
use super::process::{Process, free_address};
use super::record::{Layout, Memory, Record, Sent, Series, Source, Start};
use super::workload::{Kind, Picks, Workload};

/// A poll begins this long after the one before, or as soon as that was answered.
const POLL_EVERY: Duration = Duration::from_micros(200);
/// Polls before an edit, which leave no doubt that the connection is warm.
const POLLS_BEFORE: usize = 10;
/// Quiet after each edit, at least.
const QUIET: Duration = Duration::from_millis(20);
/// How long the processes are left alone to see what they use when idle.
const IDLE: Duration = Duration::from_secs(2);
/// What takes longer than this is broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections over which every host is requested.
const CONNECTIONS: usize = 8;

/// What to measure.
pub(crate) struct Plan {
    pub(crate) source: Source,
    pub(crate) layout: Layout,
    pub(crate) hosts: usize,
    pub(crate) services: usize,
    pub(crate) edits: usize,
    pub(crate) starts: usize,
    pub(crate) cold_only: bool,
}

impl Plan {
    /// One RouteConfiguration takes seconds an edit once it is large.
    fn route_edits(&self) -> usize {
        match self.layout {
            Layout::Scoped | Layout::Pusher => self.edits,
            Layout::OneTable => self.edits.min((300_000 / self.hosts).max(10)),
        }
    }

    /// How many edits are made without polling, after so many with it.
    fn unpolled(&self, polled: usize) -> usize {
        if polled < self.edits { polled.div_ceil(3) } else { polled }
    }
}

pub(crate) fn measure(plan: &Plan) -> anyhow::Result<Record> {
    let backends = backends::start()?;
    let workload = Workload::new(plan.source, plan.hosts, plan.services, &backends)?;
    let mut starts = Vec::new();
    let mut running = Running::start(plan.layout, &workload)?;
    starts.push(running.wait(&workload)?);
    while starts.len() < plan.starts {
        drop(running);
        running = Running::start(plan.layout, &workload)?;
        starts.push(running.wait(&workload)?);
    }
    let every_host = running.request_every_host(&workload)?;
    let mut record = Record {
        source: plan.source,
        layout: plan.layout,
        hosts: plan.hosts,
        services: plan.services,
        at: jiff::Timestamp::now().to_string(),
        starts,
        every_host,
        memory_loaded: running.memory()?,
        route: None,
        endpoint: None,
        route_churned: None,
        endpoint_churned: None,
        memory: running.memory()?,
        lost: 0,
    };
    // It ends with this function: a folder that goes is a great many edits.
    let workload = Mutex::new(workload);
    if !plan.cold_only {
        running.edit(&workload, plan, &mut record)?;
        record.memory = running.memory()?;
    }
    Ok(record)
}

/// A panic elsewhere is told by whoever joins it.
fn lock(workload: &Mutex<Workload>) -> MutexGuard<'_, Workload> {
    workload.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A control plane and its Envoy.
struct Running {
    begun: Instant,
    control_plane: Process,
    envoy: Process,
    admin: SocketAddr,
    http: SocketAddr,
}

impl Running {
    fn start(layout: Layout, workload: &Workload) -> anyhow::Result<Self> {
        let (xds, admin, http) = (free_address()?, free_address()?, free_address()?);
        let config = workload.home().join("envoy.json");
        let bootstrap = bootstrap::bootstrap(&bootstrap::Options {
            node_id: "bench".to_owned(),
            node_cluster: bootstrap::NODE_CLUSTER.to_owned(),
            xds: (xds.ip().to_string(), xds.port()),
            admin: free_address()?,
            memory_limit: None,
            max_connections: bootstrap::MAX_CONNECTIONS,
            tls: None,
        })?;
        std::fs::write(&config, bootstrap.to_string())?;
        let mut envoy =
            Command::new(program("ENVOY", concat!(env!("CARGO_MANIFEST_DIR"), "/tools/envoy/envoy")));
        envoy.args(["--use-dynamic-base-id", "--log-level", "warning", "--config-path"]).arg(config);

        let begun = Instant::now();
        let command = control_plane(layout, workload, xds, admin, http)?;
        let mut control_plane =
            Process::start("the control plane", command, &workload.home().join("control-plane.log"))?;
        while TcpStream::connect(xds).is_err() {
            control_plane.check()?;
            sleep(Duration::from_millis(1));
        }
        let envoy = Process::start("Envoy", envoy, &workload.home().join("envoy.log"))?;
        Ok(Self { begun, control_plane, envoy, admin, http })
    }

    /// Waits until the last host is served.
    fn wait(&mut self, workload: &Workload) -> anyhow::Result<Start> {
        let host = workload.last_host();
        loop {
            let answer = Client::connect(self.http).ok().and_then(|mut client| client.get(&host, "/a").ok());
            if answer.is_some_and(|answer| answer.status == 200) {
                break;
            }
            self.check()?;
            anyhow::ensure!(self.begun.elapsed() < PATIENCE, "{host} is not served");
            sleep(Duration::from_millis(1));
        }
        Ok(Start {
            served: millis(self.begun.elapsed()),
            control_plane_cpu: millis(self.control_plane.cpu()?),
            envoy_cpu: millis(self.envoy.cpu()?),
        })
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.control_plane.check()?;
        self.envoy.check()
    }

    /// Seconds until every host was requested once.
    fn request_every_host(&self, workload: &Workload) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let hosts: Vec<_> = workload.expectations().collect();
        std::thread::scope(|scope| {
            let requests = hosts.chunks(hosts.len().div_ceil(CONNECTIONS)).map(|hosts| {
                scope.spawn(move || {
                    let mut client = Client::connect(self.http)?;
                    for (host, expected) in hosts {
                        let answer = client.get(host, "/a").with_context(|| format!("requesting {host}"))?;
                        anyhow::ensure!(answer.body == *expected, "{host} is answered {answer:?}");
                    }
                    anyhow::Ok(())
                })
            });
            requests
                .collect::<Vec<_>>()
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        Ok(begun.elapsed().as_secs_f64())
    }

    fn memory(&self) -> anyhow::Result<Memory> {
        let (control_plane, control_plane_peak) = self.control_plane.memory()?;
        let (envoy, envoy_peak) = self.envoy.memory()?;
        Ok(Memory { control_plane, control_plane_peak, envoy, envoy_peak })
    }

    /// All series of edits.
    fn edit(&mut self, workload: &Mutex<Workload>, plan: &Plan, record: &mut Record) -> anyhow::Result<()> {
        let lost = &mut record.lost;
        // A pusher has made before what it pushes, which nobody can for routes.
        if plan.layout != Layout::Pusher {
            record.route = Some(self.series(workload, Kind::Ingress, plan, lost)?);
        }
        record.endpoint = Some(self.series(workload, Kind::EndpointSlice, plan, lost)?);
        if plan.source == Source::Kubernetes && plan.layout == Layout::Scoped {
            churn::during(workload, || {
                record.route_churned =
                    Some(self.polled(workload, Kind::Ingress, plan, Picks::Still, lost)?);
                record.endpoint_churned =
                    Some(self.polled(workload, Kind::EndpointSlice, plan, Picks::Still, lost)?);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Edits with polling, then edits without, over which CPU and bytes are taken.
    fn series(
        &mut self,
        workload: &Mutex<Workload>,
        kind: Kind,
        plan: &Plan,
        lost: &mut usize,
    ) -> anyhow::Result<Series> {
        let mut series = self.polled(workload, kind, plan, Picks::All, lost)?;
        series.unpolled = plan.unpolled(series.served.len());
        self.series_unpolled(workload, kind, &mut series)?;
        Ok(series)
    }

    fn polled(
        &mut self,
        workload: &Mutex<Workload>,
        kind: Kind,
        plan: &Plan,
        picks: Picks,
        lost: &mut usize,
    ) -> anyhow::Result<Series> {
        let edits = match kind {
            Kind::Ingress => plan.route_edits(),
            Kind::EndpointSlice => plan.edits,
        };
        let mut served = Vec::with_capacity(edits);
        let mut client = Client::connect(self.http)?;
        for _ in 0..edits {
            let took = edit_polled(&mut client, workload, kind, picks, lost)?;
            served.push(millis(took));
            sleep(QUIET.max(took));
        }
        self.check()?;
        served.sort_by(f64::total_cmp);
        Ok(Series { served, unpolled: 0, control_plane_cpu: 0.0, envoy_cpu: 0.0, sent: BTreeMap::new() })
    }

    fn series_unpolled(
        &self,
        workload: &Mutex<Workload>,
        kind: Kind,
        series: &mut Series,
    ) -> anyhow::Result<()> {
        let pause = QUIET.max(Duration::from_secs_f64(series.percentile(0.5) * 2.0 / 1000.0));
        let at_first = self.cpu()?;
        sleep(IDLE);
        let (before, begun, sent_before) = (self.cpu()?, Instant::now(), self.sent()?);
        let idle = [0, 1].map(|i| (before[i] - at_first[i]).as_secs_f64() / IDLE.as_secs_f64());
        let mut last = None;
        for _ in 0..series.unpolled {
            last = Some({
                let mut workload = lock(workload);
                let edit = workload.edit(kind, Picks::All)?;
                workload.publish(&edit)?;
                edit
            });
            sleep(pause);
        }
        if let Some(edit) = last {
            let mut client = Client::connect(self.http)?;
            while client.get(&edit.host, "/a")?.body != edit.expected {
                anyhow::ensure!(begun.elapsed() < PATIENCE * 4, "the last edit is not served");
                sleep(pause);
            }
        }
        let (after, took, sent_after) = (self.cpu()?, begun.elapsed().as_secs_f64(), self.sent()?);
        let edits = series.unpolled as f64;
        let [control_plane, envoy] = [0, 1].map(|i| {
            let used = (after[i] - before[i]).as_secs_f64() - idle[i] * took;
            used.max(0.0) * 1000.0 / edits
        });
        (series.control_plane_cpu, series.envoy_cpu) = (control_plane, envoy);
        for (name, after) in sent_after {
            let before = sent_before.get(&name).copied().unwrap_or_default();
            let resources = (after.resources - before.resources) / edits;
            let bytes = (after.bytes - before.bytes) / edits;
            if bytes > 0.0 {
                series.sent.insert(name, Sent { resources, bytes });
            }
        }
        Ok(())
    }

    fn cpu(&self) -> anyhow::Result<[Duration; 2]> {
        Ok([self.control_plane.cpu()?, self.envoy.cpu()?])
    }

    /// What all streams were sent so far, by type.
    fn sent(&self) -> anyhow::Result<BTreeMap<String, Sent>> {
        let answer = Client::connect(self.admin)?.get("bench", "/debug/nodes")?;
        let report: Value = serde_json::from_str(&answer.body)?;
        let mut sent: BTreeMap<String, Sent> = BTreeMap::new();
        for node in report["nodes"].as_array().context("no nodes")? {
            for (name, of_type) in node["types"].as_object().context("no types")? {
                let entry = sent.entry(name.clone()).or_default();
                entry.resources += of_type["resources"].as_f64().unwrap_or_default();
                entry.bytes += of_type["bytes"].as_f64().unwrap_or_default();
            }
        }
        Ok(sent)
    }
}

/// From the rename to the first response served the new way.
fn edit_polled(
    client: &mut Client,
    workload: &Mutex<Workload>,
    kind: Kind,
    picks: Picks,
    lost: &mut usize,
) -> anyhow::Result<Duration> {
    let edit = lock(workload).edit(kind, picks)?;
    for _ in 0..POLLS_BEFORE {
        poll(client, &edit.host, lost)?;
    }
    let begun = lock(workload).publish(&edit)?;
    loop {
        let (body, at) = poll(client, &edit.host, lost)?;
        if body == edit.expected {
            return Ok(at.saturating_duration_since(begun));
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "an edit of {} is not served", edit.host);
    }
}

/// What was answered, and when.
fn poll(client: &mut Client, host: &str, lost: &mut usize) -> anyhow::Result<(String, Instant)> {
    let begun = Instant::now();
    let answer = client.get(host, "/a")?;
    let at = Instant::now();
    if answer.status != 200 {
        *lost += 1;
    }
    let rest = POLL_EVERY.saturating_sub(at - begun);
    if !rest.is_zero() {
        sleep(rest);
    }
    Ok((answer.body, at))
}

fn control_plane(
    layout: Layout,
    workload: &Workload,
    xds: SocketAddr,
    admin: SocketAddr,
    http: SocketAddr,
) -> anyhow::Result<Command> {
    let mut command = match layout {
        Layout::Scoped => {
            let mut command = Command::new(control_plane_program());
            command.arg("serve").args(workload.source_flag());
            command.args(["--envoy-address", "127.0.0.1"]);
            command.args(["--https-port", &free_address()?.port().to_string()]);
            command.args(["--ratelimit-listen", &free_address()?.to_string()]);
            command.args(["--authz-listen", &free_address()?.to_string()]);
            command
        }
        Layout::OneTable => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("--one-table").arg(workload.place());
            command
        }
        Layout::Pusher => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("--pusher").arg(workload.place());
            command
        }
    };
    command.args(["--xds-listen", &xds.to_string(), "--admin-listen", &admin.to_string()]);
    command.args(["--http-port", &http.port().to_string()]);
    Ok(command)
}

/// The control plane that is measured.
pub(crate) fn control_plane_program() -> OsString {
    program("CHANCERY", env!("CARGO_BIN_EXE_chancery"))
}

fn program(variable: &str, otherwise: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| otherwise.into())
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
