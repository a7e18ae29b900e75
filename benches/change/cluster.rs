//! The manifests in a real API server.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use chancery::source::kubernetes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use super::manifests::NAMESPACE;
use super::server;

/// Objects that are created at once.
const CREATED_AT_ONCE: usize = 32;

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
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        server.apply(&namespace.to_string());
        Ok(Self { server, client, runtime })
    }

    /// What reaches it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.server.path("admin")
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
