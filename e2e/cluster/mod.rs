//! Where the objects of a case live, and how the control plane gets them.

mod api;
mod api_server;
mod definitions;
mod files;
mod kubernetes;
mod pool;

pub(crate) use files::Files;
pub(crate) use kubernetes::Kubernetes;

use crate::case::Mode;
use crate::manifest::{Object, ObjectRef};
use crate::process::Program;
use crate::settings::Settings;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;

/// The cluster of one case. One kind for each mode; a Kubernetes one keeps a folder too, for `{manifests}`.
pub(crate) enum Cluster {
    /// A folder of manifests.
    Files(Files),
    /// A real API server.
    Kubernetes(Box<Kubernetes>),
}

impl Cluster {
    /// An empty cluster for a case; `parent` is the case's folder.
    pub(crate) async fn open(mode: Mode, parent: &Path, settings: &Settings) -> Result<Cluster> {
        Ok(match mode {
            Mode::Files => Cluster::Files(Files::create(parent)?),
            Mode::Kubernetes => Cluster::Kubernetes(Box::new(Kubernetes::open(parent, settings).await?)),
        })
    }

    /// Creates or updates the objects of one step, in order.
    pub(crate) async fn apply(&mut self, objects: &[Object]) -> Result<()> {
        match self {
            Cluster::Files(files) => objects.iter().try_for_each(|object| {
                files.apply(object).with_context(|| format!("{} {}", object.kind, object.name))
            }),
            Cluster::Kubernetes(kubernetes) => kubernetes.apply(objects).await,
        }
    }

    /// Deletes an object, which must be there.
    pub(crate) async fn delete(&mut self, reference: &ObjectRef) -> Result<()> {
        match self {
            Cluster::Files(files) => files.delete(reference),
            Cluster::Kubernetes(kubernetes) => kubernetes.delete(reference).await,
        }
    }

    /// The object as the cluster holds it, which may be more than what was applied; none where it does not exist.
    pub(crate) async fn read(&self, reference: &ObjectRef) -> Result<Option<Value>> {
        match self {
            Cluster::Files(_) => Ok(None),
            Cluster::Kubernetes(kubernetes) => kubernetes.read(reference).await,
        }
    }

    /// The objects that are there now.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.files().objects()
    }

    /// The folder of manifests, kept current.
    pub(crate) fn folder(&self) -> &Path {
        self.files().folder()
    }

    fn files(&self) -> &Files {
        match self {
            Cluster::Files(files) => files,
            Cluster::Kubernetes(kubernetes) => &kubernetes.files,
        }
    }

    /// How a client gets to the API server, if there is one.
    pub(crate) fn kubeconfig(&self) -> Option<&Path> {
        match self {
            Cluster::Files(_) => None,
            Cluster::Kubernetes(kubernetes) => Some(kubernetes.kubeconfig()),
        }
    }

    /// The flags that point the control plane here.
    pub(crate) fn flags(&self) -> Vec<(&'static str, OsString)> {
        match self {
            Cluster::Files(files) => vec![("--manifests", files.folder().into())],
            Cluster::Kubernetes(kubernetes) => vec![("--kubeconfig", kubernetes.kubeconfig().into())],
        }
    }

    /// The API server, if there is one.
    pub(crate) fn api_server(&mut self) -> Option<&mut Program> {
        match self {
            Cluster::Files(_) => None,
            Cluster::Kubernetes(kubernetes) => Some(kubernetes.program()),
        }
    }

    /// Waits until an API server that was started answers.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        match self {
            Cluster::Files(_) => Ok(()),
            Cluster::Kubernetes(kubernetes) => kubernetes.ready().await,
        }
    }

    /// Says what of it has ended and should run.
    pub(crate) fn unexpected_end(&mut self) -> Option<String> {
        match self {
            Cluster::Files(_) => None,
            Cluster::Kubernetes(kubernetes) => kubernetes.unexpected_end(),
        }
    }

    /// Takes everything away that the case made.
    pub(crate) async fn close(self) -> Result<()> {
        match self {
            Cluster::Files(_) => Ok(()),
            Cluster::Kubernetes(kubernetes) => kubernetes.close().await,
        }
    }
}
