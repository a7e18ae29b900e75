//! Decisions of the rate limit service over gRPC, beside a server that decides nothing and beside the limitador library.
//!
//! The server has one core and the client another. The client has 4 connections with 32 calls under way on each, of one
//! descriptor with two entries: a route, for which there is a rule, and a user; 10,000 pairs of them, however many rules. What is compared are
//! decisions for each second of the server's CPU time, which the neighbours of a machine disturb least; contenders take
//! turns, and the median of their rounds counts.
//!
//! ```text
//! cargo bench --bench ratelimit                 every contender with 1, 100 and 10,000 rules
//! cargo bench --bench ratelimit -- --quick      one short round; nothing is kept
//! ```
//!
//! What was measured is kept below `target/`, until it is measured again: `cargo bench --bench change -- --report` writes
//! it into RESULTS.md.
#![allow(
    clippy::disallowed_methods,
    reason = "a bench waits and reads the clock; nothing here serves anybody"
)]

mod client;
mod contender;
#[path = "../change/process.rs"]
#[allow(dead_code, reason = "the other bench reads memory, too")]
mod process;
mod record;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

use contender::{Contender, Server};
use record::{Record, Round};

/// As Chancery has it, for the server that decides nothing.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Numbers of rules.
const RULES: [usize; 3] = [1, 100, 10_000];

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
    /// Be the server that decides nothing: what this bench starts itself for
    #[arg(long, hide = true, value_name = "ADDRESS")]
    noop: Option<SocketAddr>,
    /// Be the client: what this bench starts itself for
    #[arg(long, hide = true, num_args = 4, value_names = ["ADDRESS", "PID", "RULES", "SECONDS"])]
    client: Option<Vec<String>>,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(address) = args.noop {
        return contender::noop(address);
    }
    if let Some(client) = args.client {
        return client::main(&client);
    }
    let (rounds, seconds) = if args.quick { (1, 1) } else { (args.rounds, args.seconds) };
    let limitador = contender::build_limitador()?;
    let mut record = Record::default();
    for round in 1..=rounds {
        for (contender, rules) in contenders() {
            let server = Server::start(contender, rules, &limitador)?;
            let measured = client::run(&server, rules, Duration::from_secs(seconds))?;
            println!("{round}/{rounds} {} with {rules} rules: {measured}", contender.name());
            record.add(contender, rules, measured);
        }
    }
    println!("\n{}", record.table());
    if args.quick { Ok(()) } else { record.keep() }
}

/// Who takes turns, in this order. One that decides nothing has no rules.
fn contenders() -> impl Iterator<Item = (Contender, usize)> {
    let all = [Contender::Chancery, Contender::Limitador];
    let with_rules = RULES.into_iter().flat_map(move |rules| all.map(|contender| (contender, rules)));
    [(Contender::Noop, 1)].into_iter().chain(with_rules)
}

/// What a client says on its one line, and what is read of it.
impl Round {
    fn parse(line: &str) -> anyhow::Result<Self> {
        Ok(serde_json::from_str(line)?)
    }
}
