//! A flood of keys that never ends: memory stays where it is, and nobody gets past a limit through it.
//!
//! Each request of the flood has a key that was never sent before, of a limit of a day, so no counter becomes idle. Beside
//! it, every so often, come a few users that were there before the flood, and a few that come with it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use super::client::CONNECTIONS;
use super::contender::{CORE, listens, pinned};
use super::kept::Soak;
use super::process::{Process, free_address};
use super::requests::{Client, request};

/// Requests a day of everybody.
const LIMIT: u64 = 50;
/// The rule of the flood, and that of the users.
const FLOOD: u64 = 0;
const USERS: u64 = 1;
/// Of each kind.
const COUNT: u64 = 10;
/// Of the flood, between two of users.
const BETWEEN: u64 = 500;
const STREAMS: u64 = 32;

/// Decisions of one task.
#[derive(Default)]
struct Counted {
    decisions: u64,
    let_through: [u64; 2 * COUNT as usize],
}

/// Floods a service for so long, and keeps what came of it.
pub(crate) fn run(minutes: f64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let rule = |rule| {
        format!(
            "- key: route\n  value: r{rule}\n  descriptors:\n  - key: user\n    rate_limit: {{unit: day, requests_per_unit: {LIMIT}}}\n"
        )
    };
    let rules = format!("domain: bench\ndescriptors:\n{}{}", rule(FLOOD), rule(USERS));
    std::fs::write(folder.path().join("rules.yaml"), rules)?;
    let (address, http) = (free_address()?, free_address()?);
    let mut command = pinned(CORE);
    command.args([env!("CARGO_BIN_EXE_chancery"), "ratelimit", "--ratelimit-config"]).arg(folder.path());
    command.args(["--ratelimit-listen", &address.to_string(), "--http-listen", &http.to_string()]);
    let log = tempfile::NamedTempFile::new()?;
    let mut process = Process::start("Chancery", command, log.path())?;
    listens("Chancery", &mut process, address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let soak = runtime.block_on(soak(address, http, &process, Duration::from_secs_f64(60.0 * minutes)))?;
    println!("{soak:?}");
    anyhow::ensure!(soak.before <= LIMIT && soak.during <= LIMIT, "more than the limit was let through");
    soak.write()
}

async fn soak(
    address: SocketAddr,
    http: SocketAddr,
    process: &Process,
    span: Duration,
) -> anyhow::Result<Soak> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::new(Endpoint::try_from(format!("http://{address}"))?.connect().await?));
    }
    for user in 0..COUNT {
        clients[0].should_rate_limit(request(USERS, user)).await?;
    }
    let end = Instant::now() + span;
    let (mut tasks, is_full) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
    for stream in 0..CONNECTIONS as u64 * STREAMS {
        tasks.spawn(flood(clients[stream as usize % CONNECTIONS].clone(), stream, end, is_full.clone()));
    }
    let (mut full, mut counters, mut most) = (None, 0, 0.0_f64);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (memory, _) = process.memory()?;
        let store = tokio::task::spawn_blocking(move || store(http)).await??;
        counters = store["counters"].as_u64().context("no counters")?;
        if full.is_none() && store["overflowed"].as_u64() > Some(0) {
            full = Some(memory);
            is_full.store(true, Ordering::Relaxed);
        }
        if full.is_some() {
            most = most.max(memory);
        }
        println!("{memory:.1} MiB, {store}");
    }
    let mut counted = Counted::default();
    // What was let through before the flood.
    counted.let_through[..COUNT as usize].fill(1);
    while let Some(of_task) = tasks.join_next().await {
        let of_task = of_task??;
        counted.decisions += of_task.decisions;
        for (sum, more) in counted.let_through.iter_mut().zip(of_task.let_through) {
            *sum += more;
        }
    }
    let (before, during) = counted.let_through.split_at(COUNT as usize);
    Ok(Soak {
        limit: LIMIT,
        at: jiff::Timestamp::now().to_string(),
        minutes: span.as_secs_f64() / 60.0,
        decisions: counted.decisions,
        counters,
        full: full.context("the table was never full: it takes more minutes")?,
        most,
        before: *before.iter().max().context("users")?,
        during: *during.iter().max().context("users")?,
    })
}

/// One request after the other.
async fn flood(
    mut client: Client,
    stream: u64,
    end: Instant,
    is_full: Arc<AtomicBool>,
) -> anyhow::Result<Counted> {
    let mut counted = Counted::default();
    let mut ask = async |rule, user| -> anyhow::Result<bool> {
        let answer = client.should_rate_limit(request(rule, user)).await?.into_inner();
        Ok(answer.overall_code() == Code::Ok)
    };
    for turn in 0_u64.. {
        if Instant::now() >= end {
            break;
        }
        if turn % BETWEEN == BETWEEN - 1 {
            // Those that come with the flood come when it has filled the table.
            let users = if is_full.load(Ordering::Relaxed) { 2 * COUNT } else { COUNT };
            let user = (turn / BETWEEN + stream) % users;
            counted.let_through[user as usize] += u64::from(ask(USERS, user).await?);
        } else {
            ask(FLOOD, (stream << 40) + turn).await?;
        }
        counted.decisions += 1;
    }
    Ok(counted)
}

/// What the service says of its counters.
fn store(http: SocketAddr) -> anyhow::Result<Value> {
    let mut connection = TcpStream::connect(http)?;
    connection.write_all(b"GET /debug/ratelimits HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut said = String::new();
    connection.read_to_string(&mut said)?;
    let (_, body) = said.split_once("\r\n\r\n").context("no answer")?;
    Ok(serde_json::from_str::<Value>(body)?["store"].take())
}
