//! The client and the echo servers, held against each other without Envoy between them.

use super::trial;
use crate::case::step::{ErrorKind, HttpVersion, Request, Scheme};
use crate::case::values::{OneOrMany, Span};
use crate::case::{Backend, Protocol};
use crate::client::{Answer, Edge, Plan, send_all};
use crate::echo::{EchoServer, Records, Shared};
use crate::expect::Judged;
use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

pub(super) fn tests(runtime: &Handle) -> Vec<Trial> {
    macro_rules! tests {
        ($($name:ident)*) => {
            vec![$({
                let runtime = runtime.clone();
                trial(concat!("requests::", stringify!($name)), move || runtime.block_on($name()))
            }),*]
        };
    }
    tests![
        an_echo_says_what_it_saw
        both_versions_of_http_are_spoken_on_one_port
        grpc_is_answered_with_trailers
        a_websocket_echoes
        the_first_requests_fail
        an_auth_service_knows_its_keys
        cookies_are_kept_over_the_count
        requests_share_connections
        a_finished_server_answers_what_it_has_begun
        failures_are_told_apart
    ]
}

/// An echo server of some kind.
struct Echo {
    server: EchoServer,
    shared: Arc<Shared>,
}

impl Echo {
    async fn start(options: Backend) -> Result<Echo> {
        let shared = Arc::new(Shared {
            key: "test/echo:80".parse().map_err(anyhow::Error::msg)?,
            options,
            records: Arc::new(Records::default()),
            requests: Default::default(),
            tls: None,
        });
        Ok(Echo { server: EchoServer::start(shared.clone(), 8080).await?, shared })
    }

    async fn send(&self, request: Request) -> Result<Vec<Answer>> {
        send(self.server.address, request).await
    }

    /// The JSON of the only answer.
    async fn seen(&self, request: Request) -> Result<Value> {
        let answers = self.send(request).await?;
        let [answer] = &answers[..] else { anyhow::bail!("not one answer") };
        let reply = answer.outcome.as_ref().map_err(|failure| anyhow::anyhow!("{failure}"))?;
        let by = Judged::new(answer, &self.shared.records).by.context("nobody answered")?;
        ensure!(by.endpoint == self.server.address, "{by:?} answered");
        Ok(serde_json::from_slice(&reply.body)?)
    }
}

async fn send(address: SocketAddr, request: Request) -> Result<Vec<Answer>> {
    let SocketAddr::V4(address) = address else { anyhow::bail!("an IPv4 address") };
    let port = address.port();
    let edge =
        Edge { ip: *address.ip(), http_port: port, https_port: port, gateway_ports: Default::default() };
    let plan = Arc::new(Plan::new(&request, &edge, None)?);
    Ok(send_all(&plan, request.count, request.concurrency, true).await)
}

fn request() -> Request {
    Request { host: Some("a.example:81".to_owned()), ..Request::default() }
}

async fn an_echo_says_what_it_saw() -> Result<()> {
    let echo = Echo::start(Backend::default()).await?;
    let values = OneOrMany(vec!["one".to_owned(), "two".to_owned()]);
    let seen = echo
        .seen(Request {
            method: "PUT".to_owned(),
            path: "/a//b/%2F?c=d".to_owned(),
            headers: [("X-Twice".to_owned(), values)].into(),
            body: Some("hello".to_owned()),
            from: Some(Ipv4Addr::new(127, 1, 2, 3)),
            ..request()
        })
        .await?;
    ensure!(
        seen["method"] == "PUT" && seen["path"] == "/a//b/%2F?c=d" && seen["host"] == "a.example:81",
        "{seen}"
    );
    ensure!(seen["headers"]["x-twice"] == serde_json::json!(["one", "two"]), "{seen}");
    ensure!(seen["body"] == "hello" && seen["body_size"] == 5 && seen["service"] == "test/echo", "{seen}");
    let large =
        echo.seen(Request { body_size: Some(100_000), method: "POST".to_owned(), ..request() }).await?;
    ensure!(large["body_size"] == 100_000 && large["body"].as_str().is_some_and(|text| text.len() == 65_536));
    Ok(())
}

async fn both_versions_of_http_are_spoken_on_one_port() -> Result<()> {
    let echo = Echo::start(Backend::default()).await?;
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let seen = echo.seen(Request { http: Some(http), ..request() }).await?;
        ensure!(seen["host"] == "a.example:81", "{http:?}: {seen}");
    }
    Ok(())
}

async fn grpc_is_answered_with_trailers() -> Result<()> {
    let echo = Echo::start(Backend { protocol: Protocol::Grpc, ..Backend::default() }).await?;
    let grpc = crate::case::step::Grpc { service: "a.B".to_owned(), method: "C".to_owned() };
    let request = Request { grpc: Some(grpc), body: Some("bytes".to_owned()), ..request() };
    let seen = echo.seen(request.clone()).await?;
    ensure!(seen["path"] == "/a.B/C" && seen["body"] == "bytes" && seen["body_size"] == 5, "{seen}");
    let answers = echo.send(request).await?;
    let reply = answers[0].outcome.as_ref().map_err(|failure| anyhow::anyhow!("{failure}"))?;
    ensure!(reply.header("grpc-status") == ["0"], "{reply:?}");
    Ok(())
}

