//! Looks at the files every second, and takes what they hold once it is whole.
//!
//! Reading is cheap, and sees every way of exchanging files: in place, by moving, or by the link `..data` through which
//! a Secret's volume is exchanged. What is read twice alike is whole: nobody is writing it, and it is of one exchange.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::State;
use super::identity::{Error, Identity, Pem};
use crate::clock;
use crate::options::TlsFiles;
use crate::settled::Settled;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Follows the files of a [`MutualTls`](super::MutualTls).
#[derive(Debug)]
pub struct Follower {
    files: TlsFiles,
    state: watch::Sender<State>,
    read: Settled<Result<Pem, Error>>,
    pub(super) every: Duration,
}

impl Follower {
    pub(super) fn open(files: TlsFiles) -> Result<(Self, watch::Receiver<State>), Error> {
        let pem = Pem::read(&files)?;
        let identity = Arc::new(Identity::new(&pem, &files, clock::now())?);
        say(&files, &identity);
        let (state, seen) = watch::channel(State { identity, refused: false });
        Ok((Self { files, state, read: Settled::new(Ok(pem)), every: LOOK_EVERY }, seen))
    }

    /// Follows them until nobody cares.
    pub async fn run(mut self) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.state.closed() => return,
                _ = ticks.tick() => {}
            }
            let files = self.files.clone();
            // A volume that hangs holds up nobody else's connections.
            if let Ok(read) = spawn_blocking(move || Pem::read(&files)).await {
                self.look(read);
            }
        }
    }

    fn look(&mut self, read: Result<Pem, Error>) {
        let Some(taken) = self.read.read(read) else { return };
        let taken = taken.as_ref().map_err(Error::clone);
        match taken.and_then(|pem| Identity::new(pem, &self.files, clock::now())) {
            Ok(identity) => {
                say(&self.files, &identity);
                self.state.send_replace(State { identity: Arc::new(identity), refused: false });
            }
            Err(error) => {
                let serial = self.state.borrow().identity.serial.clone();
                tracing::warn!(serial, "the certificate that is served stays: {error}");
                self.state.send_modify(|state| state.refused = true);
            }
        }
    }
}

fn say(files: &TlsFiles, identity: &Identity) {
    let Identity { serial, not_after, .. } = identity;
    let not_after = jiff::Timestamp::try_from(*not_after).map(|at| at.to_string()).unwrap_or_default();
    tracing::info!(certificate = %files.certificate.display(), serial, not_after, "serving with a certificate");
}
