//! The client, a process with a core of its own: so many calls under way, each followed by the next.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use super::contender::{Server, pinned};
use super::process;
use super::record::Round;

/// The core of the client.
const CORE: &str = "1";
const CONNECTIONS: usize = 4;
/// Calls under way on each connection.
const STREAMS: usize = 32;
/// Counters, however many rules they are of.
const COUNTERS: u64 = 10_000;
/// What comes before what counts.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures a server, from another process.
pub(crate) fn run(server: &Server, rules: usize, takes: Duration) -> anyhow::Result<Round> {
    let output = pinned(CORE)
        .arg(std::env::current_exe()?)
        .arg("--client")
        .args([server.address.to_string(), server.process.id().to_string()])
        .args([rules.to_string(), takes.as_secs().to_string()])
        .output()
        .context("cannot start the client")?;
    let said = String::from_utf8_lossy(&output.stdout);
    Round::parse(&said).with_context(|| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Is the client: prints one line.
pub(crate) fn main(args: &[String]) -> anyhow::Result<()> {
    let [address, pid, rules, seconds] = args else { anyhow::bail!("four values") };
    let (address, pid): (SocketAddr, u32) = (address.parse()?, pid.parse()?);
    let takes = Duration::from_secs(seconds.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let round = runtime.block_on(measure(address, pid, rules.parse()?, takes))?;
    println!("{}", serde_json::to_string(&round)?);
    Ok(())
}

async fn measure(address: SocketAddr, pid: u32, rules: u64, takes: Duration) -> anyhow::Result<Round> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + takes;
    let mut calls = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let channel = Endpoint::try_from(format!("http://{address}"))?.connect().await?;
        for stream in 0..STREAMS {
            let client = RateLimitServiceClient::new(channel.clone());
            calls.spawn(follow(client, (connection * STREAMS + stream) as u64, rules, begin, end));
        }
    }
    tokio::time::sleep_until(begin.into()).await;
    let (cpu, started) = (process::cpu(pid)?, Instant::now());
    tokio::time::sleep_until(end.into()).await;
    let (cpu, took) = (process::cpu(pid)? - cpu, started.elapsed());
    let mut micros: Vec<u32> = Vec::new();
    while let Some(calls) = calls.join_next().await {
        micros.extend(calls??);
    }
    micros.sort_unstable();
    let percentile = |share: f64| {
        let at = (micros.len() as f64 * share) as usize;
        micros.get(at.min(micros.len().saturating_sub(1))).map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
    };
    Ok(Round {
        per_second: micros.len() as f64 / took.as_secs_f64(),
        per_cpu_second: micros.len() as f64 / cpu.as_secs_f64(),
        p50: percentile(0.5),
        p99: percentile(0.99),
    })
}

/// One call after the other until the end. How long each took, in microseconds, of those that began and ended in time.
async fn follow(
    mut client: RateLimitServiceClient<tonic::transport::Channel>,
    mut random: u64,
    rules: u64,
    begin: Instant,
    end: Instant,
) -> anyhow::Result<Vec<u32>> {
    let mut took = Vec::new();
    loop {
        // Knuth's, for keys in any order that is the same in every run.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let request = request((random >> 33) % rules, (random >> 20) % (COUNTERS / rules).max(1));
        let at = Instant::now();
        let answer = client.should_rate_limit(request).await?.into_inner();
        anyhow::ensure!(answer.overall_code() == Code::Ok, "over a limit that is never reached");
        let now = Instant::now();
        if now >= end {
            return Ok(took);
        }
        if now >= begin {
            took.push(u32::try_from((now - at).as_micros()).unwrap_or(u32::MAX));
        }
    }
}

fn request(rule: u64, user: u64) -> RateLimitRequest {
    let entry = |key: &str, value: String| Entry { key: key.into(), value };
    let entries = vec![entry("route", format!("r{rule}")), entry("user", format!("user-{user}"))];
    let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
    RateLimitRequest { domain: "bench".into(), descriptors, hits_addend: 0 }
}
