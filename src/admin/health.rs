//! Whether the process works, and whether it may be asked.

use axum::Json;
use axum::extract::State as Extract;
use serde_json::{Value, json};

use super::State;
use super::error::Error;

/// Works: what makes snapshots is still there.
pub(super) async fn healthz(Extract(state): Extract<State>) -> Result<Json<Value>, Error> {
    match state.snapshots.has_changed() {
        Ok(_) => Ok(Json(json!({"status": "ok"}))),
        Err(_) => Err(Error::unavailable(
            "nothing makes snapshots any more: the process is ending or must be restarted",
        )),
    }
}

/// May be asked: there is a whole snapshot to answer Envoys with.
pub(super) async fn readyz(Extract(state): Extract<State>) -> Result<Json<Value>, Error> {
    let snapshot = state.snapshots.borrow().clone();
    match snapshot {
        Some(snapshot) => {
            let source = if state.published.borrow().ready { "sources" } else { "state" };
            Ok(Json(json!({"status": "ready", "sequence": snapshot.sequence(), "from": source})))
        }
        None => Err(Error::unavailable("no snapshot yet: not every source has been read in full once")),
    }
}
