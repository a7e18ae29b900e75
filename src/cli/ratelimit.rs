//! `ratelimit`: the rate limit service alone.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::ratelimit::serve;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where Envoys reach it; port 0 picks one and logs it
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:18002")]
    ratelimit_listen: SocketAddr,
    /// The debug endpoint of the control plane whose limits are followed
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:18001")]
    server: String,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    runtime.block_on(async {
        let address = args.ratelimit_listen;
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        tracing::info!(service = "ratelimit", address = %listener.local_addr()?, "listening");
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        serve::alone(listener, &args.server, shutdown).await?;
        Ok(ExitCode::SUCCESS)
    })
}
