//! `status`: the connected Envoys.

use std::process::ExitCode;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::client;
use super::output::{self, Cell, Colour, Style, table};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The control plane's debug endpoint
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:18001")]
    server: String,
    /// How Envoys are printed
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// The part of `/debug/nodes` that the table shows.
#[derive(Debug, Deserialize)]
struct Nodes {
    sequence: u64,
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    user_agent: String,
    address: Option<String>,
    connected: jiff::Timestamp,
    progress: Progress,
    rejected: Vec<Rejected>,
}

#[derive(Debug, Deserialize)]
struct Progress {
    acked: u64,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    type_url: String,
    name: String,
    message: String,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let body = client::runtime()?.block_on(client::get(&args.server, "/debug/nodes"))?;
    let text = match args.output {
        Output::Json => {
            let json: Value = serde_json::from_slice(&body).context("the answer is not JSON")?;
            serde_json::to_string_pretty(&json)? + "\n"
        }
        Output::Text => {
            let nodes = serde_json::from_slice(&body).context("the answer is not a list of Envoys")?;
            text(&nodes, jiff::Timestamp::try_from(crate::clock::now())?, Style::of_stdout())
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn text(nodes: &Nodes, now: jiff::Timestamp, style: Style) -> String {
    if nodes.nodes.is_empty() {
        return "no Envoy is connected\n".to_owned();
    }
    let style = Style { table: true, ..style };
    let header = ["NODE", "ENVOY", "ADDRESS", "CONNECTED", "ACKNOWLEDGED", "BEHIND", "REJECTED"];
    let mut rows = vec![header.map(|title| Cell::coloured(title, Colour::Dim)).to_vec()];
    rows.extend(nodes.nodes.iter().map(|node| row(node, nodes.sequence, now)));
    let mut text = table(&rows, style);
    for node in &nodes.nodes {
        for Rejected { type_url, name, message } in &node.rejected {
            let label = style.paint(Colour::Red, "rejected");
            text.push_str(&format!("{label} by {}: {type_url} {name}: {message}\n", node.id));
        }
    }
    text
}

fn row(node: &Node, sequence: u64, now: jiff::Timestamp) -> Vec<Cell> {
    let known = |text: &str| Cell::new(if text.is_empty() { "-" } else { text });
    let marked = |count: u64, colour| match count {
        0 => Cell::coloured("0", Colour::Green),
        count => Cell::coloured(count.to_string(), colour),
    };
    vec![
        known(&node.id),
        known(&node.user_agent),
        known(node.address.as_deref().unwrap_or_default()),
        Cell::new(ago(now.as_second() - node.connected.as_second())),
        Cell::new(format!("{}/{sequence}", node.progress.acked)),
        marked(sequence.saturating_sub(node.progress.acked), Colour::Yellow),
        marked(node.rejected.len() as u64, Colour::Red),
    ]
}

/// A duration in the two largest units that it has.
fn ago(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3_600 => format!("{}m{}s", s / 60, s % 60),
        s @ 3_600..86_400 => format!("{}h{}m", s / 3_600, s % 3_600 / 60),
        s => format!("{}d{}h", s / 86_400, s % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_of_envoys() {
        let nodes: Nodes = serde_json::from_value(json!({"sequence": 9, "nodes": [
            {"id": "edge-0", "user_agent": "envoy 1.40.0", "address": "10.0.0.1:4711", "connected": "2026-01-01T00:00:00Z",
             "progress": {"seen": 9, "sent": 9, "acked": 7},
             "rejected": [{"type_url": "Listener", "name": "http", "message": "no"}]},
            {"id": "", "user_agent": "", "address": null, "connected": "2026-01-01T01:00:00Z",
             "progress": {"seen": 9, "sent": 9, "acked": 9}, "rejected": []},
        ]}))
        .unwrap();
        let now = "2026-01-01T01:01:05Z".parse().unwrap();
        assert_eq!(
            text(&nodes, now, Style::PLAIN),
            "NODE    ENVOY         ADDRESS        CONNECTED  ACKNOWLEDGED  BEHIND  REJECTED\n\
             edge-0  envoy 1.40.0  10.0.0.1:4711  1h1m       7/9           2       1\n\
             -       -             -              1m5s       9/9           0       0\n\
             rejected by edge-0: Listener http: no\n"
        );
    }
}
