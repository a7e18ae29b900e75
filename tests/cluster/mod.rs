//! A real API server that writes down who asked it for what, for every test program that needs one.

#![allow(dead_code, reason = "each test program uses a part of it")]

#[path = "../process.rs"]
pub(crate) mod process;
pub(crate) mod tools;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use self::process::{Program, ask, free_port, until};
use self::tools::{api_server, attempt, kubectl, run};

/// Who may do everything, tests and replicas; the token comes first.
const USERS: &str = "admin,admin,1,system:masters\none,one,2,system:masters\ntwo,two,3,system:masters\n";

const AUDIT: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// What was asked of a resource: verb, API group, resource with its subresource.
pub(crate) type Asked = BTreeSet<(String, String, String)>;

/// A running API server with its etcd.
pub(crate) struct Cluster {
    folder: TempDir,
    assets: PathBuf,
    port: u16,
    etcd_port: u16,
    etcd_peer: u16,
    server: Option<Program>,
    etcd: Option<Program>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let assets = api_server();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        fs::write(at("certificate"), own.cert.pem()).unwrap();
        fs::write(at("key"), own.signing_key.serialize_pem()).unwrap();
        fs::write(at("key.pub"), own.signing_key.public_key_pem()).unwrap();
        fs::write(at("users"), USERS).unwrap();
        fs::write(at("policy"), AUDIT).unwrap();
        let mut this = Self {
            folder,
            assets,
            port: free_port(),
            etcd_port: free_port(),
            etcd_peer: free_port(),
            server: None,
            etcd: None,
        };
        this.store();
        this.serve(&[]);
        this
    }

    /// Starts etcd, in place of the one that runs, with the data of the one before.
    pub(crate) fn store(&mut self) {
        self.stop_store();
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", self.etcd_peer);
        let mut etcd = Command::new(self.assets.join("etcd"));
        etcd.arg("--data-dir").arg(self.path("etcd")).args(["--unsafe-no-fsync", "--name=one"]);
        etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        etcd.args(["--initial-cluster", &format!("one={peer}")]);
        self.etcd = Some(Program::start(&mut etcd, self.path("etcd.log")));
    }

    /// Kills etcd.
    pub(crate) fn stop_store(&mut self) {
        drop(self.etcd.take());
    }

    /// Has etcd forget all but the latest revision.
    pub(crate) fn compact(&self) {
        let post = |path: &str, body: String| {
            let length = body.len();
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            ask(self.etcd_port, &request).filter(|answer| answer.starts_with("HTTP/1.1 200"))
        };
        let status = post("/v3/maintenance/status", "{}".into()).unwrap();
        let revision = status.split("\"revision\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let body = format!("{{\"revision\": \"{}\", \"physical\": true}}", revision.unwrap());
        post("/v3/kv/compaction", body).expect("etcd compacts");
    }

    /// Starts the API server, in place of the one that runs, with further flags, and waits until it is ready.
    pub(crate) fn serve(&mut self, flags: &[&str]) {
        drop(self.server.take());
        let at = |name: &str| self.path(name).display().to_string();
        let mut command = Command::new(self.assets.join("kube-apiserver"));
        command.args([
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            "--bind-address=127.0.0.1".into(),
            // For nobody to use: without one it wants a route to elsewhere, which not every machine has.
            "--advertise-address=198.18.0.1".into(),
            "--endpoint-reconciler-type=none".into(),
            format!("--secure-port={}", self.port),
            format!("--tls-cert-file={}", at("certificate")),
            format!("--tls-private-key-file={}", at("key")),
            "--service-cluster-ip-range=10.96.0.0/12".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", at("key.pub")),
            format!("--service-account-signing-key-file={}", at("key")),
            "--authorization-mode=RBAC".into(),
            format!("--token-auth-file={}", at("users")),
            format!("--audit-policy-file={}", at("policy")),
            format!("--audit-log-path={}", at("audit")),
        ]);
        command.args(flags);
        self.server = Some(Program::start(&mut command, self.path("server.log")));
        fs::write(self.path("admin"), self.kubeconfig("admin")).unwrap();
        until("the API server", || {
            if let Some(end) = self.server.as_mut().and_then(Program::ended) {
                panic!("the API server ended: {end}");
            }
            attempt(self.kubectl().args(["get", "--raw=/readyz"]), "").ok()
        });
    }

    /// What the kernel knows the API server and etcd by, those of them that run.
    pub(crate) fn ids(&self) -> Vec<u32> {
        [&self.server, &self.etcd].into_iter().flatten().map(Program::id).collect()
    }

    /// The path of a file that goes with this value.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the API server listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A kubeconfig for whoever has the token.
    pub(crate) fn kubeconfig(&self, token: &str) -> String {
        self.kubeconfig_by(token, self.port)
    }

    /// The same by way of another port.
    pub(crate) fn kubeconfig_by(&self, token: &str, port: u16) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
             clusters: [{{name: it, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: '{}'}}}}]\n\
             users: [{{name: it, user: {{token: '{token}'}}}}]\n\
             contexts: [{{name: it, context: {{cluster: it, user: it, namespace: chancery-system}}}}]\n",
            self.path("certificate").display(),
        )
    }

    /// kubectl, for the one who may do everything.
    pub(crate) fn kubectl(&self) -> Command {
        self.administered(kubectl())
    }

    /// A command for the one who may do everything.
    pub(crate) fn administered(&self, mut command: Command) -> Command {
        command.env("KUBECONFIG", self.path("admin")).env("HOME", self.folder.path());
        command
    }

    /// Applies manifests.
    pub(crate) fn apply(&self, text: &str) {
        run(self.kubectl().args(["apply", "--server-side", "-f", "-"]), text);
    }

    /// Applies manifests, or says why that is not possible now.
    pub(crate) fn attempt_to_apply(&self, text: &str) -> Result<String, String> {
        attempt(self.kubectl().args(["apply", "--server-side", "-f", "-"]), text)
    }

    /// What was asked so far, and answered.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.path("audit")).unwrap();
        // The last line may be under way.
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What a user has asked for so far, and what of it was refused.
    pub(crate) fn asked_by(&self, user: &str) -> (Asked, Asked) {
        let (mut asked, mut refused) = (Asked::new(), Asked::new());
        for event in self
            .audit()
            .iter()
            .filter(|event| event["user"]["username"] == user && event["objectRef"].is_object())
        {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let reference = &event["objectRef"];
            let subresource = text(&reference["subresource"]);
            let resource = match subresource.as_str() {
                "" => text(&reference["resource"]),
                name => format!("{}/{name}", text(&reference["resource"])),
            };
            let one = (text(&event["verb"]), text(&reference["apiGroup"]), resource);
            if event["responseStatus"]["code"] == 403 {
                refused.insert(one.clone());
            }
            asked.insert(one);
        }
        (asked, refused)
    }
}
