//! The connected Envoys.

use axum::Json;
use axum::extract::State as Extract;
use serde::Serialize;

use super::State;
use crate::fleet::NodeReport;

#[derive(Serialize)]
pub(super) struct Nodes {
    /// The latest snapshot's.
    sequence: u64,
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    #[serde(flatten)]
    report: NodeReport,
    /// How many snapshots have not been acknowledged.
    behind: u64,
}

pub(super) async fn nodes(Extract(state): Extract<State>) -> Json<Nodes> {
    let sequence = state.snapshots.borrow().as_ref().map_or(0, |snapshot| snapshot.sequence());
    let nodes = state.fleet.nodes().into_iter().map(|report| {
        let behind = sequence.saturating_sub(report.progress.acked);
        Node { report, behind }
    });
    Json(Nodes { sequence, nodes: nodes.collect() })
}
