//! A real API server for tests, with its etcd, on loopback.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::Value;
use tempfile::TempDir;

use crate::source::kinds::{Meaning, meaning};

/// Where the binaries are: `KUBEBUILDER_ASSETS`, by which others know them too.
pub(crate) fn assets() -> Option<PathBuf> {
    let assets = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS")?);
    ["etcd", "kube-apiserver"].iter().all(|name| assets.join(name).is_file()).then_some(assets)
}

/// The user that may do everything, and one that may do nothing until a role says so. Tokens are the names.
const USERS: &str = "admin,admin,1,system:masters\nreader,reader,2\n";

/// A running API server, which ends with this value.
pub(crate) struct ApiServer {
    folder: TempDir,
    port: u16,
    processes: Vec<Child>,
}

impl ApiServer {
    pub(crate) async fn start(assets: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(folder.path().join("key"), key.serialize_pem()).unwrap();
        fs::write(folder.path().join("key.pub"), key.public_key_pem()).unwrap();
        fs::write(folder.path().join("users"), USERS).unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let client = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let mut etcd = Command::new(assets.join("etcd"));
        etcd.args(["--data-dir", &at("etcd"), "--unsafe-no-fsync", "--name", "one"]);
        etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        etcd.args(["--initial-cluster", &format!("one={peer}")]);
        let mut server = Command::new(assets.join("kube-apiserver"));
        server.args(["--etcd-servers", &client, "--bind-address", "127.0.0.1", "--cert-dir", &at("certs")]);
        server.args(["--secure-port", &port.to_string(), "--service-cluster-ip-range", "10.0.0.0/24"]);
        server.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
        server.args([
            "--service-account-key-file",
            &at("key.pub"),
            "--service-account-signing-key-file",
            &at("key"),
        ]);
        server.args(["--authorization-mode", "RBAC", "--token-auth-file", &at("users")]);
        server.args(["--disable-admission-plugins", "ServiceAccount"]);
        let mut started = Self { folder, port, processes: Vec::new() };
        for (mut command, log) in [(etcd, "etcd.log"), (server, "server.log")] {
            let log = fs::File::create(started.folder.path().join(log)).unwrap();
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            started.processes.push(command.spawn().unwrap());
        }
        started.ready().await;
        started
    }

    /// Waits until the server says that it is ready.
    async fn ready(&mut self) {
        let client = self.client("admin").await;
        let patience = Instant::now() + Duration::from_secs(120);
        let request = || http::Request::get("/readyz").body(Vec::new()).unwrap();
        while let Err(error) = client.request_text(request()).await {
            let ended = self.processes.iter_mut().any(|process| process.try_wait().unwrap().is_some());
            if ended || Instant::now() > patience {
                let log = fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
                panic!("the API server does not get ready: {error}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A client for a user.
    pub(crate) async fn client(&self, user: &str) -> Client {
        super::connect(Some(&self.kubeconfig(user))).await.unwrap()
    }

    /// The path of a kubeconfig for a user.
    fn kubeconfig(&self, user: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{user}.kubeconfig"));
        let server = format!("https://127.0.0.1:{}", self.port);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
             clusters: [{{name: it, cluster: {{server: '{server}', insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: it, user: {{token: {user}}}}}]\n\
             contexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n"
        );
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            // They have nothing to lose.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The API for objects of a kind, and in its namespace.
pub(crate) fn api(client: &Client, value: &Value) -> Api<DynamicObject> {
    let text = |name: &str| value[name].as_str().unwrap().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let plural = match meaning(&api_version, &kind) {
        Meaning::Watched(watched) => watched.plural.to_owned(),
        _ => format!("{}s", kind.to_lowercase()),
    };
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: api_version.clone(),
        kind,
        plural,
    };
    match value["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Applies an object.
pub(crate) async fn apply(client: &Client, value: Value) {
    let name = value["metadata"]["name"].as_str().unwrap();
    let parameters = PatchParams::apply("test").force();
    api(client, &value).patch(name, &parameters, &Patch::Apply(&value)).await.unwrap();
}

/// Deletes an object.
pub(crate) async fn delete(client: &Client, value: Value) {
    let name = value["metadata"]["name"].as_str().unwrap();
    api(client, &value).delete(name, &DeleteParams::default()).await.unwrap();
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).unwrap().port()
}
