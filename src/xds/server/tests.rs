//! The server on loopback, with the client that is generated from Envoy's own definitions.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::rpc;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Streaming;
use tonic::transport::Channel;

use super::{builder, service};
use crate::fleet::Fleet;
use crate::xds::snapshot::Sender;
use crate::xds::{Resource, TypeUrl, Update, Version};
use discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Client;

type Delta = (mpsc::Sender<discovery::DeltaDiscoveryRequest>, Streaming<discovery::DeltaDiscoveryResponse>);

struct Server {
    address: SocketAddr,
    snapshots: Sender,
    fleet: Fleet,
}

impl Server {
    async fn start() -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (snapshots, receiver) = watch::channel(None);
        let fleet = Fleet::new();
        let router = builder().add_service(service(receiver, fleet.clone()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Server { address, snapshots, fleet }
    }

    async fn client(&self) -> Client<Channel> {
        let client = Client::connect(format!("http://{}", self.address)).await.unwrap();
        client.max_decoding_message_size(usize::MAX)
    }

    async fn delta(&self) -> Delta {
        let (requests, outbound) = mpsc::channel(8);
        let mut client = self.client().await;
        let responses = client.delta_aggregated_resources(ReceiverStream::new(outbound)).await;
        (requests, responses.unwrap().into_inner())
    }

    fn set(&self, name: &str, version: u64, size: usize) {
        let message = Cluster { name: name.into(), alt_stat_name: "s".repeat(size), ..Default::default() };
        let cluster = Arc::new(Resource::new(TypeUrl::Cluster, name, Version(version), &message));
        self.snapshots.send_modify(|snapshot| {
            let update = Update { set: vec![cluster], remove: vec![] };
            *snapshot = Some(Arc::new(snapshot.as_deref().cloned().unwrap_or_default().apply(update)));
        });
    }

    /// Waits until the fleet looks as it should.
    async fn until(&self, what: &str, condition: impl Fn(&Fleet) -> bool) {
        let wait = async {
            while !condition(&self.fleet) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.fleet.nodes());
    }
}

fn ask(nonce: &str) -> discovery::DeltaDiscoveryRequest {
    discovery::DeltaDiscoveryRequest {
        node: Some(Node { id: "a".into(), user_agent_name: "envoy".into(), ..Default::default() }),
        type_url: TypeUrl::Cluster.as_str().into(),
        response_nonce: nonce.into(),
        ..Default::default()
    }
}

fn names(response: &discovery::DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

#[tokio::test]
async fn a_delta_stream_from_first_snapshot_to_shutdown() {
    let server = Server::start().await;
    let (requests, mut responses) = server.delta().await;
    requests.send(ask("")).await.unwrap();
    server.until("connected before there is a snapshot", |fleet| fleet.len() == 1).await;
    server.set("x", 1, 10);
    let first = responses.message().await.unwrap().unwrap();
    assert_eq!((names(&first), first.system_version_info.as_str()), (vec!["x"], "1"));
    let any = first.resources[0].resource.clone().unwrap();
    assert_eq!(any.type_url, TypeUrl::Cluster.as_str());
    assert_eq!(Cluster::decode(any.value.as_slice()).unwrap().name, "x");
    requests.send(ask(&first.nonce)).await.unwrap();
    server.until("acknowledged", |fleet| fleet.nodes()[0].progress.acked == 1).await;

    // A type that is not served does not break the stream, and a large response fits it.
    requests.send(discovery::DeltaDiscoveryRequest { type_url: "x".into(), ..ask("") }).await.unwrap();
    server.set("y", 1, 9 << 20);
    let second = responses.message().await.unwrap().unwrap();
    assert_eq!(names(&second), ["y"]);
    requests.send(ask(&second.nonce)).await.unwrap();
    server.until("acknowledged", |fleet| fleet.nodes()[0].progress.acked == 2).await;

    let node = server.fleet.nodes().remove(0);
    assert_eq!((node.id.as_str(), node.user_agent.as_str()), ("a", "envoy"));
    let clusters = &node.types[&TypeUrl::Cluster];
    assert_eq!((clusters.responses, clusters.resources, clusters.acks, clusters.nacks), (2, 2, 2, 0));
    assert!(clusters.bytes > 9 << 20 && clusters.counts.held == 2);
    assert_eq!((clusters.sent_version.as_str(), clusters.acked_version.as_str()), ("2", "2"));
    let held = server.fleet.held(node.stream, TypeUrl::Cluster).unwrap();
    assert_eq!(held.keys().map(|name| &**name).collect::<Vec<_>>(), ["x", "y"]);
    let timing = server.fleet.timings(2).remove(0);
    assert!(timing.sent.unwrap() <= timing.acked.unwrap());

    let Server { snapshots, fleet, .. } = server;
    drop(snapshots);
    assert!(responses.message().await.unwrap().is_none());
    drop((requests, responses));
    while !fleet.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_rejection_is_known_while_the_client_is_there() {
    let server = Server::start().await;
    server.set("x", 7, 1);
    let (requests, mut responses) = server.delta().await;
    requests.send(ask("")).await.unwrap();
    let first = responses.message().await.unwrap().unwrap();
    let error_detail = Some(rpc::Status { message: "no such thing".into(), ..Default::default() });
    requests.send(discovery::DeltaDiscoveryRequest { error_detail, ..ask(&first.nonce) }).await.unwrap();
    let second = responses.message().await.unwrap().unwrap();
    assert_eq!(second.removed_resources, ["x"]);
    let rejections = server.fleet.rejections();
    let rejection = rejections.borrow().get(&(TypeUrl::Cluster, "x".into())).cloned().unwrap();
    assert_eq!((rejection.version, rejection.message.as_str()), (Version(7), "no such thing"));
    drop((requests, responses));
    server.until("gone", Fleet::is_empty).await;
    assert!(rejections.borrow().is_empty());
}

#[tokio::test]
async fn nobody_is_sent_what_is_of_another() {
    let server = Server::start().await;
    server.set("x", 1, 1);
    let limits = Resource::from_bytes(TypeUrl::LimitSet, "l", Version(1), b"");
    server.snapshots.send_modify(|snapshot| {
        let update = Update { set: vec![Arc::new(limits)], remove: vec![] };
        *snapshot = Some(Arc::new(snapshot.as_deref().cloned().unwrap_or_default().apply(update)));
    });
    for (user_agent_name, sent, refused) in [
        ("envoy", TypeUrl::Cluster, TypeUrl::LimitSet),
        ("chancery-ratelimit", TypeUrl::LimitSet, TypeUrl::Cluster),
    ] {
        let (requests, mut responses) = server.delta().await;
        for type_url in [refused, sent] {
            let node = Node { user_agent_name: user_agent_name.into(), ..Default::default() };
            let type_url = type_url.as_str().into();
            let request = discovery::DeltaDiscoveryRequest { node: Some(node), type_url, ..ask("") };
            requests.send(request).await.unwrap();
        }
        let first = responses.message().await.unwrap().unwrap();
        assert_eq!(
            (first.type_url.as_str(), first.nonce.as_str()),
            (sent.as_str(), "1"),
            "{user_agent_name}"
        );
        let node = server.fleet.nodes().pop().unwrap();
        assert_eq!(node.audience, sent.audience());
        assert_eq!(node.types[&refused].responses, 0);
    }
}

#[tokio::test]
async fn a_sotw_stream() {
    let server = Server::start().await;
    server.set("x", 1, 1);
    let (requests, outbound) = mpsc::channel(8);
    let request = |nonce: &str| discovery::DiscoveryRequest {
        type_url: TypeUrl::Cluster.as_str().into(),
        response_nonce: nonce.into(),
        ..Default::default()
    };
    requests.send(request("")).await.unwrap();
    let responses = server.client().await.stream_aggregated_resources(ReceiverStream::new(outbound)).await;
    let mut responses = responses.unwrap().into_inner();
    let first = responses.message().await.unwrap().unwrap();
    requests.send(request(&first.nonce)).await.unwrap();
    server.set("y", 1, 1);
    let second = responses.message().await.unwrap().unwrap();
    let clusters = |response: &discovery::DiscoveryResponse| -> Vec<String> {
        response.resources.iter().map(|any| Cluster::decode(any.value.as_slice()).unwrap().name).collect()
    };
    assert_eq!((clusters(&first), clusters(&second)), (vec!["x".into()], vec!["x".into(), "y".into()]));
    assert_ne!(first.version_info, second.version_info);
}
