//! The Envoy that `run` starts beside the control plane.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, Command};

use crate::options::RunOptions;
use crate::translate::bootstrap::{self, MAX_CONNECTIONS, NODE_CLUSTER};

/// How long Envoy may take to end when asked; then it is killed.
const END_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Envoy {
    child: Child,
}

/// Starts it, with a bootstrap for this control plane.
pub(super) fn start(options: &RunOptions, xds: SocketAddr) -> anyhow::Result<Envoy> {
    let bootstrap = bootstrap::bootstrap(&bootstrap::Options {
        node_id: "chancery-run".to_owned(),
        node_cluster: NODE_CLUSTER.to_owned(),
        xds: (xds.ip().to_string(), xds.port()),
        admin: options.envoy_admin,
        // Half: the other half is the control plane's and the system's.
        memory_limit: options.envoy_memory.map(|memory| memory / 2),
        max_connections: MAX_CONNECTIONS,
        tls: None,
    })?;
    let child = Command::new(&options.envoy)
        .args(["--use-dynamic-base-id", "--log-level", "warning", "--drain-time-s", "1", "--config-yaml"])
        .arg(bootstrap.to_string())
        .stdin(Stdio::null())
        // Its own group: a Ctrl-C in the terminal reaches only us, and we end it in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start Envoy ({})", options.envoy.display()))?;
    tracing::info!(
        http = %SocketAddr::new(options.serve.settings.envoy_address, options.serve.settings.http_port),
        https = %SocketAddr::new(options.serve.settings.envoy_address, options.serve.settings.https_port),
        admin = %options.envoy_admin,
        "Envoy started"
    );
    Ok(Envoy { child })
}

impl Envoy {
    pub(super) async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Asks it to end, and kills it if it does not.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
            && rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok()
            && tokio::time::timeout(END_WITHIN, self.child.wait()).await.is_ok()
        {
            return;
        }
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "cannot end Envoy");
        }
    }
}
