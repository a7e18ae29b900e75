//! A control plane, an Envoy and a backend, with the certificates by which they know each other.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::certificates::{Authority, Volume};
use crate::process::{Program, envoy, free_port, get, until};

/// By which all of them are reached.
pub(crate) const ADDRESS: &str = "127.0.0.1";

/// The folder of manifests: in one of its own, since what holds it is watched too, and would be for every line of a log.
pub(crate) const MANIFESTS: &str = "input/manifests";

/// Counted by the rate limit service, which says so in each answer.
const OBJECTS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: api, namespace: ml}
spec:
  ingressClassName: nginx
  rules:
  - host: HOST
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}
---
apiVersion: chancery.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: quota, namespace: ml}
spec:
  targetRef: {kind: Ingress, name: api}
  limits:
  - {key: {header: x-api-key}, requests: 1000000, window: 1h}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: ml}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: app, namespace: ml, labels: {kubernetes.io/service-name: app}}
addressType: IPv4
ports: [{port: PORT}]
endpoints: [{addresses: [127.0.0.1]}]
"#;

pub(crate) struct World {
    pub(crate) folder: TempDir,
    /// The files of the control plane, of the rate limit service where it is apart, and of Envoy.
    pub(crate) volumes: [Volume; 3],
    pub(crate) xds: u16,
    pub(crate) admin: u16,
    pub(crate) http: u16,
    pub(crate) https: u16,
    pub(crate) envoy_admin: u16,
    ratelimit: u16,
    backend: u16,
    programs: Vec<Program>,
}

impl World {
    /// Nothing runs yet, and there are certificates.
    pub(crate) fn new(authority: &Authority, serial: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join(MANIFESTS)).unwrap();
        let volumes =
            ["control-plane", "ratelimit", "envoy"].map(|name| Volume::new(folder.path().join(name)));
        let this = Self {
            volumes,
            folder,
            xds: free_port(),
            admin: free_port(),
            http: free_port(),
            https: free_port(),
            envoy_admin: free_port(),
            ratelimit: free_port(),
            backend: backend(),
            programs: Vec::new(),
        };
        this.exchange(serial, authority, &[authority]);
        this
    }

    /// Gives everybody a new certificate of an authority, and authorities to trust.
    pub(crate) fn exchange(&self, serial: u64, authority: &Authority, trusted: &[&Authority]) {
        for volume in &self.volumes {
            volume.exchange(serial, &authority.sign(ADDRESS, serial), trusted);
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Writes a manifest as a whole.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let hidden = self.path(&format!(".{name}"));
        fs::write(&hidden, text).unwrap();
        fs::rename(hidden, self.path(MANIFESTS).join(name)).unwrap();
    }

    /// The routes of this host, and nothing else that is written here.
    pub(crate) fn route(&self, host: &str) {
        self.write("api.yaml", &OBJECTS.replace("HOST", host).replace("PORT", &self.backend.to_string()));
    }

    fn start(&mut self, log: &str, command: &mut Command) {
        let log = self.path(log);
        self.programs.push(Program::start(command, log));
    }

    /// Waits for what was started last.
    fn until_it<T>(&mut self, what: &str, condition: impl Fn() -> Option<T>) {
        let it = self.programs.last_mut().unwrap();
        until(what, || match it.ended() {
            Some(end) => panic!("{what} ended: {end}"),
            None => condition(),
        });
    }

    /// Ends everything that was started with `start_control_plane` and `start_ratelimit`.
    pub(crate) fn stop_all_but_envoy(&mut self) {
        let envoy = self.programs.pop();
        self.programs.clear();
        self.programs.extend(envoy);
    }

    /// Starts it with the rate limit service inside or apart.
    pub(crate) fn start_control_plane(&mut self, embedded: bool) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
        command.args(["serve", "--log-level=trace", "--envoy-address=127.0.0.1"]);
        command.arg("--manifests").arg(self.path(MANIFESTS)).args(self.volumes[0].flags());
        command.args([
            format!("--xds-listen=0.0.0.0:{}", self.xds),
            format!("--admin-listen={ADDRESS}:{}", self.admin),
            format!("--http-port={}", self.http),
            format!("--https-port={}", self.https),
            format!("--ratelimit-tls={}", self.folder.path().display()),
        ]);
        let limits = format!("{ADDRESS}:{}", self.ratelimit);
        if embedded {
            command.arg(format!("--ratelimit-listen=0.0.0.0:{}", self.ratelimit));
            command.arg(format!("--ratelimit-address={limits}"));
        } else {
            command.arg(format!("--ratelimit={limits}"));
        }
        self.start("chancery.log", &mut command);
        let admin = self.admin;
        self.until_it("a control plane that is ready", || get(admin, "/readyz"));
    }

    pub(crate) fn start_ratelimit(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
        command.args(["ratelimit", &format!("--ratelimit-listen=0.0.0.0:{}", self.ratelimit)]);
        command.arg(format!("--xds={ADDRESS}:{}", self.xds)).args(self.volumes[1].flags());
        let health = free_port();
        command.arg(format!("--health-listen={ADDRESS}:{health}"));
        self.start("ratelimit.log", &mut command);
        self.until_it("a rate limit service that serves", || serves(health));
    }

    /// Starts it with what `bootstrap` writes, and waits until it has listeners. It comes last.
    pub(crate) fn start_envoy(&mut self) {
        let path = self.path("bootstrap.json");
        let mut bootstrap = Command::new(env!("CARGO_BIN_EXE_chancery"));
        bootstrap.arg("bootstrap").arg("--write-to").arg(&path).args(self.volumes[2].flags());
        bootstrap.arg(format!("--xds-address={ADDRESS}:{}", self.xds));
        bootstrap.arg(format!("--admin-address={ADDRESS}:{}", self.envoy_admin));
        assert!(bootstrap.status().unwrap().success());
        let mut command = Command::new(envoy());
        command
            .args(["--use-dynamic-base-id", "--log-level", "warning", "--concurrency", "1", "-c"])
            .arg(path);
        self.start("envoy.log", &mut command);
        let admin = self.envoy_admin;
        self.until_it("an Envoy that is ready", || get(admin, "/ready").filter(|it| it.contains("LIVE")));
    }

    /// An answer of a host, known to be counted by the rate limit service; else what is wrong with it.
    pub(crate) fn ask(&self, host: &str) -> Result<(), String> {
        ask(self.http, host)
    }

    /// The numbers of the streams that the control plane serves.
    pub(crate) fn streams(&self) -> Vec<u64> {
        let page = get(self.admin, "/debug/nodes").unwrap();
        let nodes: Value = serde_json::from_str(&body(&page)).unwrap();
        nodes["nodes"].as_array().unwrap().iter().map(|node| node["stream"].as_u64().unwrap()).collect()
    }
}