async fn a_websocket_echoes() -> Result<()> {
    let echo = Echo::start(Backend { protocol: Protocol::Ws, ..Backend::default() }).await?;
    let answers = echo.send(Request { websocket: true, ..request() }).await?;
    let reply = answers[0].outcome.as_ref().map_err(|failure| anyhow::anyhow!("{failure}"))?;
    ensure!(reply.status == 101 && reply.body == answers[0].id, "{reply:?}");
    let seen = echo.seen(request()).await?;
    ensure!(seen["method"] == "GET", "{seen}");
    Ok(())
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.outcome.as_ref().map_or(0, |reply| reply.status)).collect()
}

async fn the_first_requests_fail() -> Result<()> {
    let echo = Echo::start(Backend { fail_first: 2, ..Backend::default() }).await?;
    let statuses = statuses(&echo.send(Request { count: 4, ..request() }).await?);
    ensure!(statuses == [503, 503, 200, 200], "{statuses:?}");
    Ok(())
}

async fn an_auth_service_knows_its_keys() -> Result<()> {
    let allow = [("good".to_owned(), [("x-user".to_owned(), "u1".to_owned())].into())].into();
    let auth = crate::case::Auth { header: "x-key".to_owned(), allow };
    let echo = Echo::start(Backend { auth: Some(auth), ..Backend::default() }).await?;
    for (key, status, user) in [("good", 200, vec!["u1"]), ("bad", 401, vec![])] {
        let headers = [("x-key".to_owned(), OneOrMany(vec![key.to_owned()]))].into();
        let answers = echo.send(Request { headers, ..request() }).await?;
        let reply = answers[0].outcome.as_ref().map_err(|failure| anyhow::anyhow!("{failure}"))?;
        ensure!(reply.status == status && reply.header("x-user") == user, "{key}: {reply:?}");
    }
    Ok(())
}

async fn cookies_are_kept_over_the_count() -> Result<()> {
    let set =
        OneOrMany(vec!["a=1; Path=/".to_owned(), "b=2; Path=/other".to_owned(), "c=3; Secure".to_owned()]);
    let options = Backend { response_headers: [("set-cookie".to_owned(), set)].into(), ..Backend::default() };
    let echo = Echo::start(options).await?;
    let answers = echo.send(Request { cookies: true, count: 2, ..request() }).await?;
    let cookies: Vec<Option<String>> = answers
        .iter()
        .filter_map(|answer| Judged::new(answer, &echo.shared.records).by)
        .map(|record| {
            record.headers.iter().find(|(name, _)| name == "cookie").map(|(_, value)| value.clone())
        })
        .collect();
    ensure!(cookies == [None, Some("a=1".to_owned())], "{cookies:?}");
    Ok(())
}

async fn requests_share_connections() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        let mut connections = 0;
        while let Ok(Ok((mut stream, _))) =
            tokio::time::timeout(Duration::from_millis(500), listener.accept()).await
        {
            connections += 1;
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    if tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.is_err() {
                        return;
                    }
                }
            });
        }
        connections
    });
    let answers = send(address, Request { count: 21, concurrency: 3, ..request() }).await?;
    ensure!(statuses(&answers) == [200; 21]);
    let connections = server.await?;
    ensure!(connections == 3, "{connections} connections");
    Ok(())
}

async fn a_finished_server_answers_what_it_has_begun() -> Result<()> {
    let delay = Some(Span(Duration::from_millis(300)));
    let echo = Echo::start(Backend { delay, ..Backend::default() }).await?;
    let (address, shared) = (echo.server.address, echo.shared.clone());
    let begun = tokio::spawn(send(address, request()));
    while shared.requests.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    echo.server.finish();
    ensure!(statuses(&begun.await??) == [200]);
    let later = send(address, request()).await?;
    let failure = later[0].outcome.as_ref().err().context("a closed server answers")?;
    ensure!(failure.is(ErrorKind::Refused, false), "{failure}");
    Ok(())
}

/// Each way to fail is itself and no other.
async fn failures_are_told_apart() -> Result<()> {
    let https = || Request { scheme: Scheme::Https, ..request() };
    let short = Span(Duration::from_millis(200));
    let plain = Echo::start(Backend::default()).await?;
    let cases = [
        (ErrorKind::Refused, SocketAddr::from(([198, 18, 0, 1], 9)), request()),
        (ErrorKind::Reset, closing().await?, request()),
        (ErrorKind::Tls, plain.server.address, https()),
        (ErrorKind::Timeout, SocketAddr::from(([192, 0, 2, 1], 80)), Request { timeout: short, ..request() }),
    ];
    for (kind, address, request) in cases {
        let is_https = request.scheme == Scheme::Https;
        let answers = send(address, request).await?;
        let failure = answers[0].outcome.as_ref().err().with_context(|| format!("{kind:?}: an answer"))?;
        for other in [ErrorKind::Refused, ErrorKind::Reset, ErrorKind::Tls, ErrorKind::Timeout] {
            ensure!(failure.is(other, is_https) == (other == kind), "{failure} for {kind:?} and {other:?}");
        }
    }
    Ok(())
}

/// A server that hangs up when it has read something.
async fn closing() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 64]).await;
        }
    });
    Ok(address)
}
