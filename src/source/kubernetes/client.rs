//! The client of the API server: where it is, and how long it is waited for.

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Client, Config};

/// A connection over which nothing has come for so long is given up. An API server has something to say on every watch
/// more often: a bookmark each 75 seconds at most.
const SILENCE: Duration = Duration::from_secs(90);

/// Why there is no API server to talk to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig that was named cannot be used.
    #[error("cannot use {path}: {source}", path = path.display())]
    Kubeconfig {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// There is neither a kubeconfig nor a service account.
    #[error("no Kubernetes to watch: {0}")]
    Infer(#[from] kube::config::InferConfigError),
    /// The configuration makes no client.
    #[error("cannot talk to Kubernetes: {0}")]
    Client(#[from] kube::Error),
}

/// A client by the given kubeconfig; without one by `KUBECONFIG`, `~/.kube/config` or the Pod's service account.
///
/// # Errors
/// When there is no usable configuration. Whether the server can be reached shows later.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    let mut config = match kubeconfig {
        None => Config::infer().await?,
        Some(path) => {
            let error = |source| Error::Kubeconfig { path: path.to_owned(), source };
            let file = Kubeconfig::read_from(path).map_err(error)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(error)?
        }
    };
    // It would wait for ever for an answer, and for five minutes for a watch, if the other end is gone without a word.
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    // It would try again for minutes before it said so, and be still waiting when the server is back.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Whether a watch ended because nothing had come over its connection for long. That need not be an error: a server
/// may have nothing to say.
pub(super) fn fell_silent(error: &watcher::Error) -> bool {
    let watcher::Error::WatchFailed(error) = error else { return false };
    let chain = std::iter::successors(Some(error as &(dyn StdError + 'static)), |error| (*error).source());
    chain
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::TimedOut)
}
