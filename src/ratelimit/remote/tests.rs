//! The service over a real socket behind a control plane that is not ready, comes, changes its mind, sends what cannot be
//! used, goes and comes back.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with it")]

use std::net::SocketAddr;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Endpoint;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::*;
use crate::fleet::Fleet;
use crate::model::limit::{Algorithm, DOMAIN, Key, KeyMatch, Limit, Plan};
use crate::ratelimit::envoyproxy::Reading;
use crate::ratelimit::serve::{Kind, Listeners, Sources, alone};
use crate::translate::limit_set::limit_set;
use crate::translate::rate_limit_config::rate_limit_config;
use crate::xds::snapshot::Sender;
use crate::xds::{Audience, Resource, TypeUrl, Update, Version};

/// A control plane, as far as limits go.
pub(super) struct ControlPlane {
    pub(super) address: SocketAddr,
    snapshots: Sender,
    pub(super) fleet: Fleet,
    task: JoinHandle<()>,
}

impl ControlPlane {
    /// Starts without a snapshot; port 0 picks one.
    pub(super) async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (snapshots, receiver) = watch::channel(None);
        let fleet = Fleet::new();
        let service = crate::xds::server::service(receiver, fleet.clone());
        let router = crate::xds::server::builder().add_service(service);
        let serving = router.serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { serving.await.unwrap() });
        Self { address, snapshots, fleet, task }
    }

    pub(super) async fn stop(self) -> SocketAddr {
        // Connections are tasks of their own, which end with their streams.
        drop(self.snapshots);
        self.task.abort();
        let _ = self.task.await;
        self.address
    }

    pub(super) fn server(&self) -> Server {
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        Server { host, port, tls: None, node_id: "r".into() }
    }

    pub(super) fn update(&self, set: Vec<Resource>, remove: &[(TypeUrl, &str)]) {
        let remove = remove.iter().map(|(type_url, name)| (*type_url, Arc::from(*name))).collect();
        let update = Update { set: set.into_iter().map(Arc::new).collect(), remove };
        self.snapshots.send_modify(|snapshot| {
            *snapshot = Some(Arc::new(snapshot.as_deref().cloned().unwrap_or_default().apply(update)));
        });
    }

    /// Waits until the fleet looks as it should.
    pub(super) async fn until(&self, what: &str, condition: impl Fn(&Fleet) -> bool) {
        let wait = async {
            while !condition(&self.fleet) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.fleet.nodes());
    }
}

fn limit(id: &str, requests: u32) -> Limit {
    Limit::new(id.into(), Key::ClientAddress, Algorithm::FixedWindow { requests, window_ms: 60_000_000 })
}

fn set(limits: &[(&str, u32)]) -> Vec<Resource> {
    limits.iter().map(|(id, requests)| limit_set(&limit(id, *requests))).collect()
}

async fn wait_for(limits: &mut watch::Receiver<Arc<LimitSet>>, expected: &[(&str, u32)]) {
    let is_so = |set: &Arc<LimitSet>| {
        set.iter().map(|limit| (&*limit.id, limit.algorithm.quota().0)).eq(expected.iter().copied())
    };
    let found = tokio::time::timeout(Duration::from_secs(30), limits.wait_for(is_so)).await.is_ok();
    assert!(found, "{expected:?}, not {:?}", limits.borrow());
}

