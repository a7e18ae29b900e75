//! An API server, a control plane that watches it as in production, and an Envoy.

use std::fs;
use std::process::Command;

use crate::cluster::Cluster;
use crate::cluster::process::{Program, ask, envoy, free_port, get, until};
use crate::cluster::tools::run;

/// Where Ingresses are reached, as their status shows it.
pub(crate) const PUBLISHED: &str = "203.0.113.10";

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) http: u16,
    programs: Vec<Program>,
}

impl World {
    pub(crate) fn start() -> Self {
        let mut this = Self { cluster: Cluster::start(), http: free_port(), programs: Vec::new() };
        this.kubectl(&["create", "namespace", "chancery-system"]);
        this.kubectl(&["apply", "-f", "manifests/crds", "-f", "manifests/base/ingress-class.yaml"]);
        this.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd/ratelimitpolicies.chancery.dev",
        ]);
        let xds = this.start_control_plane();
        this.start_envoy(xds);
        this
    }

    fn start_control_plane(&mut self) -> u16 {
        let (xds, admin) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
        command.args(["serve", "--envoy-address=127.0.0.1", "--authz=off"]);
        command.arg("--kubeconfig").arg(self.cluster.path("admin"));
        command.args([
            format!("--publish-status-address={PUBLISHED}"),
            format!("--xds-listen=127.0.0.1:{xds}"),
            format!("--admin-listen=127.0.0.1:{admin}"),
            format!("--ratelimit-listen=127.0.0.1:{}", free_port()),
            format!("--http-port={}", self.http),
            format!("--https-port={}", free_port()),
        ]);
        self.start_program("chancery", &mut command, || get(admin, "/readyz"));
        xds
    }

    fn start_envoy(&mut self, xds: u16) {
        let (path, admin) = (self.cluster.path("bootstrap.json"), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
        command.args(["bootstrap", &format!("--xds-address=127.0.0.1:{xds}")]);
        command.arg(format!("--admin-address=127.0.0.1:{admin}"));
        fs::write(&path, run(&mut command, "")).unwrap();
        let mut command = Command::new(envoy());
        command.arg("-c").arg(&path).args(["--use-dynamic-base-id", "--concurrency", "1"]);
        let ready = || get(admin, "/ready").filter(|answer| answer.contains("LIVE"));
        self.start_program("envoy", &mut command, ready);
    }

    /// Starts a program and waits until it is ready.
    fn start_program(&mut self, name: &str, command: &mut Command, ready: impl Fn() -> Option<String>) {
        let mut program = Program::start(command, self.cluster.path(&format!("{name}.log")));
        until(&format!("{name}, ready"), || match program.ended() {
            Some(end) => panic!("{name} ended: {end}"),
            None => ready(),
        });
        self.programs.push(program);
    }

    /// What kubectl says; it must succeed.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        run(self.cluster.kubectl().args(args), "")
    }

    /// What Envoy answers: the status, and the name of the model if it is one that does.
    pub(crate) fn answer(&self, host: &str, path: &str, headers: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
        let Some(answer) = ask(self.http, &request) else { return "nothing".to_owned() };
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        match head.split(' ').nth(1) {
            Some("200") => format!("200 {body}"),
            status => status.unwrap_or_default().to_owned(),
        }
    }
}
