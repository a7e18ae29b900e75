//! Where the objects of a case live, and how the control plane gets them.

mod files;

pub(crate) use files::Files;

use crate::case::values::ObjectRef;
use crate::manifest::Object;
use anyhow::Result;
use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;

/// The cluster of one case. One kind for each mode; a Kubernetes one keeps a folder too, for `{manifests}`.
pub(crate) enum Cluster {
    /// A folder of manifests.
    Files(Files),
}

impl Cluster {
    /// Creates or updates an object.
    pub(crate) fn apply(&mut self, object: &Object) -> Result<()> {
        match self {
            Cluster::Files(files) => files.apply(object),
        }
    }

    /// Deletes an object, which must be there.
    pub(crate) fn delete(&mut self, reference: &ObjectRef) -> Result<()> {
        match self {
            Cluster::Files(files) => files.delete(reference),
        }
    }

    /// The object as the cluster holds it, which may be more than what was applied; none where the mode has no such thing.
    pub(crate) fn read(&self, _: &ObjectRef) -> Result<Option<Value>> {
        match self {
            Cluster::Files(_) => Ok(None),
        }
    }

    /// The objects that are there now.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Object> {
        match self {
            Cluster::Files(files) => files.objects(),
        }
    }

    /// The folder of manifests, kept current.
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Cluster::Files(files) => files.folder(),
        }
    }

    /// The flags that point the control plane here.
    pub(crate) fn flags(&self) -> Vec<(&'static str, OsString)> {
        match self {
            Cluster::Files(files) => vec![("--manifests", files.folder().into())],
        }
    }
}