#[tokio::test]
async fn follows_through_changes_and_absence() {
    let control_plane = ControlPlane::start(([127, 0, 0, 1], 0).into()).await;
    let (sender, mut limits) = watch::channel(Arc::new(LimitSet::default()));
    let follower = tokio::spawn(follow(control_plane.server(), sender));
    control_plane.until("connected", |fleet| fleet.len() == 1).await;
    assert!(!limits.has_changed().unwrap(), "nothing is known yet");
    control_plane.update(Vec::new(), &[]);
    let first = tokio::time::timeout(Duration::from_secs(30), limits.changed());
    first.await.expect("the first set, though it is empty").unwrap();
    assert!(limits.borrow_and_update().is_empty(), "known to be none");

    control_plane.update(set(&[("a", 1), ("b", 1), ("c", 1)]), &[]);
    wait_for(&mut limits, &[("a", 1), ("b", 1), ("c", 1)]).await;
    control_plane.update(set(&[("b", 2)]), &[(TypeUrl::LimitSet, "c")]);
    wait_for(&mut limits, &[("a", 1), ("b", 2)]).await;
    control_plane.until("acknowledged", |fleet| fleet.nodes()[0].progress.acked == 2).await;
    let node = control_plane.fleet.nodes().remove(0);
    assert_eq!((node.id.as_str(), node.audience), ("r", Audience::RateLimit));
    let sent = &node.types[&TypeUrl::LimitSet];
    assert_eq!((sent.resources, sent.removed, sent.nacks), (4, 1, 0), "a change sends what it changes");

    // Another process serves the same but for one, and says no more than that.
    let address = control_plane.stop().await;
    let control_plane = ControlPlane::start(address).await;
    limits.mark_unchanged();
    control_plane.until("connected again", |fleet| fleet.len() == 1).await;
    assert!(!limits.has_changed().unwrap() && limits.borrow().len() == 2, "the last good ones stay");
    control_plane.update(set(&[("b", 2), ("d", 4)]), &[]);
    wait_for(&mut limits, &[("b", 2), ("d", 4)]).await;
    let sent = control_plane.fleet.nodes().remove(0).types[&TypeUrl::LimitSet].clone();
    assert_eq!((sent.resources, sent.removed), (1, 1));

    drop(limits);
    tokio::time::timeout(Duration::from_secs(30), follower).await.expect("ends when nobody listens").unwrap();
}

#[tokio::test]
async fn what_cannot_be_used_is_rejected_alone() {
    let control_plane = ControlPlane::start(([127, 0, 0, 1], 0).into()).await;
    let (sender, mut limits) = watch::channel(Arc::new(LimitSet::default()));
    let _follower = tokio::spawn(follow(control_plane.server(), sender));
    control_plane.update(set(&[("a", 1), ("b", 1)]), &[]);
    wait_for(&mut limits, &[("a", 1), ("b", 1)]).await;
    let mut bad = set(&[("c", 1), ("d", 1)]);
    for (id, version) in [("b", 7), ("e", 8)] {
        bad.push(Resource::from_bytes(TypeUrl::LimitSet, id, Version(version), b"\x0a\x00"));
    }
    control_plane.update(bad, &[]);
    wait_for(&mut limits, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]).await;
    control_plane.until("both are found out", |fleet| fleet.rejections().borrow().len() == 2).await;
    let rejections = control_plane.fleet.rejections();
    let message = rejections.borrow()[&(TypeUrl::LimitSet, "b".into())].message.clone();
    assert!(message.contains("b: id: is empty"), "{message}");
    drop(rejections);
    control_plane.update(set(&[("b", 2)]), &[(TypeUrl::LimitSet, "e")]);
    wait_for(&mut limits, &[("a", 1), ("b", 2), ("c", 1), ("d", 1)]).await;
    control_plane.until("nothing is wrong any more", |fleet| fleet.rejections().borrow().is_empty()).await;
}

#[tokio::test]
async fn the_service_is_ready_once_it_has_had_limits() {
    let control_plane = ControlPlane::start(([127, 0, 0, 1], 0).into()).await;
    let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (calls, health) = (bind().await, bind().await);
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let (calls_at, health_at) = (url(&calls), url(&health));
    let listeners =
        Listeners { calls: calls.into(), tls: None, health: Some(health), http: None, quota: None };
    let sources = Sources { xds: Some((control_plane.server(), Kind::Limits)), ..Sources::default() };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async { stopped.await.unwrap_or_default() };
    let service = tokio::spawn(async move { alone(listeners, sources, stopped).await });

    let probe = probe(health_at.clone(), "");
    tokio::pin!(probe);
    tokio::select! {
        answer = &mut probe => panic!("answered without limits: {answer:?}"),
        () = control_plane.until("connected", |fleet| fleet.len() == 1) => {}
    }
    assert!((&mut probe).now_or_never().is_none(), "no limits are known yet");
    control_plane.update(set(&[("one", 1)]), &[]);
    assert_eq!(probe.await.status(), ServingStatus::Serving);
    let named = self::probe(health_at, "envoy.service.ratelimit.v3.RateLimitService").await;
    assert_eq!(named.status(), ServingStatus::Serving);

    let mut client = RateLimitServiceClient::connect(calls_at).await.unwrap();
    let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into() };
    let entries = vec![entry("limit", "one"), entry("remote_address", "192.0.2.7")];
    let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
    let request = RateLimitRequest { domain: DOMAIN.into(), descriptors, hits_addend: 0 };
    let mut ask = async || client.should_rate_limit(request.clone()).await.unwrap().into_inner();
    assert_eq!(ask().await.overall_code(), Code::Ok);
    assert_eq!(ask().await.overall_code(), Code::OverLimit);
    control_plane.stop().await;
    assert_eq!(ask().await.overall_code(), Code::OverLimit, "the last good ones stay");
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(30), service)
        .await
        .expect("it ends when told to")
        .unwrap()
        .unwrap();
}

