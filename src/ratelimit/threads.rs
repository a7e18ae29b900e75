//! Threads that do nothing but answer calls, each with a runtime of its own, among which connections are dealt out in turn.
//!
//! What a thread reads from a connection it answers itself, in the order in which it came. So the end of a request makes
//! room before the next request asks for it: Envoy says the one before the other, on one connection. On a runtime of several
//! threads every call is a task that any of them takes at any time, and a busy machine lets the later one go first.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::thread;

use futures::future::try_join_all;
use futures::{Stream, StreamExt};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport;

/// Connections that wait for a thread to take them, at most.
const WAITING: usize = 64;

/// Why no calls are answered any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no thread to answer them.
    #[error("cannot start a thread for calls: {0}")]
    Thread(#[source] io::Error),
    /// A server failed.
    #[error(transparent)]
    Server(#[from] transport::Error),
}

/// Has `connections` served on as many threads as there are cores, by a server on each, until there are no more and every
/// server has ended. If the future is dropped, the servers are.
///
/// # Errors
/// When a thread cannot be started, and with a server that fails.
pub(super) async fn serve<C, S, F>(connections: impl Stream<Item = C>, server: S) -> Result<(), Error>
where
    C: Send + 'static,
    S: Fn(ReceiverStream<C>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), transport::Error>> + 'static,
{
    let count = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let (hands, ended): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            let (hand, taken) = mpsc::channel(WAITING);
            spawn(server.clone(), taken).map(|ended| (hand, ended))
        })
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .unzip();
    let dealt = async {
        let mut connections = pin!(connections.zip(futures::stream::iter((0..count).cycle())));
        while let Some((connection, turn)) = connections.next().await {
            // A server that has ended tells why itself.
            let _ = hands[turn].send(connection).await;
        }
        drop(hands);
        Ok(())
    };
    let ended = ended.into_iter().map(|ended| async { ended.await.unwrap_or(Ok(())) });
    futures::try_join!(dealt, try_join_all(ended)).map(|_| ())
}

/// A thread with a server, and its end.
fn spawn<C, S, F>(server: S, taken: mpsc::Receiver<C>) -> Result<oneshot::Receiver<Result<(), Error>>, Error>
where
    C: Send + 'static,
    S: Fn(ReceiverStream<C>) -> F + Send + 'static,
    F: Future<Output = Result<(), transport::Error>> + 'static,
{
    let (mut sender, ended) = oneshot::channel();
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
    let run = move || {
        runtime.block_on(async {
            let ended = tokio::select! {
                ended = server(ReceiverStream::new(taken)) => ended,
                () = sender.closed() => return,
            };
            // Nobody may want to know any more.
            let _ = sender.send(ended.map_err(Error::Server));
        });
    };
    thread::Builder::new().name("ratelimit".into()).spawn(run).map_err(Error::Thread)?;
    Ok(ended)
}
