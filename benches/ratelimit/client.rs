//! The client, a process with a core of its own: what it asks, and what that took.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitResponse;
use serde::{Deserialize, Serialize};
use tonic::transport::Endpoint;

use super::contender::{Server, pinned};
use super::kept::{Contender, Load, Round};
use super::process;
use super::redis::Redis;
use super::requests::{Client, Span, Took, at_due_times, one_after_the_other, request};

/// The core of the client.
pub(crate) const CORE: &str = "1";
pub(crate) const CONNECTIONS: usize = 4;
/// What comes before what counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a server that listens may take to decide.
const DECIDES_WITHIN: Duration = Duration::from_secs(30);

/// What a client has to do.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    address: SocketAddr,
    contender: Contender,
    load: Load,
    seconds: u64,
    server: u32,
    redis: u32,
}

/// Measures a server, from another process.
pub(crate) fn run(
    contender: Contender,
    load: Load,
    server: &Server,
    redis: &Redis,
    seconds: u64,
) -> anyhow::Result<Round> {
    let (address, server, redis) = (server.address, server.process.id(), redis.process.id());
    let task = Task { address, contender, load, seconds, server, redis };
    let output = pinned(CORE)
        .arg(std::env::current_exe()?)
        .args(["--client", &serde_json::to_string(&task)?])
        .output()
        .context("cannot start the client")?;
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&said)
        .with_context(|| format!("{}: {said}{}", contender.name(), String::from_utf8_lossy(&output.stderr)))
}

/// Is the client: prints one line.
pub(crate) fn main(task: &str) -> anyhow::Result<()> {
    let task: Task = serde_json::from_str(task)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{}", serde_json::to_string(&runtime.block_on(measure(&task))?)?);
    Ok(())
}

async fn measure(task: &Task) -> anyhow::Result<Round> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::new(Endpoint::try_from(format!("http://{}", task.address))?.connect().await?));
    }
    if tells_limits(task.contender) {
        decides(clients[0].clone()).await?;
    }
    let begin = Instant::now() + WARM_UP;
    let span = Span { begin, end: begin + Duration::from_secs(task.seconds) };
    let calls = match task.load.rate {
        None => tokio::spawn(one_after_the_other(clients, task.load, span)),
        Some(rate) => tokio::spawn(at_due_times(clients, task.load, rate, span)),
    };
    tokio::time::sleep_until(span.begin.into()).await;
    let (cpu, redis, started) = (process::cpu(task.server)?, process::cpu(task.redis)?, Instant::now());
    tokio::time::sleep_until(span.end.into()).await;
    let (cpu, redis) = (process::cpu(task.server)? - cpu, process::cpu(task.redis)? - redis);
    let took = started.elapsed();
    let Took { mut micros, answered } = calls.await??;
    micros.sort_unstable();
    let percentile = |share: f64| {
        let at = (micros.len() as f64 * share) as usize;
        micros.get(at.min(micros.len().saturating_sub(1))).map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
    };
    let decisions = answered as f64;
    Ok(Round {
        per_second: decisions / took.as_secs_f64(),
        per_cpu_second: decisions / cpu.as_secs_f64(),
        redis: uses_redis(task.contender).then_some(redis.as_secs_f64() * 1e6 / decisions),
        p50: percentile(0.5),
        p99: percentile(0.99),
    })
}

fn uses_redis(contender: Contender) -> bool {
    matches!(contender, Contender::Exact | Contender::Leased | Contender::Envoyproxy)
}

/// Whether answers say which limit was counted.
fn tells_limits(contender: Contender) -> bool {
    contender == Contender::Memory || uses_redis(contender)
}

/// Waits until a limit is counted: without its rules, or without Redis, a server might answer, too.
async fn decides(mut client: Client) -> anyhow::Result<()> {
    let late = Instant::now() + DECIDES_WITHIN;
    loop {
        let answer = client.should_rate_limit(request(0, 0)).await;
        if answer.as_ref().is_ok_and(|answer| counts(answer.get_ref())) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < late, "no limit is counted: {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn counts(answer: &RateLimitResponse) -> bool {
    answer.statuses.iter().any(|status| status.current_limit.is_some())
}