/// The same limits, as they are exported for envoyproxy/ratelimit, followed as its service does.
#[tokio::test]
async fn the_export_is_decided_by_as_well() {
    let control_plane = ControlPlane::start(([127, 0, 0, 1], 0).into()).await;
    let calls = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", calls.local_addr().unwrap());
    let listeners = Listeners { calls: calls.into(), tls: None, health: None, http: None, quota: None };
    let server = Server { node_id: "any".into(), ..control_plane.server() };
    let sources = Sources { xds: Some((server, Kind::Rules(Reading::default()))), ..Sources::default() };
    let service = tokio::spawn(async move { alone(listeners, sources, std::future::pending()).await });
    let window = |requests| Algorithm::AlignedWindow { requests, window_ms: 365 * 86_400_000 };
    let plan = Plan { name: "pro".into(), matches: KeyMatch::Prefix("pro_".into()), algorithm: window(2) };
    let limit = |id: &str, requests| Limit {
        plans: vec![plan.clone()],
        ..Limit::new(id.into(), Key::Header("k".into()), window(requests))
    };
    let export = |limits: &[Limit]| vec![rate_limit_config(&limits.iter().cloned().collect())];
    control_plane.update(export(&[limit("one", 1)]), &[]);

    let mut client = RateLimitServiceClient::connect(url).await.unwrap();
    let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into() };
    let request = |id: &str, key: &str| {
        let entries = vec![entry("limit", id), entry("key", key)];
        let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
        RateLimitRequest { domain: DOMAIN.into(), descriptors, hits_addend: 0 }
    };
    let mut ask = async |id: &str, key: &str| {
        let answer = client.should_rate_limit(request(id, key)).await.unwrap().into_inner();
        answer.overall_code() == Code::Ok
    };
    for (key, expected) in [("a", true), ("a", false), ("pro_a", true), ("pro_a", true), ("pro_a", false)] {
        assert_eq!(ask("one", key).await, expected, "{key}");
    }
    assert!(ask("two", "a").await && ask("two", "a").await, "there is none yet");
    control_plane.update(export(&[limit("one", 1), limit("two", 0)]), &[]);
    control_plane.until("acknowledged", |fleet| fleet.nodes()[0].progress.acked == 2).await;
    assert!(!ask("two", "a").await);
    // A set that cannot be used changes nothing.
    let bad = Resource::from_bytes(TypeUrl::RateLimitConfig, "bad", Version(1), b"\x0a\x03bad");
    control_plane.update(export(&[]).into_iter().chain([bad]).collect(), &[]);
    control_plane.until("rejected", |fleet| !fleet.rejections().borrow().is_empty()).await;
    let message = control_plane.fleet.rejections().borrow().values().next().unwrap().message.clone();
    assert!(message.contains("bad: domain: is empty"), "{message}");
    service.abort();
}

/// What health says, whenever it says something.
async fn probe(url: String, service: &str) -> HealthCheckResponse {
    let ask = async {
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        let asked = HealthCheckRequest { service: service.into() };
        HealthClient::new(channel).check(asked).await.unwrap().into_inner()
    };
    let deadline = tokio::time::timeout(Duration::from_secs(30), ask);
    deadline.await.unwrap_or_else(|_| panic!("no word of {service}"))
}

#[tokio::test]
async fn a_server_that_is_none_ends_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server { host: "127.0.0.1".into(), port, tls: None, node_id: "r".into() };
    let (sender, limits) = watch::channel(Arc::new(LimitSet::default()));
    let follower = tokio::spawn(follow(server, sender));
    // It hangs up, again and again.
    for _ in 0..3 {
        drop(listener.accept().await.unwrap());
    }
    assert!(!follower.is_finished() && !limits.has_changed().unwrap());
    follower.abort();
}
