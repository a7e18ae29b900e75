//! How long decisions take while Redis is away: paused, slow or killed, at defaults. Everything shares the machine.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use super::contender::Server;
use super::kept::{Answers, Away};
use super::redis::Redis;
use super::requests::{Client, request};

/// Requests a second, each sent when it is due.
const RATE: u32 = 1_000;
/// What comes before the fault.
const BEFORE: Duration = Duration::from_secs(1);
/// How much slower one that is slow is.
const SLOWER: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
enum Fault {
    None,
    Paused,
    Slow,
    Killed,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::None => "there",
            Self::Paused => "paused",
            Self::Slow => "slow",
            Self::Killed => "killed",
        }
    }
}

/// Measures each of them with each failure mode, for so many seconds.
pub(crate) fn measure(seconds: u64) -> anyhow::Result<Away> {
    let mut rows = Vec::new();
    for fault in [Fault::None, Fault::Paused, Fault::Slow, Fault::Killed] {
        for mode in ["local", "open", "closed"] {
            let answers = one(fault, mode, Duration::from_secs(seconds))?;
            println!("{:<8} {mode:<7} {answers}", fault.name());
            rows.push((fault.name().to_owned(), mode.to_owned(), answers));
        }
    }
    Ok(Away { at: jiff::Timestamp::now().to_string(), rows })
}

fn one(fault: Fault, mode: &str, lasts: Duration) -> anyhow::Result<Answers> {
    let redis = Redis::start()?;
    let proxy = Proxy::to(redis.address)?;
    let server = Server::at_defaults(proxy.address, mode)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut took, failed) = runtime.block_on(load(server.address, fault, redis, &proxy, lasts))?;
    took.sort_unstable();
    let at = |share: f64| {
        let at = took[((took.len() as f64 * share) as usize).min(took.len() - 1)];
        at.as_secs_f64() * 1e3
    };
    let [p50, p99, p999, most] = [0.5, 0.99, 0.999, 1.0].map(at);
    Ok(Answers { calls: took.len(), failed, p50, p99, p999, most })
}

/// How long calls took that were due since the fault, and how many of them failed.
async fn load(
    address: SocketAddr,
    fault: Fault,
    redis: Redis,
    proxy: &Proxy,
    lasts: Duration,
) -> anyhow::Result<(Vec<Duration>, usize)> {
    let client = Client::new(Endpoint::try_from(format!("http://{address}"))?.connect().await?);
    let begin = Instant::now() + BEFORE;
    let (mut due, mut calls, mut redis, mut n) = (Instant::now(), JoinSet::new(), Some(redis), 0);
    let mut done = false;
    while due < begin + lasts {
        tokio::time::sleep_until(due.into()).await;
        if due >= begin && !done {
            done = true;
            match fault {
                Fault::None => {}
                Fault::Paused => redis.as_ref().map_or(Ok(()), |redis| redis.process.pause())?,
                Fault::Slow => proxy.slow(),
                Fault::Killed => drop(redis.take()),
            }
        }
        let mut client = client.clone();
        n += 1;
        calls.spawn(async move {
            let sent = Instant::now();
            let answer = client.should_rate_limit(request(0, n % 100)).await;
            let ok = answer.is_ok_and(|answer| answer.get_ref().overall_code() == Code::Ok);
            (due, sent.elapsed(), ok)
        });
        due += Duration::from_secs(1) / RATE;
    }
    let all = calls.join_all().await;
    let counted: Vec<_> = all.into_iter().filter(|(due, ..)| *due >= begin).collect();
    let refused = counted.iter().filter(|(.., ok)| !ok).count();
    Ok((counted.into_iter().map(|(_, took, _)| took).collect(), refused))
}

/// What is between the service and Redis.
struct Proxy {
    address: SocketAddr,
    delay: Arc<AtomicU64>,
}

impl Proxy {
    fn to(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let delay = Arc::new(AtomicU64::new(0));
        let of_answers = delay.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(target) else { continue };
                let pair = |from: &TcpStream, to: &TcpStream| {
                    Ok::<_, std::io::Error>((from.try_clone()?, to.try_clone()?))
                };
                if let (Ok(asks), Ok(answers)) = (pair(&near, &far), pair(&far, &near)) {
                    std::thread::spawn(move || carry(asks, &AtomicU64::new(0)));
                    let delay = of_answers.clone();
                    std::thread::spawn(move || carry(answers, &delay));
                }
            }
        });
        Ok(Self { address, delay })
    }

    fn slow(&self) {
        self.delay.store(u64::try_from(SLOWER.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn carry((mut from, mut to): (TcpStream, TcpStream), delay: &AtomicU64) {
    let mut piece = [0; 16 << 10];
    // Each end may be gone, which the other is told of.
    let _ = from.set_nodelay(true).and(to.set_nodelay(true));
    while let Ok(length @ 1..) = from.read(&mut piece) {
        std::thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
