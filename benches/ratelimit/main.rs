//! Decisions of the rate limit service over gRPC, beside a server that decides nothing, the limitador library and
//! envoyproxy/ratelimit.
//!
//! The server has one core and the client another, which it shares with Redis. The client has 4 connections and asks of one
//! descriptor with two entries: a route, for which there is a rule, and a user; each pair has its counter. It measures
//!
//! - 128 calls under way, each followed by the next, on 10,000 keys of 1, 100 and 10,000 rules: a server that decides
//!   nothing, Chancery with its counters in memory, and limitador behind the same gRPC server as that which decides
//!   nothing, tonic's, of as many as 100 rules;
//! - 10,000 requests a second, each sent when it is due whether answers came or not: a server that decides nothing, and
//!   Chancery. Latency counts from the due time, so that a stall shows in all that it keeps waiting;
//! - 128 calls under way on 10,000 keys and on a single hot one, with counters in the same Redis: Chancery that asks for
//!   every request and Chancery that takes blocks of hits, and envoyproxy/ratelimit with the same file of rules.
//!
//! What is compared is decisions for each second of the service's CPU time, which the neighbours of a machine disturb
//! least; Redis's is told beside it. Contenders take turns, and the median of their rounds counts.
//!
//! ```text
//! scripts/install-redis && scripts/install-envoyproxy-ratelimit      once
//! cargo bench --bench ratelimit                 everything, in a quarter of an hour
//! cargo bench --bench ratelimit -- --quick      one short round; nothing is kept
//! cargo bench --bench ratelimit -- --soak 10    a flood of new keys for ten minutes
//! cargo bench --bench ratelimit -- --away       how long decisions take while Redis is paused, slow or killed
//! ```
//!
//! What was measured is kept below `target/`, until it is measured again: `cargo bench --bench change -- --report` writes
//! it into RESULTS.md.
#![allow(
    clippy::disallowed_methods,
    reason = "a bench waits and reads the clock; nothing here serves anybody"
)]

mod away;
mod client;
mod contender;
#[allow(dead_code, reason = "the other bench reads it")]
mod kept;
#[path = "../change/process.rs"]
#[allow(dead_code, reason = "the other bench reads memory, too")]
mod process;
mod record;
#[path = "../records.rs"]
mod records;
mod redis;
mod requests;
mod soak;

use std::net::SocketAddr;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

use contender::{Server, Tools};
use kept::{Contender, Load};
use record::Record;

/// As Chancery has it, for the server that decides nothing.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Numbers of rules.
const RULES: [u64; 3] = [1, 100, 10_000];
/// Counters, however many rules they are of.
const KEYS: u64 = 10_000;
/// Requests a second, where they are sent at their due times.
const RATE: u32 = 10_000;

#[derive(Debug, Parser)]
struct Args {
    /// Rounds of which the median is taken
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each round that count
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// One short round; nothing is kept
    #[arg(long)]
    quick: bool,
    /// Flood the service with new keys for so many minutes, and do nothing else
    #[arg(long, value_name = "MINUTES")]
    soak: Option<f64>,
    /// Measure how long decisions take while Redis is away, and do nothing else
    #[arg(long)]
    away: bool,
    /// Be the server that decides nothing: what this bench starts itself for
    #[arg(long, hide = true, value_name = "ADDRESS")]
    noop: Option<SocketAddr>,
    /// Be the client: what this bench starts itself for
    #[arg(long, hide = true, value_name = "TASK")]
    client: Option<String>,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(address) = args.noop {
        return contender::noop(address);
    }
    if let Some(task) = args.client {
        return client::main(&task);
    }
    if let Some(minutes) = args.soak {
        return soak::run(minutes);
    }
    let (rounds, seconds) = if args.quick { (1, 1) } else { (args.rounds, args.seconds) };
    if args.away {
        let away = away::measure(seconds)?;
        return if args.quick { Ok(()) } else { away.write() };
    }
    let tools = Tools::get()?;
    let mut record = Record::default();
    for round in 1..=rounds {
        for (contender, load) in turns() {
            tools.redis.clear()?;
            let server = Server::start(contender, load.rules, &tools)?;
            let measured = client::run(contender, load, &server, &tools.redis, seconds)?;
            println!("{round}/{rounds} {}, {load}: {measured}", contender.name());
            record.add(contender, load, measured);
        }
    }
    let kept = record.kept();
    println!();
    for (contender, load, round) in &kept.rows {
        println!("{:<26} {:<32} {round}", contender.name(), load.to_string());
    }
    if args.quick { Ok(()) } else { kept.write() }
}

/// Who takes turns, in this order, and what is asked of them. One that decides nothing knows no rules.
fn turns() -> Vec<(Contender, Load)> {
    let one_rule = Load { rules: 1, keys: KEYS, rate: None };
    let mut turns = vec![(Contender::Noop, one_rule)];
    for rules in RULES {
        turns.push((Contender::Memory, Load { rules, ..one_rule }));
        // It evaluates every rule for every request: of 10,000 it would answer some fifty in a second.
        if rules <= 100 {
            turns.push((Contender::Limitador, Load { rules, ..one_rule }));
        }
    }
    for keys in [KEYS, 1] {
        let load = Load { keys, ..one_rule };
        turns.extend([Contender::Envoyproxy, Contender::Exact, Contender::Leased].map(|of| (of, load)));
    }
    let sent = Load { rate: Some(RATE), ..one_rule };
    turns.extend([Contender::Noop, Contender::Memory].map(|of| (of, sent)));
    turns
}
