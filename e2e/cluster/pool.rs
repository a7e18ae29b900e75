//! API servers go from case to case, since a start costs seconds: there are as many as cases run at once.

use super::api_server::ApiServer;
use crate::settings::Settings;
use anyhow::{Context as _, Result, bail};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

/// Those that no case uses now.
static IDLE: Mutex<Vec<ApiServer>> = Mutex::new(Vec::new());

/// Above the ports of cases, below the ephemeral ones.
const FIRST_PORT: u16 = 32_000;

/// An API server that holds nothing of another case; started if there is none.
pub(super) async fn take(settings: &Settings) -> Result<ApiServer> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let assets = match &settings.kube_assets {
        Some(assets) if ["etcd", "kube-apiserver"].iter().all(|name| assets.join(name).is_file()) => assets,
        _ => bail!(
            "there is no kube-apiserver and etcd (scripts/install-kube-apiserver builds them, KUBEBUILDER_ASSETS names others)"
        ),
    };
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    if let Some(server) = idle {
        return Ok(server);
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = settings.work.join(format!("kube-apiserver-{number}"));
    // Those that were given up keep their ports no longer.
    let port = FIRST_PORT + number % 240 * 3;
    let started = ApiServer::start(assets, &folder, port).await;
    started.with_context(|| format!("no API server (logs: {})", folder.display()))
}

pub(super) fn give_back(server: ApiServer) {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(server);
}
