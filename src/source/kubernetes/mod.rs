//! Objects from a Kubernetes API server: one watch for each kind of the table.
//!
//! Watches of built-in kinds come as protobuf, lists page by page as JSON.
//!
//! A kind whose definition is not installed holds nobody up: it has no objects until the definition is there. An object
//! that cannot be read is a finding, and its last good form stays; a RateLimitPolicy stands as one that cannot be read.

mod changes;
mod client;
mod raw;
mod wire;

#[cfg(test)]
pub(crate) mod api_server;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{Stream, StreamExt};
use kube::Client;
use kube::api::Api;
use kube::core::Status;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use tokio::sync::mpsc::Sender;

use self::changes::Changes;
use self::client::fell_silent;
pub use self::client::{Error, connect};
use self::raw::Raw;
use super::kinds::{WATCHED, Watched};
use crate::store::Change;
use crate::values::Kind;

/// How often a kind whose definition is not installed is looked for.
const ABSENT_RETRY: Duration = Duration::from_secs(10);

/// How often is told that a watch fails, as long as it does.
const TOLD: Duration = Duration::from_secs(60);

/// How many events are read at once at most.
const EVENTS_AT_ONCE: usize = 32;

/// How many changes of a first listing are sent at once at least. Nothing can come of them before all are there.
const LISTED_AT_ONCE: usize = 256;

/// Follows every kind until the receiver is gone. [`Change::Ready`] is sent once each kind was listed in full.
///
/// With `namespaces`, objects of others are left out. Of all ConfigMaps it is `config_map` alone that is watched, by
/// namespace and name.
pub async fn follow(
    client: Client,
    namespaces: Vec<String>,
    config_map: (String, String),
    sender: Sender<Vec<Change>>,
) {
    let mut scopes: Vec<(&'static Watched, Option<&str>)> = Vec::new();
    for watched in &WATCHED {
        if watched.kind == Kind::ConfigMap {
            scopes.push((watched, Some(&config_map.0)));
            continue;
        }
        let everywhere = namespaces.is_empty() || !watched.kind.is_namespaced();
        scopes.extend(everywhere.then_some((watched, None)));
        scopes.extend(namespaces.iter().filter(|_| !everywhere).map(|it| (watched, Some(it.as_str()))));
    }
    let client = wire::client(client);
    let unlisted = AtomicUsize::new(scopes.len());
    let watch = |(watched, namespace): (&'static Watched, _)| Watch {
        client: client.clone(),
        namespace,
        name: (watched.kind == Kind::ConfigMap).then_some(config_map.1.as_str()),
        restricted: !namespaces.is_empty(),
        watched,
        sender: &sender,
        unlisted: &unlisted,
        changes: Changes::new(watched, namespace.is_some()),
        version: 0,
        streaming: true,
        absent: 0,
        told: None,
    };
    join_all(scopes.into_iter().map(|scope| watch(scope).run())).await;
}

/// The receiver is gone.
struct Closed;

/// The watch of a kind, in one namespace or in all.
struct Watch<'a> {
    client: Client,
    /// The only one that counts.
    namespace: Option<&'a str>,
    /// The only object that counts.
    name: Option<&'a str>,
    /// Whether it is some namespaces only that are watched.
    restricted: bool,
    watched: &'static Watched,
    sender: &'a Sender<Vec<Change>>,
    /// How many kinds were not listed yet.
    unlisted: &'a AtomicUsize,
    changes: Changes,
    /// Which of the versions is watched.
    version: usize,
    /// Whether the list comes as a watch, which servers before Kubernetes 1.32 refuse.
    streaming: bool,
    /// How often in a row no version was served.
    absent: usize,
    /// When an error was told last.
    told: Option<Instant>,
}

/// What to do about an error.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    /// The same again, after a while.
    Retry,
    /// List page by page.
    Pages,
    /// Another version.
    NextVersion,
    /// Nothing: there are no objects as far as we may know.
    Absent,
}

type Events = Pin<Box<dyn Stream<Item = watcher::Result<Event<Raw>>> + Send>>;

