//! A control plane that is away, comes, changes its mind, talks nonsense and comes back; and the whole service behind
//! one, asked over gRPC.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with it")]

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::http::{HeaderMap, HeaderName};
use axum::routing::get;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use tokio::net::TcpListener;

use super::*;
use crate::model::limit::{Algorithm, DOMAIN, Key, Limit};
use crate::ratelimit::serve::{Listeners, Sources, alone};

/// An answer that can be changed, with the `If-None-Match` headers that came.
#[derive(Clone, Default)]
struct Endpoint {
    answer: Arc<Mutex<(u16, String)>>,
    matches: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    fn set(&self, status: u16, body: impl Into<String>) {
        *self.answer.lock().unwrap() = (status, body.into());
    }

    /// Waits until two questions more have been answered: so the first of them has been dealt with.
    async fn answered(&self) {
        let so_far = self.matches.lock().unwrap().len();
        while self.matches.lock().unwrap().len() < so_far + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts at an address; port 0 picks one.
    async fn start(&self, address: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = self.clone();
        let answer = move |headers: HeaderMap| async move {
            let asked = headers.get("if-none-match").map(|value| value.to_str().unwrap().to_owned());
            let (status, body) = endpoint.answer.lock().unwrap().clone();
            let etag = format!("\"{}\"", body.len());
            let same = asked.as_ref() == Some(&etag);
            endpoint.matches.lock().unwrap().extend(asked);
            let status = StatusCode::from_u16(if same { 304 } else { status }).unwrap();
            (status, [(HeaderName::from_static("etag"), etag)], if same { String::new() } else { body })
        };
        let router = Router::new().route(LIMITS_PATH, get(answer));
        (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
    }
}

fn json(ids: &[&str]) -> String {
    let algorithm = Algorithm::FixedWindow { requests: 1, window_ms: 60_000_000 };
    let limit = |id: &&str| Limit::new((*id).into(), Key::ClientAddress, algorithm);
    serde_json::to_string(&ids.iter().map(limit).collect::<LimitSet>()).unwrap()
}

async fn wait_for(limits: &mut watch::Receiver<Arc<LimitSet>>, len: usize) {
    let found = limits.wait_for(|set| set.len() == len);
    timeout(Duration::from_secs(30), found).await.expect("the limits come in time").unwrap();
}

#[tokio::test]
async fn follows_through_absence_changes_and_nonsense() {
    let endpoint = Endpoint::default();
    endpoint.set(200, json(&["a"]));
    let (address, task) = endpoint.start(([127, 0, 0, 1], 0).into()).await;
    let (sender, mut limits) = watch::channel(Arc::new(LimitSet::default()));
    let poller = Poller::new(&address.to_string(), Duration::from_millis(5)).unwrap();
    let follower = tokio::spawn(poller.run(sender));
    wait_for(&mut limits, 1).await;
    endpoint.answered().await;
    assert!(!limits.has_changed().unwrap(), "an equal set is not sent again");

    for (status, body) in
        [(200, "nonsense".to_owned()), (500, json(&["a", "b", "c"])), (200, "[7]".to_owned())]
    {
        endpoint.set(status, body);
        endpoint.answered().await;
        assert!(limits.borrow().get("a").is_some() && limits.borrow().len() == 1, "the last good set stays");
    }
    task.abort();
    let _ = task.await;
    endpoint.set(200, json(&["a", "b"]));
    let (_, task) = endpoint.start(address).await;
    wait_for(&mut limits, 2).await;
    let last = endpoint.matches.lock().unwrap().last().cloned();
    assert_eq!(last, Some(format!("\"{}\"", json(&["a"]).len())), "what was refused is not remembered");

    drop(limits);
    timeout(Duration::from_secs(30), follower).await.expect("ends when nobody listens").unwrap();
    task.abort();
}

#[test]
fn an_address_that_is_none_is_named() {
    let (sender, _) = watch::channel(Arc::default());
    let error = follow("not an address", sender).err().unwrap();
    assert!(error.to_string().contains("not an address"), "{error}");
}

#[tokio::test]
async fn the_service_alone_decides_by_the_control_planes_limits() {
    let endpoint = Endpoint::default();
    endpoint.set(200, json(&["one"]));
    let (address, _task) = endpoint.start(([127, 0, 0, 1], 0).into()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let service = tokio::spawn(async move {
        let stopped = async { stopped.await.unwrap_or_default() };
        let listeners =
            Listeners { calls: listener.into(), tls: None, health: None, http: None, quota: None };
        alone(listeners, Sources { server: Some(address.to_string()), ..Sources::default() }, stopped).await
    });

    let mut client = RateLimitServiceClient::connect(url.clone()).await.unwrap();
    let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into() };
    let entries = vec![entry("limit", "one"), entry("remote_address", "192.0.2.7")];
    let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
    let request = RateLimitRequest { domain: DOMAIN.into(), descriptors, hits_addend: 0 };
    for expected in [Code::Ok, Code::OverLimit] {
        let answer = client.should_rate_limit(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.overall_code(), expected);
    }
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    for service in ["", "envoy.service.ratelimit.v3.RateLimitService"] {
        let asked = tonic_health::pb::HealthCheckRequest { service: service.into() };
        let status = health.check(asked).await.unwrap().into_inner().status();
        assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving, "{service}");
    }
    stop.send(()).unwrap();
    timeout(Duration::from_secs(30), service).await.expect("it ends when told to").unwrap().unwrap();
}
