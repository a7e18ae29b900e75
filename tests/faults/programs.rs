//! The control plane and an Envoy, as processes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::cluster::process::{Program, ask, envoy, free_port, get, until};
use crate::cluster::tools::run;

/// The ports that all Envoys of a test listen on: a replica's resources name them.
#[derive(Clone, Copy)]
pub(crate) struct Edge {
    pub(crate) http: u16,
    https: u16,
}

impl Edge {
    pub(crate) fn new() -> Self {
        Self { http: free_port(), https: free_port() }
    }

    /// What a host answers: its status, and where it sends the client.
    pub(crate) fn answer(self, host: &str) -> String {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let Some(answer) = ask(self.http, &request) else { return "nothing".to_owned() };
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let location = answer.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_default();
        format!("{status} {location}").trim().to_owned()
    }

    /// Waits until a host answers so.
    pub(crate) fn until(self, host: &str, answer: &str) {
        let mut last = String::new();
        until(&format!("{host}: {answer}"), || {
            let now = self.answer(host);
            if now != last {
                println!("{host}: {now}");
                last.clone_from(&now);
            }
            (now == answer).then_some(())
        });
    }
}

/// A control plane, which may be killed and started again.
pub(crate) struct Replica {
    program: Option<Program>,
    args: Vec<String>,
    name: String,
    log: PathBuf,
    pub(crate) xds: u16,
    pub(crate) admin: u16,
}

impl Replica {
    /// Starts one that reaches the API server by way of a port.
    pub(crate) fn start(cluster: &Cluster, name: &str, api_server: u16, edge: Edge, more: &[&str]) -> Self {
        Self::start_as("admin", cluster, name, api_server, edge, more)
    }

    /// The same, as a user.
    pub(crate) fn start_as(
        user: &str,
        cluster: &Cluster,
        name: &str,
        api_server: u16,
        edge: Edge,
        more: &[&str],
    ) -> Self {
        let (xds, admin) = (free_port(), free_port());
        let kubeconfig = cluster.path(&format!("{name}.kubeconfig"));
        fs::write(&kubeconfig, cluster.kubeconfig_by(user, api_server)).unwrap();
        let state = cluster.path(&format!("{name}.state"));
        let mut args = vec![
            "serve".to_owned(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--state-dir={}", state.display()),
            format!("--xds-listen=127.0.0.1:{xds}"),
            format!("--admin-listen=127.0.0.1:{admin}"),
            "--ratelimit=off".to_owned(),
            "--envoy-address=127.0.0.1".to_owned(),
            format!("--http-port={}", edge.http),
            format!("--https-port={}", edge.https),
        ];
        args.extend(more.iter().map(ToString::to_string));
        let log = cluster.path(&format!("{name}.log"));
        let mut this = Self { program: None, args, name: name.to_owned(), log, xds, admin };
        this.restart();
        this
    }

    /// Kills it if it runs, and starts it.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
        command.args(&self.args).env("POD_NAME", &self.name);
        // Every error of a watch, not one now and then.
        command.env("CHANCERY_LOG", "info,chancery::source=debug");
        self.program = Some(Program::start(&mut command, self.log.clone()));
    }

    pub(crate) fn kill(&mut self) {
        drop(self.program.take());
    }

    /// What it has said since it was there first.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it says something, after what it had said before.
    pub(crate) fn until_said(&mut self, before: usize, what: &str) {
        until(what, || {
            self.alive();
            self.said()[before..].contains(what).then_some(())
        });
    }

    /// Waits until it is ready with what the API server holds (`sources`), or with what it kept (`state`).
    pub(crate) fn until_ready(&mut self, from: &str) {
        until(&format!("{}, ready from {from}", self.name), || {
            self.alive();
            get(self.admin, "/readyz").filter(|answer| answer.contains(&format!("\"from\":\"{from}\"")))
        });
    }

    fn alive(&mut self) {
        if let Some(end) = self.program.as_mut().and_then(Program::ended) {
            panic!("{} ended: {end}", self.name);
        }
    }

    /// The body of a page. Of HTTP/1.0 it comes in one piece.
    pub(crate) fn text(&self, path: &str) -> String {
        let answer = ask(self.admin, &format!("GET {path} HTTP/1.0\r\nHost: it\r\n\r\n"));
        let answer = answer.unwrap_or_else(|| panic!("{} does not answer {path}", self.name));
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// A debug page.
    pub(crate) fn page(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).unwrap()
    }

    /// The sum of a metric's values.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let is = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let text = self.text("/metrics");
        text.lines().filter(is).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Starts an Envoy whose control plane is at a port, and waits until it is ready.
pub(crate) fn start_envoy(cluster: &Cluster, id: &str, xds: u16) -> Program {
    let (path, admin) = (cluster.path(&format!("{id}.bootstrap.json")), free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
    command.args(["bootstrap", "--node-id", id]);
    command.arg(format!("--xds-address=127.0.0.1:{xds}")).arg(format!("--admin-address=127.0.0.1:{admin}"));
    fs::write(&path, run(&mut command, "")).unwrap();
    let mut command = Command::new(envoy());
    command.arg("-c").arg(&path).args(["--disable-hot-restart", "--concurrency", "1"]);
    let mut program = Program::start(&mut command, cluster.path(&format!("{id}.log")));
    until("an Envoy that is ready", || {
        if let Some(end) = program.ended() {
            panic!("Envoy ended: {end}");
        }
        get(admin, "/ready").filter(|answer| answer.contains("LIVE"))
    });
    program
}