/// What a probe that knows no TLS is told.
fn serves(port: u16) -> Option<()> {
    let ask = async {
        let endpoint = Channel::from_shared(format!("http://{ADDRESS}:{port}")).unwrap();
        let mut client = HealthClient::new(endpoint.connect().await.ok()?);
        client.check(HealthCheckRequest::default()).await.ok()
    };
    let answer = tokio::runtime::Runtime::new().unwrap().block_on(ask)?.into_inner();
    (answer.status() == ServingStatus::Serving).then_some(())
}

pub(crate) fn ask(port: u16, host: &str) -> Result<(), String> {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((ADDRESS, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: one\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().map_err(|error| error.to_string())?;
    let counted = answer.to_lowercase().contains("x-ratelimit-remaining");
    if answer.starts_with("HTTP/1.1 200") && counted { Ok(()) } else { Err(answer) }
}

/// What an answer holds.
pub(crate) fn body(answer: &str) -> String {
    let (head, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    if !head.contains("chunked") {
        return rest.to_owned();
    }
    let mut body = String::new();
    while let Some((size, chunks)) = rest.split_once("\r\n") {
        let (chunk, further) = chunks.split_at(usize::from_str_radix(size, 16).unwrap());
        body += chunk;
        rest = further.trim_start_matches("\r\n");
    }
    body
}

/// A server that answers everything; it ends with the process.
fn backend() -> u16 {
    let listener = TcpListener::bind((ADDRESS, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_all(stream));
        }
    });
    port
}

fn answer_all(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|read| read == 1) {
        request.push(byte[0]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }
}
