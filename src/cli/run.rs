//! `run`: the control plane and an Envoy on one machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::{memory_limit, serve};
use crate::options::RunOptions;

/// Where the everyday commands of a checkout install Envoy.
const INSTALLED: &str = "tools/envoy/envoy";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The Envoy binary; `envoy` of the PATH, else tools/envoy/envoy, unless given
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Where that Envoy's admin interface listens; port 0 picks one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9901")]
    envoy_admin: SocketAddr,
    #[command(flatten)]
    serve: serve::Args,
}

/// Ports that need no privilege, and a folder that must be given.
pub(super) fn defaults(command: clap::Command) -> clap::Command {
    command
        .mut_arg("manifests", |arg| arg.required(true).help("Folder of manifests to follow"))
        .mut_arg("http_port", |arg| arg.default_value("8080"))
        .mut_arg("https_port", |arg| arg.default_value("8443"))
}

impl Args {
    pub(super) fn options(self) -> anyhow::Result<RunOptions> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let envoy = match self.envoy {
            Some(envoy) => envoy,
            None => find_envoy(&path).with_context(|| {
                format!("no Envoy: neither `envoy` in the PATH nor {INSTALLED}; name one by --envoy")
            })?,
        };
        let serve = self.serve.options()?;
        if serve.xds_tls.is_some() {
            bail!(
                "--xds-tls-cert, --xds-tls-key and --xds-ca are for `serve`: here xDS stays on this machine"
            );
        }
        Ok(RunOptions { serve, envoy, envoy_admin: self.envoy_admin, envoy_memory: memory_limit() })
    }
}

fn find_envoy(path: &std::ffi::OsStr) -> Option<PathBuf> {
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders
        .map(|folder| folder.join("envoy"))
        .chain([Path::new(INSTALLED).to_owned()])
        .find(|file| file.is_file())
}
