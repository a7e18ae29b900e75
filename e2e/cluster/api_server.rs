//! A kube-apiserver with its etcd, on loopback. It outlives a case, and knows no controller, scheduler or kubelet.

use super::api::{Api, refused_with};
use super::definitions;
use crate::manifest::Object;
use crate::process::Program;
use anyhow::{Context as _, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
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
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        fs::write(folder.join("certificate"), own.cert.pem())?;
        fs::write(folder.join("key"), own.signing_key.serialize_pem())?;
        fs::write(folder.join("key.pub"), own.signing_key.public_key_pem())?;
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

    /// The path of an object, whose kind is defined first where it is not served.
    pub(super) async fn locate(&mut self, object: &Object) -> Result<String> {
        if object.name.is_empty() {
            bail!("metadata.name: an object needs a name");
        }
        if self.api.resource(object).is_none() {
            definitions::permit(&mut self.api, object, &mut self.permitted).await?;
        }
        let resource = self.api.resource(object).context("what was defined is not known")?;
        Ok(resource.path(object.namespace.as_deref(), &object.name))
    }

    /// Creates or updates an object, its namespace being there; `path` is its own. Says what the object is then.
    pub(super) async fn apply(&mut self, path: &str, object: &Object) -> Result<Value> {
        let mut applied = self.api.apply(path, &object.text).await?;
        if has_status_of_others(object) {
            applied = self.api.apply(&format!("{path}/status"), &object.text).await?;
        }
        if object.kind == "CustomResourceDefinition" {
            self.api.define(&object.value).await?;
        }
        Ok(applied)
    }

    /// Makes a namespace, unless it is there.
    pub(super) async fn make_namespace(&self, name: &str) -> Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        match self.api.create("/api/v1/namespaces", &namespace).await {
            Err(error) if !refused_with(&error, 409) => Err(error).context("its namespace"),
            _ => Ok(()),
        }
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

/// Whether the manifest gives a status that else nobody would: there is neither a kubelet nor a load balancer.
fn has_status_of_others(object: &Object) -> bool {
    object.group.is_empty()
        && ["Node", "Pod", "Service"].contains(&object.kind.as_str())
        && object.value["status"].as_object().is_some_and(|status| !status.is_empty())
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
        ("tls-cert-file", at("certificate")),
        ("tls-private-key-file", at("key")),
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

/// The server's certificate is signed by itself.
fn write_kubeconfig(folder: &Path, port: u16) -> Result<PathBuf> {
    let (path, certificate) = (folder.join("kubeconfig"), folder.join("certificate"));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
         clusters: [{{name: it, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: '{}'}}}}]\n\
         users: [{{name: it, user: {{token: admin}}}}]\n\
         contexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n",
        certificate.display(),
    );
    fs::write(&path, text).context("cannot write a kubeconfig")?;
    Ok(path)
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
