//! A case's part in an API server: what it applies, and that nothing of it is left.

use super::api::absent;
use super::api_server::ApiServer;
use super::{Files, definitions, pool};
use crate::manifest::{ISTIO, Object, ObjectRef};
use crate::process::Program;
use crate::settings::Settings;
use anyhow::{Context as _, Result, bail};
use futures::stream::{StreamExt as _, TryStreamExt as _, iter};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Kinds whose age decides which of two objects wins.
const ROUTING: [&str; 5] = ["DestinationRule", "Gateway", "Ingress", "IngressRoute", "VirtualService"];

/// In a step with more routing objects than these, none waits to be younger than the one before.
const AGED: usize = 20;

/// Namespaces that the server makes itself, and would not let go.
const OWN_NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Kinds that a control plane makes objects of.
const MADE_BY_OTHERS: [&str; 2] =
    ["/api/v1/namespaces/{}/events", "/apis/coordination.k8s.io/v1/namespaces/{}/leases"];

/// Deletions at once.
const AT_ONCE: usize = 8;

/// An API server while a case has it.
pub(crate) struct Kubernetes {
    server: ApiServer,
    /// The same objects as a folder, for `{manifests}`.
    pub(super) files: Files,
    /// Namespaces that the case made.
    namespaces: BTreeSet<String>,
    /// The paths of all that was ever applied.
    made: BTreeSet<String>,
    /// The second in which the youngest routing object was created.
    youngest: u64,
}

impl Kubernetes {
    /// Takes an idle API server; `parent` is the case's folder.
    pub(crate) async fn open(parent: &Path, settings: &Settings) -> Result<Kubernetes> {
        let server = pool::take(settings).await?;
        // The logs beside those of the case.
        std::os::unix::fs::symlink(&server.folder, parent.join("kube-apiserver"))
            .context("cannot link to the API server's folder")?;
        Ok(Kubernetes {
            server,
            files: Files::create(parent)?,
            namespaces: BTreeSet::new(),
            made: BTreeSet::new(),
            youngest: 0,
        })
    }

    /// Creates or updates the objects of one step, in order.
    pub(crate) async fn apply(&mut self, objects: &[Object]) -> Result<()> {
        let is_routing = |object: &&Object| ROUTING.contains(&object.kind.as_str());
        let aged = objects.iter().filter(is_routing).count() <= AGED;
        for object in objects {
            let is_routing = is_routing(&object);
            if aged && is_routing && !self.files.objects().any(|held| held.is_same(object)) {
                self.new_second().await;
            }
            let applied = self.put(object).await;
            let applied = applied.with_context(|| format!("{} {}", object.kind, object.name))?;
            if is_routing {
                self.youngest = self.youngest.max(created(&applied));
            }
            self.files.apply(object)?;
        }
        Ok(())
    }

