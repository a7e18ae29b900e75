//! A folder of manifests: one file an object, its name numbered in the order of application.

use crate::manifest::{Object, ObjectRef};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder, and which file holds which object.
pub(crate) struct Files {
    folder: PathBuf,
    /// Beside the folder, so that a rename moves a whole file into it.
    staging: PathBuf,
    held: Vec<(Object, PathBuf)>,
    applied: usize,
}

impl Files {
    /// Makes the folder `manifests` in `parent`.
    pub(crate) fn create(parent: &Path) -> Result<Files> {
        let (folder, staging) = (parent.join("manifests"), parent.join("staging"));
        fs::create_dir_all(&folder)
            .and_then(|()| fs::create_dir_all(&staging))
            .context("cannot make the folder")?;
        Ok(Files { folder, staging, held: Vec::new(), applied: 0 })
    }

    pub(crate) fn apply(&mut self, object: &Object) -> Result<()> {
        let path = match self.held.iter_mut().find(|(held, _)| held.is_same(object)) {
            Some((held, path)) => {
                *held = object.clone();
                path.clone()
            }
            None => {
                self.applied += 1;
                let path = self.folder.join(file_name(self.applied, object));
                self.held.push((object.clone(), path.clone()));
                path
            }
        };
        let staged = self.staging.join("next");
        fs::write(&staged, &object.text)
            .and_then(|()| fs::rename(&staged, &path))
            .context("cannot write a manifest")
    }

    pub(crate) fn delete(&mut self, reference: &ObjectRef) -> Result<()> {
        let place = self.held.iter().position(|(object, _)| object.is_meant_by(reference));
        let (_, path) = self.held.remove(place.with_context(|| format!("{reference} does not exist"))?);
        fs::remove_file(path).context("cannot remove a manifest")
    }

    /// Removes what is in a namespace, and says what it was.
    pub(crate) fn remove_namespace(&mut self, name: &str) -> Result<Vec<Object>> {
        let inside = |(object, _): &mut (Object, PathBuf)| object.namespace.as_deref() == Some(name);
        let removed = self.held.extract_if(.., inside).map(|(object, path)| {
            fs::remove_file(path).context("cannot remove a manifest")?;
            Ok(object)
        });
        removed.collect()
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.held.iter().map(|(object, _)| object)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

fn file_name(number: usize, object: &Object) -> String {
    let parts = [Some(object.kind.as_str()), object.namespace.as_deref(), Some(object.name.as_str())];
    let name = parts.into_iter().flatten().collect::<Vec<_>>().join("-").to_lowercase();
    // A malformed name must not leave the folder, nor exceed what a file name can be.
    let name: String = name.chars().map(|c| if c == '/' || c == '\0' { '_' } else { c }).take(120).collect();
    format!("{number:04}-{name}.yaml")
}
