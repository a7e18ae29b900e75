//! Mutual TLS of what Envoys and rate limit services connect to, and of the latter's own connections, from files that may
//! be exchanged at any time.
//!
//! ```text
//! files ─read every second→ Follower ─Identity→ MutualTls: each handshake takes the latest
//! ```
//!
//! What is open stays open: an exchange is seen by those who connect after it.

mod follow;
mod identity;
mod incoming;
mod outgoing;

pub use follow::Follower;
pub use identity::{Error, Identity};

use std::sync::Arc;

use tokio::sync::watch;

use crate::options::TlsFiles;

/// The certificate that is shown and the authority that others have to show one of, as they are now.
#[derive(Clone, Debug)]
pub struct MutualTls {
    state: watch::Receiver<State>,
}

#[derive(Clone, Debug)]
struct State {
    identity: Arc<Identity>,
    /// Whether the files hold something else, which cannot be used.
    refused: bool,
}

impl MutualTls {
    /// Reads the files. The follower has to run for an exchange to be seen.
    ///
    /// # Errors
    /// When the files cannot be used: which one, and why.
    pub fn open(files: TlsFiles) -> Result<(Self, Follower), Error> {
        let (follower, state) = Follower::open(files)?;
        Ok((Self { state }, follower))
    }

    /// What is shown now.
    pub fn identity(&self) -> Arc<Identity> {
        self.state.borrow().identity.clone()
    }

    /// Whether the files hold something else than what is shown, which cannot be used.
    pub fn refused(&self) -> bool {
        self.state.borrow().refused
    }
}

#[cfg(test)]
mod tests;
