//! What is written back to Kubernetes: the status of routing objects, and findings as Events.
//!
//! It reads what was published and writes beside the way of a change to Envoy, never on it. Of several replicas the
//! leader alone writes. What is to be written is decided by pure code (`plan`, `events`); here is its shell.

mod address;
mod analysis;
mod elect;
mod events;
mod lease;
mod plan;
mod policy;
mod writer;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::compile::Published;
use crate::options::KubernetesOptions;
use crate::values::ObjectKey;
use address::Addresses;
use elect::Elector;
use events::{Event, Recorder};
use plan::Planner;
use writer::Writer;

/// How often is looked whether an Event may go that was held back.
const HELD_BACK: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again: from this, doubled each time …
const RETRY_FROM: Duration = Duration::from_millis(500);
/// … up to this.
const RETRY_TO: Duration = Duration::from_secs(60);

/// Writes until the end is asked for, while this replica leads.
pub async fn run(
    client: Client,
    options: KubernetesOptions,
    published: watch::Receiver<Arc<Published>>,
    ended: impl Future<Output = ()> + Send,
) {
    let identity = elect::identity();
    let (leading, leads) = watch::channel(!options.leader_election);
    let (addresses, addresses_seen) = watch::channel(None);
    let mut elector = Elector::new(client.clone(), identity.clone());
    let writer = Writer::new(client.clone(), identity, options.watch_namespaces.clone());
    let mut shell = Shell { writer, published, addresses: addresses_seen };
    let known = all_is_known(shell.published.clone());
    let elect: BoxFuture<'_, ()> = Box::pin(async {
        known.await;
        match options.leader_election {
            true => elector.run(&leading).await,
            false => std::future::pending().await,
        }
    });
    let follow: BoxFuture<'_, ()> = Box::pin(address::follow(client, &options, &addresses));
    let write: BoxFuture<'_, ()> = Box::pin(shell.run(leads));
    tokio::select! {
        () = elect => {}
        () = follow => {}
        () = write => {}
        () = ended => {}
    }
    elector.release().await;
}

/// A replica that does not know all objects yet is no candidate.
async fn all_is_known(mut published: watch::Receiver<Arc<Published>>) {
    if published.wait_for(|published| published.ready).await.is_err() {
        std::future::pending().await
    }
}

struct Shell {
    writer: Writer,
    published: watch::Receiver<Arc<Published>>,
    addresses: watch::Receiver<Option<Addresses>>,
}

impl Shell {
    /// Ends when nobody publishes any more.
    async fn run(&mut self, mut leads: watch::Receiver<bool>) {
        while leads.wait_for(|leads| *leads).await.is_ok() {
            all_is_known(self.published.clone()).await;
            tracing::info!("writing status and Events");
            tokio::select! {
                () = self.lead() => return,
                _ = leads.wait_for(|leads| !*leads) => tracing::info!("another replica writes status and Events"),
            }
        }
    }

    /// Ends when nobody publishes any more.
    async fn lead(&mut self) {
        let mut planner = Planner::new(self.known().await);
        let mut recorder = Recorder::default();
        let mut retry = Retry::default();
        loop {
            let (statuses, events) = retry.due();
            statuses.into_iter().for_each(|key| planner.failed(key));
            events.iter().for_each(|event| recorder.failed(event));
            let published = self.published.borrow_and_update().clone();
            let addresses = self.addresses.borrow_and_update().clone();
            let statuses = planner.plan(&published, addresses.as_ref(), now());
            let statuses = self.writer.statuses(statuses).await;
            let events = recorder.plan(&published, now());
            let events = self.writer.events(events).await;
            retry.note(statuses, events);
            tokio::select! {
                changed = self.published.changed() => if changed.is_err() { return },
                Ok(()) = self.addresses.changed() => {}
                () = sleep(HELD_BACK), if recorder.holds_back() => {}
                () = sleep_until(retry.at.unwrap_or_else(Instant::now)), if retry.at.is_some() => {}
            }
        }
    }

    /// What statuses hold, asked until it is answered.
    async fn known(&self) -> plan::KnownStatuses {
        let mut wait = RETRY_FROM;
        loop {
            match self.writer.known().await {
                Ok(known) => return known,
                Err(error) => tracing::warn!("cannot read the status of objects: {error}"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_TO);
        }
    }
}

/// What could not be written, and when it is tried again.
#[derive(Default)]
struct Retry {
    statuses: Vec<ObjectKey>,
    events: Vec<Event>,
    at: Option<Instant>,
    wait: Duration,
}

impl Retry {
    fn note(&mut self, statuses: Vec<ObjectKey>, events: Vec<Event>) {
        self.statuses.extend(statuses);
        self.events.extend(events);
        if self.statuses.is_empty() && self.events.is_empty() {
            self.wait = Duration::ZERO;
        } else if self.at.is_none() {
            self.wait = (self.wait * 2).clamp(RETRY_FROM, RETRY_TO);
            self.at = Some(Instant::now() + self.wait);
        }
    }

    /// What is to be tried again now.
    fn due(&mut self) -> (Vec<ObjectKey>, Vec<Event>) {
        if self.at.take_if(|at| *at <= Instant::now()).is_none() {
            return Default::default();
        }
        (std::mem::take(&mut self.statuses), std::mem::take(&mut self.events))
    }
}

fn now() -> Timestamp {
    Timestamp::try_from(crate::clock::now()).unwrap_or_default()
}
