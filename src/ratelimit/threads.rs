//! Threads that do nothing but answer calls, each with a runtime of its own, among which connections are dealt out in turn.
//!
//! What a thread reads from a connection it takes up itself, in the order in which it came. So the end of a request makes
//! room before the next request asks for it: Envoy says the one before the other, on one connection. On a runtime of several
//! threads every call is a task that any of them takes at any time, and a busy machine lets the later one go first.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use futures::future::try_join_all;
use futures::{Stream, StreamExt, TryFutureExt};
use tokio::runtime;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

/// Threads at most: so many decide more than any fleet of Envoys asks.
const MOST: usize = 8;

/// Connections that wait for a thread to take them, at most.
const WAITING: usize = 64;

/// Why no calls are answered any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no thread to answer them.
    #[error("cannot start a thread for calls: {0}")]
    Thread(#[source] io::Error),
    /// One that answered them is gone.
    #[error("a thread for calls panicked")]
    Panicked,
}

/// Has `connections` served on as many threads as there are cores, by a server on each. When there are no more, the
/// servers are told to end, and may take `grace` to finish calls under way. None of the threads runs any more then.
///
/// # Errors
/// When a thread cannot be started, or panics.
pub(super) async fn serve<C, S, F>(
    connections: impl Stream<Item = C>,
    grace: Duration,
    server: S,
) -> Result<(), Error>
where
    C: Send + 'static,
    S: Fn(ReceiverStream<C>, oneshot::Receiver<()>) -> F + Clone + Send + 'static,
    F: Future<Output = ()>,
{
    let count = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST);
    let threads = (0..count).map(|_| Thread::start(server.clone())).collect::<Result<Vec<_>, _>>()?;
    let (mut hands, mut cuts, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    for thread in threads {
        hands.push((thread.connections, thread.end));
        cuts.push(thread.cut);
        ended.push(thread.ended.unwrap_or_else(|_| Err(Error::Panicked)));
    }
    let mut ended = pin!(try_join_all(ended));
    tokio::select! {
        () = deal(connections, &hands) => {}
        ended = &mut ended => return ended.map(|_| ()),
    }
    drop(hands);
    if let Ok(ended) = timeout(grace, &mut ended).await {
        return ended.map(|_| ());
    }
    drop(cuts);
    ended.await.map(|_| ())
}

/// Gives each thread a connection in turn, passing over those that do not take any.
async fn deal<C, E>(connections: impl Stream<Item = C>, hands: &[(mpsc::Sender<C>, E)]) {
    let mut connections = pin!(connections);
    let mut turn = 0;
    while let Some(mut connection) = connections.next().await {
        for _ in hands {
            turn = (turn + 1) % hands.len();
            match hands[turn].0.try_send(connection) {
                Ok(()) => break,
                // If nobody takes it, it is closed, and whoever made it tries again.
                Err(TrySendError::Full(refused) | TrySendError::Closed(refused)) => connection = refused,
            }
        }
    }
}

struct Thread<C> {
    connections: mpsc::Sender<C>,
    /// Dropped, the server is to finish what is under way.
    end: oneshot::Sender<()>,
    /// Dropped, it is to drop it.
    cut: oneshot::Sender<()>,
    /// Comes when nothing of it runs any more.
    ended: oneshot::Receiver<Result<(), Error>>,
}

impl<C: Send + 'static> Thread<C> {
    fn start<S, F>(server: S) -> Result<Self, Error>
    where
        S: FnOnce(ReceiverStream<C>, oneshot::Receiver<()>) -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        let (connections, taken) = mpsc::channel(WAITING);
        let (end, to_end) = oneshot::channel();
        let (cut, to_cut) = oneshot::channel();
        let (sender, ended) = oneshot::channel();
        let run = move || {
            let serve = async {
                tokio::select! {
                    () = server(ReceiverStream::new(taken), to_end) => {}
                    _ = to_cut => {}
                }
            };
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            // With all of its tasks, before their end is told.
            let served = runtime.map_err(Error::Thread).map(|runtime| runtime.block_on(serve));
            // Nobody may want to know any more.
            let _ = sender.send(served);
        };
        thread::Builder::new().name("ratelimit".into()).spawn(run).map_err(Error::Thread)?;
        Ok(Self { connections, end, cut, ended })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const NO_TIME: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let connections = futures::stream::iter([()]).chain(futures::stream::pending());
        let served = serve(connections, NO_TIME, |mut taken, _| async move {
            assert!(taken.next().await.is_none(), "as if a connection broke it");
        });
        assert!(matches!(served.await, Err(Error::Panicked)));
    }

    #[tokio::test]
    async fn what_is_not_finished_in_time_is_gone_at_the_end() {
        let held = Arc::new(());
        let seen = held.clone();
        let served = serve(futures::stream::iter([()]), NO_TIME, move |taken, _| {
            let held = (held.clone(), taken);
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        });
        served.await.unwrap();
        assert_eq!(Arc::strong_count(&seen), 1);
    }
}
