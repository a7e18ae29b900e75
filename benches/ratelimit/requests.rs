//! Requests, one after the other or at their due times.

use std::time::{Duration, Instant};

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::kept::Load;

pub(crate) type Client = RateLimitServiceClient<Channel>;

/// Calls under way on each connection, where each follows the other.
const STREAMS: usize = 32;

/// The time that counts.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) begin: Instant,
    pub(crate) end: Instant,
}

impl Span {
    fn contains(self, at: Instant) -> bool {
        (self.begin..self.end).contains(&at)
    }
}

/// How long calls took, in microseconds, and how many of all were answered in the time that counts.
#[derive(Default)]
pub(crate) struct Took {
    pub(crate) micros: Vec<u32>,
    pub(crate) answered: usize,
}

/// Keys in any order that is the same in every run.
struct Keys {
    random: u64,
    load: Load,
}

impl Keys {
    fn next(&mut self) -> RateLimitRequest {
        // Knuth's.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let Load { rules, keys, .. } = self.load;
        request((self.random >> 33) % rules, (self.random >> 20) % (keys / rules).max(1))
    }
}

pub(crate) fn request(rule: u64, user: u64) -> RateLimitRequest {
    let entry = |key: &str, value: String| Entry { key: key.into(), value };
    let entries = vec![entry("route", format!("r{rule}")), entry("user", format!("user-{user}"))];
    let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
    RateLimitRequest { domain: "bench".into(), descriptors, hits_addend: 0 }
}

async fn ask(client: &mut Client, request: RateLimitRequest) -> anyhow::Result<()> {
    let answer = client.should_rate_limit(request).await?.into_inner();
    anyhow::ensure!(answer.overall_code() == Code::Ok, "over a limit that is never reached");
    Ok(())
}

fn micros(took: Duration) -> u32 {
    u32::try_from(took.as_micros()).unwrap_or(u32::MAX)
}

/// So many calls under way, each followed by the next: how long those took that were answered in time.
pub(crate) async fn one_after_the_other(
    clients: Vec<Client>,
    load: Load,
    span: Span,
) -> anyhow::Result<Took> {
    let mut calls = JoinSet::new();
    for (number, client) in clients.iter().flat_map(|client| vec![client; STREAMS]).enumerate() {
        calls.spawn(follow(client.clone(), Keys { random: number as u64, load }, span));
    }
    let mut took = Vec::new();
    while let Some(calls) = calls.join_next().await {
        took.extend(calls??);
    }
    Ok(Took { answered: took.len(), micros: took })
}

async fn follow(mut client: Client, mut keys: Keys, span: Span) -> anyhow::Result<Vec<u32>> {
    let mut took = Vec::new();
    loop {
        let (request, at) = (keys.next(), Instant::now());
        ask(&mut client, request).await?;
        let now = Instant::now();
        if now >= span.end {
            return Ok(took);
        }
        if span.contains(now) {
            took.push(micros(now - at));
        }
    }
}

/// So many requests a second, each sent when it is due whether answers came or not: from the due time of those that were
/// due in time to their answers, however late, since what waits behind one that stalls has waited, too.
pub(crate) async fn at_due_times(
    clients: Vec<Client>,
    load: Load,
    rate: u32,
    span: Span,
) -> anyhow::Result<Took> {
    let mut keys = Keys { random: 0, load };
    let mut calls = JoinSet::new();
    let period = Duration::from_secs(1) / rate;
    let (mut due, mut clients) = (Instant::now(), clients.into_iter().cycle());
    while due < span.end {
        // No timer: those of the runtime are a millisecond late. Each turn lets answers be read.
        loop {
            tokio::task::yield_now().await;
            if Instant::now() >= due {
                break;
            }
        }
        if let Some(mut client) = clients.next() {
            let request = keys.next();
            calls.spawn(async move { ask(&mut client, request).await.map(|()| (due, Instant::now())) });
        }
        due += period;
    }
    let mut took = Took::default();
    while let Some(call) = calls.join_next().await {
        let (due, now) = call??;
        if due >= span.begin {
            took.micros.push(micros(now - due));
        }
        took.answered += usize::from(span.contains(now));
    }
    Ok(took)
}
