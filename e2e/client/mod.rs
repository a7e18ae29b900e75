//! The client: sends what a step says, from the address it says, and tells what came back.

mod connection;
mod cookies;
mod exchange;
mod failure;
mod plan;
mod tls;

pub(crate) use failure::Failure;
pub(crate) use plan::{Edge, Plan};
pub(crate) use tls::Handshake;

use bytes::Bytes;
use connection::Connection;
use cookies::Jar;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What became of one request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its `x-e2e-id`.
    pub(crate) id: String,
    pub(crate) outcome: Result<Reply, Failure>,
    /// From the start, connecting included where that was needed, to the last byte or the failure.
    pub(crate) duration: Duration,
    /// What the connection's handshake showed; none without TLS.
    pub(crate) handshake: Option<Arc<Handshake>>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Lower-case names in the order of arrival, trailers after headers.
    pub(crate) headers: Vec<(String, String)>,
    /// A gRPC message, or the message that a websocket echoed, or else the body.
    pub(crate) body: Bytes,
}

impl Reply {
    /// Every value of a header or trailer.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// One client: it keeps one connection over its requests.
pub(crate) struct Client {
    plan: Arc<Plan>,
    jar: Arc<Mutex<Jar>>,
    connection: Option<Connection>,
}

/// Cookies that clients of one plan share.
pub(crate) type SharedJar = Arc<Mutex<Jar>>;

impl Client {
    pub(crate) fn new(plan: Arc<Plan>, jar: SharedJar) -> Client {
        Client { plan, jar, connection: None }
    }

    /// Sends the request once.
    pub(crate) async fn send(&mut self) -> Answer {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!("e2e-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let started = Instant::now();
        let answered = AtomicBool::new(false);
        let limit = self.plan.timeout;
        let mut handshake = None;
        let exchange = self.exchange(&id, &answered, &mut handshake);
        let outcome = match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(Failure::of(&*error, !answered.load(Ordering::Relaxed))),
            Err(_) => Err(Failure::timeout(limit, !answered.load(Ordering::Relaxed))),
        };
        if outcome.is_err() {
            self.connection = None;
        }
        Answer { id, outcome, duration: started.elapsed(), handshake }
    }
}

/// Sends `count` requests over `concurrency` clients; each has its share and one connection for it. Where failures are
/// not `awaited`, the first one ends it all: the rest cannot save the try, but could wait very long.
pub(crate) async fn send_all(
    plan: &Arc<Plan>,
    count: usize,
    concurrency: usize,
    awaited: bool,
) -> Vec<Answer> {
    let jar = SharedJar::default();
    let given_up = Arc::new(AtomicBool::new(false));
    let workers = concurrency.min(count).max(1);
    let share = |worker: usize| count / workers + usize::from(worker < count % workers);
    let tasks: Vec<_> = (0..workers)
        .map(|worker| {
            let mut client = Client::new(plan.clone(), jar.clone());
            let (share, given_up) = (share(worker), given_up.clone());
            tokio::spawn(async move {
                let mut answers = Vec::with_capacity(share);
                for _ in 0..share {
                    if given_up.load(Ordering::Relaxed) {
                        break;
                    }
                    answers.push(client.send().await);
                    let has_failed = answers.last().is_some_and(|answer: &Answer| answer.outcome.is_err());
                    given_up.fetch_or(has_failed && !awaited, Ordering::Relaxed);
                }
                answers
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(count);
    for task in tasks {
        answers.extend(task.await.expect("a client does not panic"));
    }
    answers
}
