//! `bootstrap`: what an Envoy of this control plane starts with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::{memory_limit, output};
use crate::options::host_port;
use crate::translate::bootstrap::{MAX_CONNECTIONS, NODE_CLUSTER, Options, Tls, bootstrap, secrets};
use crate::translate::mutual_tls::Files;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where it is written; standard output unless given. With mutual TLS, what makes Envoy read its certificate, key and
    /// authority again when they are exchanged is written beside it: Envoy has to see this folder by the same path
    #[arg(long, value_name = "FILE")]
    write_to: Option<PathBuf>,
    /// The control plane's xDS, as this Envoy reaches it
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:18000", value_parser = host_port)]
    xds_address: (String, u16),
    /// Where Envoy's admin interface listens; loopback only
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9901")]
    admin_address: SocketAddr,
    /// What this Envoy is called, unlike any other of the control plane; the host's name unless given
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,
    /// What all Envoys that serve the same are called
    #[arg(long, value_name = "NAME", default_value = NODE_CLUSTER)]
    node_cluster: String,
    /// Bytes of memory that Envoy has (also 512Mi, 2Gi); the limit of the container that this runs in unless given
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory_limit: Option<u64>,
    /// Connections from clients that are taken at once
    #[arg(long, value_name = "COUNT", default_value_t = MAX_CONNECTIONS)]
    max_connections: u64,
    /// PEM file with Envoy's certificate chain, for mutual TLS to the control plane
    #[arg(long, value_name = "FILE")]
    xds_tls_cert: Option<String>,
    /// PEM file with its private key
    #[arg(long, value_name = "FILE")]
    xds_tls_key: Option<String>,
    /// PEM file with the authority that signs the control plane's certificate
    #[arg(long, value_name = "FILE")]
    xds_ca: Option<String>,
}

pub(super) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let tls = match (args.xds_tls_cert, args.xds_tls_key, args.xds_ca) {
        (None, None, None) => None,
        (Some(certificate), Some(key), Some(authority)) => Some(Tls {
            files: Files { certificate, key, authority },
            secrets: args.write_to.as_deref().map(folder).transpose()?,
        }),
        _ => bail!("--xds-tls-cert, --xds-tls-key and --xds-ca go together: both sides prove who they are"),
    };
    let options = Options {
        node_id: args.node_id.map_or_else(host_name, Ok)?,
        node_cluster: args.node_cluster,
        xds: args.xds_address,
        admin: args.admin_address,
        memory_limit: args.memory_limit.or_else(memory_limit),
        max_connections: args.max_connections,
        tls,
    };
    if let Some(tls) = &options.tls {
        write_secrets(tls)?;
    }
    let text = serde_json::to_string_pretty(&bootstrap(&options)?)?;
    match args.write_to {
        None => output::print(&(text + "\n"))?,
        Some(path) => write(&path, text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder that a file is in.
fn folder(file: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(file).with_context(|| format!("cannot find {}", file.display()))?;
    let folder = path.parent().and_then(Path::to_str);
    Ok(folder
        .with_context(|| format!("{} is in no folder that Envoy could name", path.display()))?
        .to_owned())
}

fn write_secrets(tls: &Tls) -> anyhow::Result<()> {
    let Some(folder) = &tls.secrets else {
        tracing::warn!("Envoy will read its certificate once: with --write-to, it sees when it is exchanged");
        return Ok(());
    };
    for (name, secret) in secrets(&tls.files)? {
        write(&Path::new(folder).join(name), serde_json::to_string_pretty(&secret)?)?;
    }
    Ok(())
}

fn write(path: &Path, text: String) -> anyhow::Result<()> {
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

fn host_name() -> anyhow::Result<String> {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read this host's name")?;
    let name = name.trim();
    if name.is_empty() {
        bail!("this host has no name: give --node-id");
    }
    Ok(name.to_owned())
}

/// Bytes of a Kubernetes quantity without fractions.
fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("", 1),
    ];
    let number = |(unit, factor): (&str, u64)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(factor).filter(|bytes| *bytes > 0)
    };
    UNITS.into_iter().find_map(number).ok_or_else(|| "expected bytes, such as 536870912 or 512Mi".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [("1", 1), ("512Mi", 512 << 20), ("2G", 2_000_000_000), ("1k", 1_000)] {
            assert_eq!(bytes(text), Ok(expected));
        }
        for text in ["", "0", "Mi", "1.5Gi", "-1", "1m", "99999999999Ti"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
