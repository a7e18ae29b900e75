//! A kube-apiserver with its etcd, on loopback. It outlives a case, and knows no controller, scheduler or kubelet.

use super::api::Api;
use super::definitions;
use crate::manifest::Object;
use crate::process::Program;
use anyhow::{Context as _, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the server may take until it is ready; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who may do everything; the token comes first.
const USERS: &str = "admin,admin,1,system:masters\n";

/// An address of the namespace that is no loopback address, which the server would not advertise.
const ADVERTISED: &str = "198.18.0.1";

/// A running API server, killed when this is dropped.
pub(super) struct ApiServer {
    pub(super) folder: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) api: Api,
    pub(super) program: Program,
    pub(super) etcd: Program,
    /// The definitions that every case finds.
    pub(super) standard: Vec<Object>,
    /// Those that were made for kinds that manifests named.
    pub(super) permitted: Vec<Object>,
}

impl ApiServer {
    /// Starts one in a folder of its own, on three ports from `port` on, and waits until it is ready.
    pub(super) async fn start(assets: &Path, folder: &Path, port: u16) -> Result<ApiServer> {
        // What a former run left.
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let key = rcgen::KeyPair::generate()?;
        fs::write(folder.join("key"), key.serialize_pem())?;
        fs::write(folder.join("key.pub"), key.public_key_pem())?;
        fs::write(folder.join("users"), USERS)?;
        let kubeconfig = write_kubeconfig(folder, port)?;
        let (etcd, program) = programs(assets, folder, port);
        let api = Api::new(client(&kubeconfig).await?);
        let folder = folder.to_owned();
        let (standard, permitted) = (definitions::standard()?, Vec::new());
        let mut server = ApiServer { folder, kubeconfig, api, program, etcd, standard, permitted };
        server.etcd.start()?;
        server.program.start()?;
        server.ready().await?;
        server.api.discover().await?;
        for definition in &server.standard {
            definitions::install(&mut server.api, definition).await?;
        }
        Ok(server)
    }

    /// Waits until the server is ready, with a fresh connection: those to a server that was stopped are of no use.
    pub(super) async fn ready(&mut self) -> Result<()> {
        self.api.reconnect(client(&self.kubeconfig).await?);
        let started = Instant::now();
        while !self.api.is_ready().await {
            if let Some(end) = self.unexpected_end() {
                bail!("{end}");
            }
            if started.elapsed() > PATIENCE {
                bail!("kube-apiserver does not get ready:\n{}", self.program.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Starts it again if a case has stopped it.
    pub(super) async fn revive(&mut self) -> Result<()> {
        if !self.program.is_running() {
            self.program.start()?;
            self.ready().await?;
        }
        Ok(())
    }

    pub(super) fn unexpected_end(&mut self) -> Option<String> {
        self.etcd.unexpected_end().or_else(|| self.program.unexpected_end())
    }
}

fn programs(assets: &Path, folder: &Path, port: u16) -> (Program, Program) {
    let at = |name: &str| folder.join(name).display().to_string();
    let (client, peer) = (format!("http://127.0.0.1:{}", port + 1), format!("http://127.0.0.1:{}", port + 2));
    let etcd = [
        ("name", "one".into()),
        ("data-dir", at("etcd")),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client.clone()),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", format!("one={peer}")),
        // There is nothing worth keeping.
        ("unsafe-no-fsync", "true".into()),
    ];
    let server = [
        ("etcd-servers", client),
        ("bind-address", "127.0.0.1".into()),
        ("secure-port", port.to_string()),
        ("advertise-address", ADVERTISED.into()),
        ("endpoint-reconciler-type", "none".into()),
        ("cert-dir", at("certs")),
        ("service-cluster-ip-range", "10.96.0.0/12".into()),
        ("service-account-issuer", "https://kubernetes.default.svc".into()),
        ("service-account-key-file", at("key.pub")),
        ("service-account-signing-key-file", at("key")),
        ("authorization-mode", "RBAC".into()),
        ("token-auth-file", at("users")),
        // No controller makes the ServiceAccounts that it asks Pods for.
        ("disable-admission-plugins", "ServiceAccount".into()),
        // Fair shares for many clients cost a start some time, and there are two.
        ("enable-priority-and-fairness", "false".into()),
    ];
    let flags = |flags: &[(&str, String)]| -> Vec<OsString> {
        flags.iter().map(|(flag, value)| format!("--{flag}={value}").into()).collect()
    };
    (
        Program::new("etcd", &assets.join("etcd"), flags(&etcd), folder),
        Program::new("kube-apiserver", &assets.join("kube-apiserver"), flags(&server), folder),
    )
}

/// The server signs its own certificate, and nobody else is on this loopback.
fn write_kubeconfig(folder: &Path, port: u16) -> Result<PathBuf> {
    let path = folder.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
         clusters: [{{name: it, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: it, user: {{token: admin}}}}]\n\
         contexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n"
    );
    fs::write(&path, text).context("cannot write a kubeconfig")?;
    Ok(path)
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
