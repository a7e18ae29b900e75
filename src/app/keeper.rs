//! Writes each snapshot's changes to the state folder, behind what Envoys are sent.

use std::future::Future;
use std::sync::Arc;

use crate::state::State;
use crate::xds::snapshot;

/// Runs until the end is asked for or nobody publishes any more; what was published last is written all the same.
pub(super) async fn run(
    mut state: State,
    mut snapshots: snapshot::Receiver,
    ended: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::pin!(ended);
    loop {
        let goes_on = tokio::select! {
            changed = snapshots.changed() => changed.is_ok(),
            () = &mut ended => false,
        };
        let latest = snapshots.borrow_and_update().clone();
        if let Some(snapshot) = latest.filter(|latest| !Arc::ptr_eq(latest, state.snapshot())) {
            let written = tokio::task::spawn_blocking(move || {
                let result = state.write(&snapshot);
                (state, result)
            });
            let result;
            (state, result) = written.await?;
            if let Err(error) = result {
                tracing::warn!(%error, "cannot write the last good snapshot");
            }
        }
        if !goes_on {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::{Resource, Snapshot, TypeUrl, Update, Version};
    use tokio::sync::watch;

    #[tokio::test]
    async fn what_was_published_last_is_written_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let (snapshots, seen) = watch::channel(None);
        let cluster = Arc::new(Resource::from_bytes(TypeUrl::Cluster, "c", Version(1), b""));
        let last = Snapshot::empty().apply(Update { set: vec![cluster], remove: vec![] });
        snapshots.send_replace(Some(Arc::new(last)));
        // As if the end had been asked for between the change and the write.
        let mut seen = seen;
        seen.mark_unchanged();
        run(state, seen, std::future::ready(())).await.unwrap();
        let again = State::open(folder.path()).unwrap();
        assert!(again.snapshot().get(TypeUrl::Cluster, "c").is_some());
    }
}
