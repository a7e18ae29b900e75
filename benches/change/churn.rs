//! Edits of others while one is measured: a route each second, an endpoint each two.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use super::workload::{Kind, Picks, Workload};

/// Between two edits of a route; every second one is followed by that of an endpoint.
const EVERY: Duration = Duration::from_secs(1);

/// Runs something while others are edited, and ends with it.
pub(crate) fn during<T>(
    workload: &Mutex<Workload>,
    what: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let (end, ended): (Sender<()>, Receiver<()>) = channel();
        let churn: ScopedJoinHandle<'_, anyhow::Result<()>> = scope.spawn(move || {
            for round in 0.. {
                if ended.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
                let kinds = [Kind::Ingress, Kind::EndpointSlice];
                for kind in &kinds[..1 + round % 2] {
                    let mut workload = workload.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    let edit = workload.edit(*kind, Picks::Churning)?;
                    workload.publish(&edit)?;
                }
            }
            Ok(())
        });
        let result = what();
        drop(end);
        churn.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        result
    })
}