impl Watch<'_> {
    async fn run(mut self) {
        while let Ok(()) = self.watch().await {}
    }

    /// Watches one version until another one is to be tried.
    async fn watch(&mut self) -> Result<(), Closed> {
        let mut backoff = DefaultBackoff::default();
        let mut batches = self.events().ready_chunks(EVENTS_AT_ONCE);
        let mut changes = Vec::new();
        while let Some(batch) = batches.next().await {
            let mut trouble = None;
            for event in batch {
                match event {
                    Ok(event) => {
                        backoff.reset();
                        self.absent = 0;
                        self.changes.event(event, &mut changes);
                    }
                    Err(error) => trouble = Some(error),
                }
            }
            if self.changes.is_listed() || changes.len() >= LISTED_AT_ONCE || trouble.is_some() {
                self.send(std::mem::take(&mut changes)).await?;
            }
            let Some(error) = trouble else { continue };
            if fell_silent(&error) && self.changes.is_listed() {
                // It has waited long enough.
                tracing::debug!(kind = self.watched.plural, "resuming a watch that fell silent");
                continue;
            }
            let listed = self.changes.is_listed();
            match remedy(status(&error), self.watched, self.streaming, self.restricted, listed) {
                Remedy::Pages => {
                    self.streaming = false;
                    return Ok(());
                }
                Remedy::NextVersion if self.version + 1 < self.watched.versions.len() => {
                    self.version += 1;
                    return Ok(());
                }
                Remedy::NextVersion | Remedy::Absent => return self.absent(&error).await,
                Remedy::Retry => {
                    self.tell(&error);
                    self.wait(backoff.next().unwrap_or(ABSENT_RETRY)).await?;
                }
            }
        }
        Ok(())
    }

    /// The kind is not served: it has no objects. If it had some, that has to be seen twice, since a server that
    /// starts may not know all definitions yet.
    async fn absent(&mut self, error: &watcher::Error) -> Result<(), Closed> {
        self.version = 0;
        self.absent += 1;
        if self.absent == 1 {
            tracing::info!(kind = self.watched.plural, "not served, looked for now and then: {error}");
        }
        if self.absent == 2 || !self.changes.is_listed() {
            let mut changes = Vec::new();
            self.changes.event(Event::Init, &mut changes);
            self.changes.event(Event::InitDone, &mut changes);
            self.send(changes).await?;
        }
        self.wait(ABSENT_RETRY).await
    }

    /// Tells of an error, now and then. A watch that goes on need not say anything, so nothing shows its end.
    fn tell(&mut self, error: &watcher::Error) {
        let kind = self.watched.plural;
        if self.told.is_some_and(|told| told.elapsed() < TOLD) {
            return tracing::debug!(kind, "watching Kubernetes: {error}");
        }
        self.told = Some(Instant::now());
        tracing::warn!(kind, "watching Kubernetes: {error}");
    }

    async fn wait(&self, time: Duration) -> Result<(), Closed> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = self.sender.closed() => Err(Closed),
        }
    }

    async fn send(&mut self, changes: Vec<Change>) -> Result<(), Closed> {
        let listed = self.changes.listed_first();
        if !changes.is_empty() {
            self.sender.send(changes).await.map_err(|_| Closed)?;
        }
        if listed && self.unlisted.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.sender.send(vec![Change::Ready]).await.map_err(|_| Closed)?;
        }
        Ok(())
    }

    fn events(&self) -> Events {
        Box::pin(watcher(self.api(), self.config()))
    }

    fn config(&self) -> watcher::Config {
        let config = match self.name {
            Some(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
            None => watcher::Config::default().fields(self.watched.field_selector),
        };
        if self.streaming { config.streaming_lists() } else { config }
    }

    fn api(&self) -> Api<Raw> {
        let resource = self.watched.resource(self.watched.versions[self.version]);
        match self.namespace.filter(|_| self.watched.kind.is_namespaced()) {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }
}

/// What the server said, where it is that what went wrong.
fn status(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

fn remedy(
    status: Option<&Status>,
    watched: &Watched,
    streaming: bool,
    restricted: bool,
    listed: bool,
) -> Remedy {
    // A role of one namespace cannot grant what belongs to none, or to another. Whoever may not read a custom resource is
    // told so even where there is none. But what was read before is there, whether it may be read now or not.
    let foreign = !watched.kind.is_namespaced() || watched.kind == Kind::ConfigMap;
    let dispensable = !listed && (watched.optional || (restricted && foreign));
    match status.map_or(0, |status| status.code) {
        404 if watched.optional => Remedy::NextVersion,
        403 if dispensable => Remedy::Absent,
        400 | 422 if streaming => Remedy::Pages,
        _ => Remedy::Retry,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
