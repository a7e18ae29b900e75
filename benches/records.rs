//! What benches keep below `target/` until it is measured again, one file of JSON each.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(file)
}

/// Keeps it instead of what was measured before.
pub(crate) fn write<T: Serialize>(file: &str, kept: &T) -> anyhow::Result<()> {
    Ok(std::fs::write(path(file), serde_json::to_vec_pretty(kept)?)?)
}

/// None if nothing was measured.
#[allow(dead_code, reason = "not every bench reports")]
pub(crate) fn read<T: DeserializeOwned>(file: &str) -> anyhow::Result<Option<T>> {
    match std::fs::read(path(file)) {
        Ok(kept) => Ok(Some(serde_json::from_slice(&kept)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
