//! The manifests in a real API server.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chancery::source::kubernetes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use super::manifests::NAMESPACE;
use super::process;
use super::server;

/// Objects that are created at once.
const CREATED_AT_ONCE: usize = 32;

/// An Ingress whose status shows an address.
pub(crate) struct Shown {
    pub(crate) name: String,
    /// When that was seen.
    pub(crate) at: Instant,
}

/// An API server of its own, and whoever writes to it.
pub(crate) struct Cluster {
    server: server::Cluster,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let server = server::Cluster::start();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(kubernetes::connect(Some(&server.path("admin"))))?;
        let this = Self { server, client, runtime };
        this.create_namespace(NAMESPACE);
        Ok(this)
    }

    pub(crate) fn create_namespace(&self, name: &str) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.server.apply(&namespace.to_string());
    }

    /// What reaches it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.server.path("admin")
    }

    /// What was asked of it so far, and answered.
    pub(crate) fn audit(&self) -> Vec<Value> {
        self.server.audit()
    }

    /// CPU of the API server and its etcd so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.server.ids().into_iter().map(process::cpu).sum()
    }

    pub(crate) fn delete_ingresses(&self) -> anyhow::Result<()> {
        let api = self.ingresses();
        self.runtime.block_on(async {
            api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
            Ok(())
        })
    }

    /// Every Ingress whose status shows an address from now on, each time that it is seen.
    pub(crate) fn shown(&self) -> anyhow::Result<Receiver<Shown>> {
        let (sender, shown) = channel();
        let (begun, begins) = channel();
        let api = self.ingresses();
        self.runtime.spawn(async move {
            let mut events = pin!(watcher(api, watcher::Config::default()));
            while let Ok(event) = events.try_next().await {
                let at = Instant::now();
                match event {
                    Some(watcher::Event::Apply(ingress)) if shows_address(&ingress) => {
                        if sender.send(Shown { name: ingress.name_any(), at }).is_err() {
                            return;
                        }
                    }
                    // Nobody may wait for it any more.
                    Some(watcher::Event::InitDone) => drop(begun.send(())),
                    Some(_) => {}
                    None => return,
                }
            }
        });
        begins.recv().context("Ingresses cannot be watched")?;
        Ok(shown)
    }

    fn ingresses(&self) -> Api<Ingress> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub(crate) fn create(&self, objects: impl IntoIterator<Item = Value>) -> anyhow::Result<()> {
        let created = stream::iter(objects).map(|object| self.create_one(object));
        self.runtime.block_on(created.buffer_unordered(CREATED_AT_ONCE).try_collect())
    }

    async fn create_one(&self, object: Value) -> anyhow::Result<()> {
        let (api, object) = self.api(object)?;
        let created = api.create(&PostParams::default(), &object).await;
        created.with_context(|| format!("creating {}", object.name_any()))?;
        Ok(())
    }

    /// Changes an object, and answers when the server said that it has.
    pub(crate) fn merge(&self, object: &Value) -> anyhow::Result<Instant> {
        let (api, object) = self.api(object.clone())?;
        self.runtime.block_on(async {
            api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(&object)).await?;
            Ok(Instant::now())
        })
    }

    fn api(&self, object: Value) -> anyhow::Result<(Api<DynamicObject>, DynamicObject)> {
        let object: DynamicObject = serde_json::from_value(object)?;
        let types = object.types.as_ref().context("an object without a kind")?;
        let kind = GroupVersionKind::try_from(types)?;
        let api = Api::namespaced_with(self.client.clone(), NAMESPACE, &ApiResource::from_gvk(&kind));
        Ok((api, object))
    }
}

fn shows_address(ingress: &Ingress) -> bool {
    let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.and_then(|balancer| balancer.ingress.as_ref()).is_some_and(|addresses| !addresses.is_empty())
}
