//! The one task that writes: takes changes, compiles them, publishes what follows.
//!
//! There is no pause when idle: the first change goes at once. What comes while it is compiled is taken together.

use std::future::Future;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task;

use crate::admin::Metrics;
use crate::admin::changes::Changes;
use crate::compile::{Compiler, Published};
use crate::fleet::{self, Rejections};
use crate::model::limit::LimitSet;
use crate::store::Change;
use crate::xds::snapshot;

/// Where what follows goes.
pub(super) struct Outlets {
    pub(super) snapshots: snapshot::Sender,
    pub(super) published: watch::Sender<Arc<Published>>,
    pub(super) limits: watch::Sender<Arc<LimitSet>>,
    pub(super) changes: Changes,
    pub(super) metrics: Metrics,
}

/// Up to so many changes, or outputs that they make due, are compiled on the thread that the task is on: no other one has
/// to wake between a change and Envoy.
const FEW: usize = 16;

/// Runs until the end is asked for or the source ends. It compiles between two polls, however long that takes: one
/// ConfigMap can change every host. So for more than a few the runtime is given another thread, and no stream, probe or
/// Lease is held up.
pub(super) async fn run(
    mut compiler: Compiler,
    mut batches: mpsc::Receiver<Vec<Change>>,
    mut rejections: watch::Receiver<Rejections>,
    outlets: Outlets,
    ended: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::pin!(ended);
    let mut known = Rejections::new();
    loop {
        tokio::select! {
            batch = batches.recv() => {
                let Some(mut changes) = batch else { return Ok(()) };
                let seen = crate::clock::now();
                while let Ok(more) = batches.try_recv() {
                    changes.extend(more);
                }
                let before = outlets.compile(&mut compiler, changes);
                let at = crate::clock::now();
                // The streams wait for this thread, and send now; what people read comes after them.
                task::yield_now().await;
                outlets.tell(&mut compiler, before, seen, at);
            }
            Ok(()) = rejections.changed() => {
                let now = rejections.borrow_and_update().clone();
                let published = compiler.reject(fleet::changes(&known, &now));
                outlets.published.send_replace(Arc::new(published.clone()));
                known = now;
            }
            () = &mut ended => return Ok(()),
        }
    }
}

impl Outlets {
    /// Compiles changes, and publishes what Envoys are sent. Returns the sequence of what they were sent before.
    fn compile(&self, compiler: &mut Compiler, changes: Vec<Change>) -> u64 {
        let before = compiler.published().snapshot.sequence();
        let begun = Instant::now();
        let few = changes.len() <= FEW;
        in_place(few, || compiler.take(changes));
        let few = compiler.due() <= FEW;
        let published = in_place(few, || compiler.settle());
        self.metrics.observe_compile(begun.elapsed());
        let sequence = published.snapshot.sequence();
        if published.ready {
            // Limits go first: a route must not ask for one that the service does not know.
            self.limits.send_if_modified(|limits| {
                let changed = !limits.is_same(&published.limits);
                if changed {
                    *limits = Arc::new(published.limits.clone());
                }
                changed
            });
            if sequence != before || self.snapshots.borrow().is_none() {
                self.snapshots.send_replace(Some(published.snapshot.clone()));
            }
        }
        tracing::debug!(sequence, took = ?begun.elapsed(), "compiled");
        before
    }

    /// Publishes what people read.
    fn tell(&self, compiler: &mut Compiler, before: u64, seen: SystemTime, at: SystemTime) {
        let published = compiler.published();
        let sequence = published.snapshot.sequence();
        let changed = (published.ready && sequence != before).then_some(sequence);
        self.published.send_replace(Arc::new(published.clone()));
        self.changes.record(compiler.take_events(), seen, at, changed);
    }
}

fn in_place<T>(few: bool, work: impl FnOnce() -> T) -> T {
    if few { work() } else { task::block_in_place(work) }
}
