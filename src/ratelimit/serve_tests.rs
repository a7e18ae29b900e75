//! The whole service with a folder of rules, asked over a socket, by reflection and without gRPC.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with it")]

use std::path::Path;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use envoy_types::pb::google::protobuf::UInt64Value;
use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};

use super::*;
use crate::ratelimit::envoyproxy::Reading;

const RULES: &str = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: year, requests_per_unit: 1}}]";

/// A running service: its socket, and the ports for probes and for those who speak no gRPC.
struct Rig {
    folder: tempfile::TempDir,
    health: std::net::SocketAddr,
    http: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), Error>>,
}

impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("rules.yaml"), RULES).unwrap();
        let port = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (health, http) = (port().await, port().await);
        let addresses = [health.local_addr().unwrap(), http.local_addr().unwrap()];
        let calls = Calls::Unix(UnixListener::bind(socket(folder.path())).unwrap());
        let listeners = Listeners {
            calls,
            tls: None,
            health: Some(health),
            http: Some(http),
            quota: Access::new(None, true).ok(),
        };
        let rules = Follower::open(folder.path().join("rules.yaml"), Reading::default()).unwrap();
        let sources = Sources { folder: Some(rules), ..Sources::default() };
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            alone(listeners, sources, async { stopped.await.unwrap_or_default() }).await
        });
        Self { folder, health: addresses[0], http: addresses[1], stop, served }
    }

    async fn channel(&self) -> Channel {
        let address = format!("unix:{}", socket(self.folder.path()).display());
        Endpoint::try_from(address).unwrap().connect().await.unwrap()
    }
}

fn socket(folder: &Path) -> std::path::PathBuf {
    folder.join("r.sock")
}

/// The answer to a request of HTTP/1.1, head and all.
async fn get(address: std::net::SocketAddr, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let head = if body.is_empty() { head.replacen("POST", "GET", 1) } else { head };
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn all_who_ask_share_the_counters() {
    let rig = Rig::start().await;
    let mut client = RateLimitServiceClient::new(rig.channel().await);
    let entries = vec![Entry { key: "k".into(), value: "v".into() }];
    let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
    let request = RateLimitRequest { domain: "d".into(), descriptors, hits_addend: 0 };
    let answer = client.should_rate_limit(request).await.unwrap().into_inner();
    assert_eq!(answer.overall_code(), Code::Ok);
    let json = r#"{"domain": "d", "descriptors": [{"entries": [{"key": "k", "value": "v"}]}]}"#;
    let answer = get(rig.http, "/json", json).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(get(rig.http, "/rlconfig", "").await.contains("d.k: unit=YEAR requests_per_unit=1"));
    assert!(get(rig.health, "/healthcheck", "").await.ends_with("\r\n\r\nOK"));
    assert!(get(rig.health, "/rlconfig", "").await.starts_with("HTTP/1.1 404 "), "for probes alone");
    rig.stop.send(()).unwrap();
    rig.served.await.unwrap().unwrap();
}

/// HTTP/2 cuts what is larger than 16 KiB into pieces, and Envoy sends headers as large as it takes them.
#[tokio::test]
async fn a_request_in_pieces_is_read_whole() {
    let rig = Rig::start().await;
    let mut client = RateLimitServiceClient::new(rig.channel().await);
    let request = |bytes: usize| {
        let entries = vec![Entry { key: "k".into(), value: "v".repeat(bytes) }];
        let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
        RateLimitRequest { domain: "d".into(), descriptors, hits_addend: 0 }
    };
    for code in [Code::Ok, Code::OverLimit] {
        let answer = client.should_rate_limit(request(1_000_000)).await.unwrap().into_inner();
        assert_eq!(answer.overall_code(), code);
    }
    let refused = client.should_rate_limit(request(5_000_000)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
    let refused = client.should_rate_limit(RateLimitRequest::default()).await.unwrap_err();
    assert_eq!(refused.message(), "rate limit domain must not be empty");
    rig.stop.send(()).unwrap();
    rig.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn calls_of_a_connection_count_in_their_order() {
    let rig = Rig::start().await;
    let client = RateLimitServiceClient::new(rig.channel().await);
    let ask = |gives_back: bool| {
        let entries = vec![Entry { key: "k".into(), value: "v".into() }];
        let descriptor = RateLimitDescriptor {
            entries,
            hits_addend: Some(UInt64Value { value: 1 }),
            is_negative_hits: gives_back,
            ..RateLimitDescriptor::default()
        };
        let request = RateLimitRequest { domain: "d".into(), descriptors: vec![descriptor], hits_addend: 0 };
        let mut client = client.clone();
        async move { client.should_rate_limit(request).await.unwrap().into_inner().overall_code() }
    };
    for round in 0..200 {
        // Sent one after the other, and no answer is waited for.
        let codes = join_all([false, true].into_iter().cycle().take(40).map(ask)).await;
        assert!(codes.iter().all(|code| *code == Code::Ok), "round {round}: {codes:?}");
    }
    rig.stop.send(()).unwrap();
    rig.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn health_and_reflection() {
    let rig = Rig::start().await;
    let port = Endpoint::try_from(format!("http://{}", rig.health)).unwrap().connect().await.unwrap();
    for channel in [rig.channel().await, port] {
        let request = HealthCheckRequest { service: SERVICE_NAME.into() };
        let answer = HealthClient::new(channel).check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let mut client = ServerReflectionClient::new(rig.channel().await);
    let ask = |what| ServerReflectionRequest { host: String::new(), message_request: Some(what) };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(SERVICE_NAME.into())),
    ];
    let mut answers =
        client.server_reflection_info(tokio_stream::iter(questions)).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = first else { panic!("{first:?}") };
    assert!(list.service.contains(&ServiceResponse { name: SERVICE_NAME.into() }), "{list:?}");
    let second = answers.message().await.unwrap().unwrap().message_response;
    assert!(matches!(second, Some(MessageResponse::FileDescriptorResponse(_))), "{second:?}");
    rig.stop.send(()).unwrap();
    rig.served.await.unwrap().unwrap();
}
