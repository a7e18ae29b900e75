//! The flags of mutual TLS with Envoys and rate limit services, and where nothing is listened on without it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::ArgAction;

use crate::options::TlsFiles;

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Mutual TLS with Envoys (files are read again when they are exchanged)")]
pub(super) struct Args {
    /// PEM file with the certificate chain that Envoys are shown
    #[arg(long, value_name = "FILE")]
    xds_tls_cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, value_name = "FILE")]
    xds_tls_key: Option<PathBuf>,
    /// PEM file with the authorities that sign Envoys' certificates
    #[arg(long, value_name = "FILE")]
    xds_ca: Option<PathBuf>,
    /// Listen beyond loopback without TLS: whoever reaches xDS reads private keys, whoever reaches the rate limit
    /// service uses up quotas
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    xds_insecure: bool,
}

impl Args {
    pub(super) fn files(&self) -> anyhow::Result<Option<TlsFiles>> {
        match (&self.xds_tls_cert, &self.xds_tls_key, &self.xds_ca) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(authority)) => Ok(Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                authority: authority.clone(),
            })),
            _ => {
                bail!("--xds-tls-cert, --xds-tls-key and --xds-ca go together: Envoys prove who they are too")
            }
        }
    }

    /// Refuses to listen in plain where others than this machine can reach it. `what` says what is listened for, and
    /// `remedy` which flags make it TLS.
    pub(super) fn may_listen(
        &self,
        address: SocketAddr,
        tls: bool,
        what: &str,
        remedy: &str,
    ) -> anyhow::Result<()> {
        if !address.ip().is_loopback() && !tls && !self.xds_insecure {
            bail!(
                "refusing to listen on {address} for {what} without TLS: give {remedy}, or --xds-insecure if the \
                 network is trusted"
            );
        }
        Ok(())
    }
}
