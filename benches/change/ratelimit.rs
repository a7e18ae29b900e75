//! What the bench of the rate limit service measured, for the report.

use std::path::Path;

use serde::Deserialize;

use super::report::{Rows, count, ms};

#[derive(Deserialize)]
struct Kept {
    at: String,
    rounds: usize,
    rows: Vec<((String, usize), Round)>,
}

#[derive(Clone, Copy, Deserialize)]
struct Round {
    per_second: f64,
    per_cpu_second: f64,
    p50: f64,
    p99: f64,
}

/// Bars, and a table of all contenders; nothing where nothing was measured.
pub(super) fn text() -> anyhow::Result<String> {
    let Ok(kept) = std::fs::read(Path::new(env!("CARGO_TARGET_TMPDIR")).join("ratelimit.json")) else {
        return Ok(String::new());
    };
    let Kept { at, rounds, rows } = serde_json::from_slice(&kept)?;
    let mut bars = Rows::new(&["bar", "measured", ""]);
    let of = |name: &str, rules: usize| {
        let found = rows.iter().find(|((known, of), _)| known.starts_with(name) && *of == rules);
        found.map(|(_, round)| round.per_cpu_second)
    };
    let ours = |rules| of("Chancery", rules);
    for (bar, one, other, least) in [
        ("one rule: of a server that decides nothing", ours(1), of("no decision", 1), 0.88),
        ("one rule: of the limitador library", ours(1), of("limitador", 1), 1.9),
        ("100 rules: of one rule", ours(100), ours(1), 0.9),
        ("10,000 rules: of one rule", ours(10_000), ours(1), 0.9),
    ] {
        if let (Some(one), Some(other)) = (one, other) {
            bars.bar(&format!("{bar} ≥ {least} ×"), &format!("{:.2} ×", one / other), one / other >= least);
        }
    }
    let mut table = Rows::new(&[
        "server",
        "rules",
        "decisions for a second of its CPU",
        "decisions a second",
        "p50",
        "p99",
    ]);
    for ((name, rules), round) in &rows {
        let [per_cpu, per_second] =
            [round.per_cpu_second, round.per_second].map(|number| count(number.round() as usize));
        let rules = if name == "no decision" { "-".to_owned() } else { count(*rules) };
        table.row(&[name, &rules, &per_cpu, &per_second, &ms(round.p50), &ms(round.p99)]);
    }
    Ok(format!(
        "## Rate limit service\n\n{}\nMedians of {rounds} rounds in turn, on {}: the server on one core, the client on \
         another with 128 calls under way over 4 connections, a descriptor of two entries each (a route with a rule and a user: \
         10,000 counters in all). limitador is its library behind the same gRPC server.\n\n{}\n",
        bars.text,
        &at[..10],
        table.text
    ))
}