    /// Waits until what is created now is younger than all routing objects before: a creationTimestamp counts seconds.
    async fn new_second(&self) {
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            if now.as_secs() > self.youngest {
                return;
            }
            tokio::time::sleep(Duration::from_secs(self.youngest + 1).saturating_sub(now)).await;
        }
    }

    async fn put(&mut self, object: &Object) -> Result<Value> {
        if object.name.is_empty() {
            bail!("metadata.name: an object needs a name");
        }
        match (&object.namespace, object.kind.as_str()) {
            (Some(namespace), _) => self.make_namespace(namespace).await?,
            (None, "Namespace") if !OWN_NAMESPACES.contains(&object.name.as_str()) => {
                self.namespaces.insert(object.name.clone());
            }
            _ => {}
        }
        let path = self.server.locate(object).await?;
        self.made.insert(path.clone());
        self.server.apply(&path, object).await
    }

    async fn make_namespace(&mut self, name: &str) -> Result<()> {
        if OWN_NAMESPACES.contains(&name) || self.namespaces.contains(name) {
            return Ok(());
        }
        self.server.make_namespace(name).await?;
        self.namespaces.insert(name.to_owned());
        Ok(())
    }

    pub(super) async fn delete(&mut self, reference: &ObjectRef) -> Result<()> {
        let path = self.path(reference)?;
        let held = self.files.objects().find(|object| object.is_meant_by(reference)).cloned();
        self.server.api.delete(&path).await?;
        match reference.kind.as_str() {
            "Namespace" => self.empty_namespace(&reference.name).await?,
            "CustomResourceDefinition" => {
                self.server.api.gone(&path).await?;
                held.iter().for_each(|definition| self.server.api.forget(&definition.value));
            }
            _ => {}
        }
        held.map_or(Ok(()), |_| self.files.delete(reference))
    }

    /// What is in a namespace goes with it.
    async fn empty_namespace(&mut self, name: &str) -> Result<()> {
        for object in self.files.remove_namespace(name)? {
            let resource = self.server.api.resource(&object).context("an applied kind is known")?;
            self.server.api.purge(&resource.path(Some(name), &object.name)).await?;
        }
        self.namespaces.remove(name);
        self.server.api.end_namespace(name).await
    }

    /// The object as the API server holds it; none where it does not exist.
    pub(crate) async fn read(&self, reference: &ObjectRef) -> Result<Option<Value>> {
        absent(self.server.api.get(&self.path(reference)?).await)
    }

    /// The path of an object that a case names: of one that it applied, or else of any with that kind.
    fn path(&self, reference: &ObjectRef) -> Result<String> {
        let api = &self.server.api;
        let held = self.files.objects().find(|object| object.is_meant_by(reference));
        let is_meant = |group: &str| reference.kind != "Gateway" || group == ISTIO;
        let resource = held
            .and_then(|object| api.resource(object))
            .or_else(|| api.resource_of(&reference.kind, is_meant))
            .with_context(|| format!("{reference}: the API server knows no such kind"))?;
        Ok(resource.path(reference.namespace.as_deref(), &reference.name))
    }

    pub(super) fn kubeconfig(&self) -> &Path {
        &self.server.kubeconfig
    }

    pub(super) fn program(&mut self) -> &mut Program {
        &mut self.server.program
    }

    pub(super) async fn ready(&mut self) -> Result<()> {
        self.server.ready().await
    }

    pub(super) fn unexpected_end(&mut self) -> Option<String> {
        self.server.unexpected_end()
    }

    /// Deletes everything that the case made, and leaves the API server to the next one.
    pub(crate) async fn close(mut self) -> Result<()> {
        self.clear().await?;
        pool::give_back(self.server);
        Ok(())
    }

    /// Deletes everything that the case made, and waits until it is gone.
    pub(crate) async fn clear(&mut self) -> Result<()> {
        self.server.revive().await?;
        let (api, own) = (&self.server.api, std::mem::take(&mut self.namespaces));
        let (definitions, made): (Vec<_>, Vec<_>) = std::mem::take(&mut self.made)
            .into_iter()
            .filter(|path| !path.starts_with("/api/v1/namespaces/") || path.matches('/').count() > 4)
            .partition(|path| path.contains("/customresourcedefinitions/"));
        let namespaces = own.iter().map(String::as_str).chain(["default"]);
        let others = namespaces.flat_map(|name| MADE_BY_OTHERS.map(|path| path.replace("{}", name)));
        let all: Vec<String> = made.into_iter().chain(others).collect();
        iter(&all).map(|path| api.purge(path)).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let ends = own.iter().map(|name| api.end_namespace(name));
        iter(ends).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        for path in definitions {
            self.undefine(&path).await?;
        }
        Ok(())
    }

    /// Takes a definition of the case's away, or puts the runner's own back.
    async fn undefine(&mut self, path: &str) -> Result<()> {
        let server = &mut self.server;
        let name = path.rsplit('/').next().unwrap_or_default();
        if let Some(own) = server.standard.iter().chain(&server.permitted).find(|own| own.name == name) {
            return definitions::install(&mut server.api, own).await;
        }
        if let Some(definition) = absent(server.api.get(path).await)? {
            server.api.forget(&definition);
            absent(server.api.delete(path).await)?;
        }
        server.api.gone(path).await
    }
}

/// The second of an object's creationTimestamp.
fn created(object: &Value) -> u64 {
    let text = object.pointer("/metadata/creationTimestamp").and_then(Value::as_str).unwrap_or_default();
    text.parse::<jiff::Timestamp>().map_or(0, |time| time.as_second().cast_unsigned())
}
