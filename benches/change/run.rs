//! A control plane and its Envoy: start, request every host, edit.

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

use super::client::Client;
use super::process::{Process, free_address};
use super::record::{Layout, Memory, Sent, Series, Start};
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

/// A panic elsewhere is told by whoever joins it.
pub(crate) fn lock(workload: &Mutex<Workload>) -> MutexGuard<'_, Workload> {
    workload.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A control plane and its Envoy.
pub(crate) struct Running {
    begun: Instant,
    control_plane: Process,
    envoy: Process,
    admin: SocketAddr,
    http: SocketAddr,
}

impl Running {
    pub(crate) fn start(layout: Layout, workload: &Workload) -> anyhow::Result<Self> {
        let (xds, admin, http) = (free_address()?, free_address()?, free_address()?);
        let config = workload.home().join(layout.file("envoy", "json"));
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
        let mut control_plane = Process::start(
            "the control plane",
            command,
            &workload.home().join(layout.file("control-plane", "log")),
        )?;
        while TcpStream::connect(xds).is_err() {
            control_plane.check()?;
            sleep(Duration::from_millis(1));
        }
        let envoy = Process::start("Envoy", envoy, &workload.home().join(layout.file("envoy", "log")))?;
        Ok(Self { begun, control_plane, envoy, admin, http })
    }

    /// Waits until the last host is served.
    pub(crate) fn wait(&mut self, workload: &Workload) -> anyhow::Result<Start> {
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
    pub(crate) fn request_every_host(&self, workload: &Workload) -> anyhow::Result<f64> {
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

    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let (control_plane, control_plane_peak) = self.control_plane.memory()?;
        let (envoy, envoy_peak) = self.envoy.memory()?;
        Ok(Memory { control_plane, control_plane_peak, envoy, envoy_peak })
    }

    /// Takes them off the processors, until they are resumed: what happens meanwhile waits for them.
    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        self.control_plane.pause()?;
        self.envoy.pause()
    }

    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        self.envoy.resume()?;
        self.control_plane.resume()
    }

    /// Waits until what changed while they were paused is served: an edit of each kind comes after all of it.
    pub(crate) fn catch_up(&self, workload: &Mutex<Workload>, lost: &mut usize) -> anyhow::Result<()> {
        let mut client = Client::connect(self.http)?;
        for kind in [Kind::Ingress, Kind::EndpointSlice] {
            edit_polled(&mut client, workload, kind, Picks::Still, lost)?;
        }
        Ok(())
    }

    /// Edits with polling, then edits without, over which CPU and bytes are taken.
    pub(crate) fn series(
        &mut self,
        workload: &Mutex<Workload>,
        kind: Kind,
        [polled, unpolled]: [usize; 2],
        lost: &mut usize,
    ) -> anyhow::Result<Series> {
        let mut series = Series::of(self.polled(workload, kind, polled, Picks::All, lost)?);
        series.unpolled = unpolled;
        self.series_unpolled(workload, kind, &mut series)?;
        Ok(series)
    }

    /// How long each of so many edits took, in milliseconds.
    pub(crate) fn polled(
        &mut self,
        workload: &Mutex<Workload>,
        kind: Kind,
        edits: usize,
        picks: Picks,
        lost: &mut usize,
    ) -> anyhow::Result<Vec<f64>> {
        let mut served = Vec::with_capacity(edits);
        let mut client = Client::connect(self.http)?;
        for _ in 0..edits {
            let took = edit_polled(&mut client, workload, kind, picks, lost)?;
            served.push(millis(took));
            sleep(QUIET.max(took));
        }
        self.check()?;
        Ok(served)
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
