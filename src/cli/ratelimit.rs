//! `ratelimit`: the rate limit service alone.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::mutual_tls;
use crate::ratelimit::serve::{self, Listeners};
use crate::tls::MutualTls;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where Envoys reach it; port 0 picks one and logs it
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:18002")]
    ratelimit_listen: SocketAddr,
    /// Where gRPC health is listened on without TLS, for probes that know none; nowhere unless given
    #[arg(long, value_name = "IP:PORT")]
    health_listen: Option<SocketAddr>,
    #[command(flatten)]
    tls: mutual_tls::Args,
    /// The debug endpoint of the control plane whose limits are followed
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:18001")]
    server: String,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let tls = args.tls.files()?.map(MutualTls::open).transpose();
    let (tls, certificates) = tls.context("cannot use the files of mutual TLS")?.unzip();
    let flags = "--xds-tls-cert, --xds-tls-key and --xds-ca";
    args.tls.may_listen(args.ratelimit_listen, tls.is_some(), "the rate limit service", flags)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    runtime.block_on(async {
        let calls = listen("ratelimit", args.ratelimit_listen).await?;
        let health = match args.health_listen {
            Some(address) => Some(listen("health", address).await?),
            None => None,
        };
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        let listeners = Listeners { calls, tls, health };
        let following = async {
            if let Some(certificates) = certificates {
                certificates.run().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = serve::alone(listeners, &args.server, shutdown) => served?,
            () = following => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn listen(service: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!(service, address = %listener.local_addr()?, "listening");
    Ok(listener)
}
