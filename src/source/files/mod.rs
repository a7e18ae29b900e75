//! Objects from manifests: a folder that is followed, or files that are read once.
//!
//! A manifest ends in `.yaml`, `.yml` or `.json`; hidden files and folders (`.name`) and other endings are left out. A
//! file holds any number of documents, a document an object or a list of them.
//!
//! - What cannot be read is a finding, and what was read of it before stays: of the whole file where it is not YAML, of
//!   the one object where only a field is wrong. A RateLimitPolicy then stands as one that cannot be read.
//! - An object that stands twice is that of the older one: by `metadata.creationTimestamp`, else by the file's name in
//!   byte order, then by the place in the file.

mod document;
mod folder;
mod follow;
mod links;
mod walk;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use document::{Content, Document, Item, Parsed, parse, place};
pub use folder::Folder;
pub use follow::follow;

use crate::store::{Change, Stored};
use crate::values::Finding;

/// Why manifests cannot be read or followed at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path does not exist, or may not be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why it is not.
        source: std::io::Error,
    },
    /// The operating system does not tell changes.
    #[error("cannot watch {path} for changes: {source}", path = path.display())]
    Watch {
        /// What was to be watched.
        path: PathBuf,
        /// Why it is not.
        source: notify::Error,
    },
}

/// What was read of files.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The objects, each once.
    pub applied: Vec<Arc<Stored>>,
    /// About what is no object, or has no effect.
    pub findings: Vec<Finding>,
}

/// Reads files, and folders with all that is below them, once. Files are called by the paths that were given.
///
/// # Errors
/// When a path that was given cannot be read. Whatever is wrong within is a finding.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, Error> {
    let mut found = Vec::new();
    for path in paths {
        let error = |source| Error::Read { path: path.clone(), source };
        if std::fs::metadata(path).map_err(error)?.is_dir() {
            let name = |below: &Path| Arc::from(path.join(below).to_string_lossy());
            let below = walk::walk(path, &mut |_| {}).map_err(error)?;
            found.extend(below.into_iter().map(|(file, below)| (name(&below), file)));
        } else {
            std::fs::File::open(path).map_err(error)?;
            found.push((Arc::from(path.to_string_lossy()), path.clone()));
        }
    }
    let mut folder = Folder::default();
    for (name, parsed) in read_all(&found, &folder) {
        folder.set(&name, parsed.unwrap_or_default());
    }
    let mut loaded = Loaded::default();
    for change in folder.changes(|_| None) {
        match change {
            Change::Applied(applied) => loaded.applied.push(applied),
            Change::Findings { findings, .. } => loaded.findings.extend(findings),
            Change::Deleted(_) | Change::Listed(..) | Change::Ready => {}
        }
    }
    Ok(loaded)
}

/// Reads files on all cores; none where there is no file.
fn read_all(files: &[(Arc<str>, PathBuf)], folder: &Folder) -> Vec<(Arc<str>, Option<Parsed>)> {
    crate::parallel::map(files, |_, (name, path)| (name.clone(), read_file(name, path, &folder.known(name))))
}

/// Reads a file; `known` as for [`parse`].
fn read_file(name: &str, path: &Path, known: &[u64]) -> Option<Parsed> {
    match std::fs::read(path) {
        Ok(bytes) => Some(parse(name, &bytes, known)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(Parsed::unreadable(name, format!("cannot be read: {error}"))),
    }
}
