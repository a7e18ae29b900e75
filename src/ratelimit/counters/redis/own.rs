//! The connections that threads have to themselves.
//!
//! A thread that does nothing but answer calls reads the answers to what it asks by itself: it waits for no other thread
//! to take them up, and on a busy machine it does not take an answer that has come for one that has not.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::link::Live;
use super::source::{CONNECT_WITHIN, Connection};

/// How soon a thread tries again that got no connection. It has the one that all share until then.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How often one is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Own {
    /// By the number of the connection that all share and that they are beside. None while it is being made.
    connections: HashMap<u64, Option<Connection>>,
    making: JoinSet<()>,
}

thread_local! {
    static OWN: RefCell<Own> = RefCell::default();
}

/// This thread's connection beside the one that all share, if it has one by now.
pub(super) fn beside(live: &Arc<Live>, lives: &watch::Sender<Option<Arc<Live>>>) -> Option<Connection> {
    OWN.with_borrow_mut(|own| {
        if let Some(connection) = own.connections.get(&live.number) {
            return connection.clone();
        }
        let alone = Handle::try_current()
            .is_ok_and(|runtime| matches!(runtime.runtime_flavor(), RuntimeFlavor::CurrentThread));
        if alone {
            own.connections.insert(live.number, None);
            while own.making.try_join_next().is_some() {}
            own.making.spawn(keep(live.clone(), lives.subscribe()));
        }
        None
    })
}

/// Has this thread ask on the connection that all share until its own, which broke, is made again.
pub(super) fn forget(live: &Live) {
    // It may be gone by now, with the one that all share.
    OWN.with_borrow_mut(|own| own.connections.get_mut(&live.number).map(Option::take));
}

/// Makes this thread's connection, and keeps it as long as the one that all share.
async fn keep(live: Arc<Live>, mut lives: watch::Receiver<Option<Arc<Live>>>) {
    let number = live.number;
    let has = |connection| OWN.with_borrow_mut(|own| own.connections.insert(number, connection));
    let making = async {
        loop {
            if let Ok(Ok(connection)) = timeout(CONNECT_WITHIN, live.source.connect()).await {
                has(Some(connection.clone()));
                until_lost(connection).await;
                has(None);
            }
            sleep(AGAIN_AFTER).await;
        }
    };
    tokio::select! {
        () = making => {}
        _ = lives.wait_for(|live| live.as_ref().is_none_or(|live| live.number != number)) => {}
    }
    OWN.with_borrow_mut(|own| own.connections.remove(&number));
}

/// Asks now and then, so that nobody between ends one that is idle, and no request finds out if somebody did.
async fn until_lost(mut connection: Connection) {
    // That of a cluster asks all servers, one of which may be away, and mends itself.
    if matches!(connection, Connection::Cluster(_)) {
        return std::future::pending().await;
    }
    let ping = redis::cmd("PING");
    while let Ok(Ok(_)) = timeout(CONNECT_WITHIN, connection.send(&ping)).await {
        sleep(PING_EVERY).await;
    }
}
