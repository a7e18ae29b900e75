//! What a change costs on the wire: a real server, and a client that asks as Envoy does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::route::v3::ScopedRouteConfiguration;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::server::TcpIncoming;

use super::super::Compiler;
use super::certificates::certificate;
use crate::fleet::Fleet;
use crate::settings::Settings;
use crate::source::files::{self, Content, Item};
use crate::store::Change;
use crate::translate::names;
use crate::values::{Kind, ObjectKey};
use crate::xds::{Audience, TypeUrl, server, session, snapshot};

/// Nothing here takes as long, unless it does not come at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Resources by type and name, with their versions.
type Held = BTreeMap<(TypeUrl, String), String>;

/// A compiler behind a server.
struct Plane {
    compiler: Compiler,
    snapshots: snapshot::Sender,
    address: String,
    _tasks: JoinSet<()>,
}

impl Plane {
    async fn start(settings: Settings, manifests: &str) -> Self {
        let (snapshots, seen) = watch::channel(None);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // What goes, goes at once, so that it is seen.
            let sessions =
                session::Settings { cluster_linger: Duration::ZERO, ..crate::translate::sessions() };
            let service = server::service(seen, Fleet::new()).with_settings(sessions);
            server::builder()
                .add_service(service)
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
                .unwrap();
        });
        let compiler = Compiler::new(settings, certificate()).unwrap();
        let mut plane = Self { compiler, snapshots, address, _tasks: tasks };
        plane.compiler.apply(vec![Change::Ready]);
        plane.apply(changes(manifests));
        plane
    }

    fn apply(&mut self, changes: Vec<Change>) {
        let snapshot = self.compiler.apply(changes).snapshot.clone();
        self.snapshots.send_replace(Some(snapshot));
    }

    fn edit(&mut self, manifests: &str) {
        self.apply(changes(manifests));
    }

    /// What a client that subscribed to these ends up with.
    fn serves(&self, names: &BTreeMap<TypeUrl, BTreeSet<String>>) -> Held {
        let snapshot = &self.compiler.published().snapshot;
        let of_type = |type_url: TypeUrl| {
            snapshot.iter(type_url).filter_map(move |resource| {
                let name = resource.name().to_string();
                let wanted =
                    type_url.has_wildcard() || names.get(&type_url).is_some_and(|of| of.contains(&name));
                wanted.then(|| ((type_url, name), resource.version().to_string()))
            })
        };
        let sent = TypeUrl::ALL.into_iter().filter(|type_url| type_url.audience() == Audience::Envoy);
        sent.flat_map(of_type).collect()
    }
}

pub(super) fn changes(manifests: &str) -> Vec<Change> {
    let parsed = files::parse("all.yaml", manifests.as_bytes(), &[]);
    let items = parsed.documents.into_iter().flat_map(|document| match document.content {
        Content::Read(items, findings) if findings.is_empty() => items,
        other => panic!("{other:?}"),
    });
    let change = |item| match item {
        Item::Applied(applied) => Change::Applied(applied),
        Item::Broken(key) => panic!("{key} is broken"),
    };
    items.map(change).collect()
}

/// A client that asks for what it holds refers to, as Envoy does, and accepts all that it is sent.
struct Envoy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    /// The types that were asked for on this stream.
    asked: BTreeSet<TypeUrl>,
    /// What is subscribed by name.
    names: BTreeMap<TypeUrl, BTreeSet<String>>,
    held: Held,
    /// EDS names of clusters, and RouteConfigurations of scopes, by the name of the one that refers.
    refers: BTreeMap<(TypeUrl, String), (TypeUrl, String)>,
}

impl Envoy {
    /// A stream on which nothing was asked yet.
    async fn open(plane: &Plane) -> Self {
        let mut client = AggregatedDiscoveryServiceClient::connect(plane.address.clone()).await.unwrap();
        let (requests, stream) = mpsc::channel(64);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(stream)).await.unwrap();
        Self {
            requests,
            responses: responses.into_inner(),
            asked: BTreeSet::new(),
            names: BTreeMap::new(),
            held: Held::new(),
            refers: BTreeMap::new(),
        }
    }

    async fn connect(plane: &Plane) -> Self {
        let mut envoy = Self::open(plane).await;
        let extension = [names::FALLBACK.to_owned()].into();
        for type_url in [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::ScopedRouteConfiguration] {
            envoy.ask(type_url, BTreeSet::new()).await;
        }
        envoy.ask(TypeUrl::TypedExtensionConfig, extension).await;
        envoy
    }

    /// Comes back with all that it held.
    async fn reconnect(&self, plane: &Plane) -> Self {
        let mut envoy = Self::open(plane).await;
        envoy.held = self.held.clone();
        envoy.refers = self.refers.clone();
        for type_url in &self.asked {
            envoy.ask(*type_url, self.names.get(type_url).cloned().unwrap_or_default()).await;
        }
        envoy
    }

    /// Subscribes to names too, or to all of a type. The first request of a type says what is held.
    async fn ask(&mut self, type_url: TypeUrl, names: BTreeSet<String>) {
        let mut request = DeltaDiscoveryRequest { type_url: type_url.as_str().into(), ..Default::default() };
        if self.asked.is_empty() {
            request.node = Some(Node { id: "envoy".into(), ..Node::default() });
        }
        if self.asked.insert(type_url) {
            let held = self.held.iter().filter(|((of, _), _)| *of == type_url);
            request.initial_resource_versions =
                held.map(|((_, name), version)| (name.clone(), version.clone())).collect();
        }
        request.resource_names_subscribe = names.iter().cloned().collect();
        self.names.entry(type_url).or_default().extend(names);
        self.requests.send(request).await.unwrap();
    }

    async fn forget(&mut self, type_url: TypeUrl, name: String) {
        self.names.entry(type_url).or_default().remove(&name);
        self.held.remove(&(type_url, name.clone()));
        let resource_names_unsubscribe = vec![name];
        let type_url = type_url.as_str().into();
        let request = DeltaDiscoveryRequest { type_url, resource_names_unsubscribe, ..Default::default() };
        self.requests.send(request).await.unwrap();
    }

    /// Reads until it holds what is served; what came meanwhile, each as `Type name` and with a minus for what went.
    async fn settle(&mut self, plane: &Plane) -> Vec<String> {
        let mut came = Vec::new();
        while self.held != plane.serves(&self.names) {
            let response = tokio::time::timeout(PATIENCE, self.responses.message()).await;
            let Ok(response) = response else {
                panic!(
                    "{came:?} came, still waiting: holds {:?}, {:?} is served",
                    self.held,
                    plane.serves(&self.names)
                )
            };
            self.take(response.unwrap().expect("the stream goes on"), &mut came).await;
        }
        came
    }

    async fn take(&mut self, response: DeltaDiscoveryResponse, came: &mut Vec<String>) {
        let type_url = TypeUrl::parse(&response.type_url).unwrap();
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..Default::default()
        };
        self.requests.send(ack).await.unwrap();
        for resource in response.resources {
            // What tells the clusters of a Service port apart is of no interest for its endpoints.
            let name = match type_url {
                TypeUrl::ClusterLoadAssignment => resource.name.split('~').next().unwrap_or_default(),
                _ => &resource.name,
            };
            came.push(format!("{type_url} {name}"));
            let name = resource.name.clone();
            self.held.insert((type_url, name.clone()), resource.version);
            if let Some(body) = resource.resource {
                self.refer(type_url, name, &body.value).await;
            }
        }
        for name in response.removed_resources {
            came.push(format!("-{type_url} {name}"));
            self.held.remove(&(type_url, name.clone()));
            self.refer_to(type_url, name, None).await;
        }
    }

    async fn refer(&mut self, type_url: TypeUrl, name: String, body: &[u8]) {
        let to = match type_url {
            TypeUrl::Cluster => {
                let eds = Cluster::decode(body).unwrap().eds_cluster_config;
                eds.map(|_| (TypeUrl::ClusterLoadAssignment, name.clone()))
            }
            TypeUrl::ScopedRouteConfiguration => {
                let scope = ScopedRouteConfiguration::decode(body).unwrap();
                let loaded = !scope.on_demand;
                loaded.then_some((TypeUrl::RouteConfiguration, scope.route_configuration_name))
            }
            _ => return,
        };
        self.refer_to(type_url, name, to).await;
    }

    fn refers_to(&self, wanted: &(TypeUrl, String)) -> bool {
        self.refers.values().any(|to| to == wanted)
    }

    /// Subscribes to what is referred to for the first time, and unsubscribes from what no longer is.
    async fn refer_to(&mut self, type_url: TypeUrl, name: String, to: Option<(TypeUrl, String)>) {
        let new = to.clone().filter(|to| !self.refers_to(to));
        let old = match to {
            Some(to) => self.refers.insert((type_url, name), to),
            None => self.refers.remove(&(type_url, name)),
        };
        if let Some((type_url, name)) = new {
            self.ask(type_url, [name].into()).await;
        }
        if let Some((type_url, name)) = old.filter(|old| !self.refers_to(old)) {
            self.forget(type_url, name).await;
        }
    }
}

/// An Ingress of a host over a Service, with its endpoint.
fn host(name: &str, annotations: &str) -> String {
    format!(
        r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}
spec:
  ingressClassName: nginx
  rules:
  - host: {name}.io
    http:
      paths:
      - {{path: /, pathType: Prefix, backend: {{service: {{name: {name}, port: {{number: 80}}}}}}}}
      - {{path: /p, pathType: Prefix, backend: {{service: {{name: {name}, port: {{number: 80}}}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{ports: [{{port: 80}}]}}
---
{}
---"#,
        slice(name, "10.0.0.1")
    )
}

fn slice(service: &str, address: &str) -> String {
    format!(
        r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: "", port: 8080}}]
endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]"#
    )
}

async fn three_hosts() -> (Plane, Envoy) {
    let manifests: String = ["a", "b", "c"].iter().map(|name| host(name, "")).collect();
    let plane = Plane::start(Settings::default(), &manifests).await;
    let mut envoy = Envoy::connect(&plane).await;
    envoy.settle(&plane).await;
    (plane, envoy)
}

/// An edit that sends exactly one resource, so that whatever was sent before it without need is seen.
async fn sentinel(plane: &mut Plane, envoy: &mut Envoy) {
    plane.edit(&host("c", r#"nginx.ingress.kubernetes.io/upstream-vhost: "inner.io""#));
    assert_eq!(envoy.settle(plane).await, ["RouteConfiguration c.io"]);
}

#[tokio::test]
async fn a_change_sends_only_what_it_changes() {
    let (mut plane, mut envoy) = three_hosts().await;
    plane.edit(&host("a", r#"nginx.ingress.kubernetes.io/proxy-body-size: "9m""#));
    assert_eq!(envoy.settle(&plane).await, ["RouteConfiguration a.io"]);

    plane.edit(&host("a", r#"nginx.ingress.kubernetes.io/backend-protocol: "GRPC""#));
    let came = envoy.settle(&plane).await;
    let about = |line: &String| line.contains("shop/a/80") || line.ends_with(" a.io");
    assert!(came.iter().all(about), "{came:?}");
    sentinel(&mut plane, &mut envoy).await;
}

#[tokio::test]
async fn a_no_op_sends_nothing() {
    let (mut plane, mut envoy) = three_hosts().await;
    plane.edit(&["a", "b", "c"].map(|name| host(name, "")).concat());
    plane.edit(&host("b", "kubectl.kubernetes.io/last-applied-configuration: x"));
    plane.edit(&host("b", "example.com/note: nobody reads this"));
    sentinel(&mut plane, &mut envoy).await;
}

#[tokio::test]
async fn endpoints_send_one_endpoint_set() {
    let (mut plane, mut envoy) = three_hosts().await;
    plane.edit(&slice("b", "10.0.0.2"));
    assert_eq!(envoy.settle(&plane).await, ["ClusterLoadAssignment shop/b/80"]);
    sentinel(&mut plane, &mut envoy).await;
}

#[tokio::test]
async fn what_comes_and_goes_sends_its_own_resources() {
    let (mut plane, mut envoy) = three_hosts().await;
    plane.edit(&host("d", ""));
    let mut came = envoy.settle(&plane).await;
    came.sort();
    let cluster = came[0].clone();
    assert!(cluster.starts_with("Cluster shop/d/80~"), "{came:?}");
    let scopes = ["ScopedRouteConfiguration http/d.io", "ScopedRouteConfiguration https/d.io"];
    assert_eq!(
        came[1..],
        ["ClusterLoadAssignment shop/d/80", "RouteConfiguration d.io", scopes[0], scopes[1]]
    );

    plane.apply(vec![Change::Deleted(ObjectKey::new(Kind::Ingress, "shop", "d"))]);
    let mut went = envoy.settle(&plane).await;
    went.retain(|line| !line.contains("RouteConfiguration d.io") && !line.contains("ClusterLoadAssignment"));
    went.sort();
    assert_eq!(went, [format!("-{cluster}"), format!("-{}", scopes[0]), format!("-{}", scopes[1])]);
    sentinel(&mut plane, &mut envoy).await;
}

#[tokio::test]
async fn a_reconnect_with_known_versions_costs_nothing() {
    let (mut plane, envoy) = three_hosts().await;
    let mut again = envoy.reconnect(&plane).await;
    sentinel(&mut plane, &mut again).await;

    // What changed while it was away comes, and nothing else.
    plane.edit(&slice("a", "10.0.0.9"));
    let mut back = again.reconnect(&plane).await;
    drop(again);
    assert_eq!(back.settle(&plane).await, ["ClusterLoadAssignment shop/a/80"]);
    sentinel_of(&mut plane, &mut back, "b").await;
}

/// The sentinel on another host than the one that [`sentinel`] has edited.
async fn sentinel_of(plane: &mut Plane, envoy: &mut Envoy, name: &str) {
    plane.edit(&host(name, r#"nginx.ingress.kubernetes.io/upstream-vhost: "inner.io""#));
    let came = envoy.settle(plane).await;
    assert_eq!(came, [format!("RouteConfiguration {name}.io")]);
}

/// Hosts past the threshold are told by their scopes alone.
#[tokio::test]
async fn on_demand_hosts_send_no_routes() {
    let manifests: String = ["a", "b", "c"].iter().map(|name| host(name, "")).collect();
    let settings = Settings { on_demand_threshold: 1, ..Settings::default() };
    let mut plane = Plane::start(settings, &manifests).await;
    let mut envoy = Envoy::connect(&plane).await;
    let came = envoy.settle(&plane).await;
    let routes: Vec<_> = came.iter().filter(|line| line.starts_with("RouteConfiguration")).collect();
    assert_eq!(routes, ["RouteConfiguration a.io"]);

    // The oldest of the rest takes the place of an eager one that goes.
    plane.apply(vec![Change::Deleted(ObjectKey::new(Kind::Ingress, "shop", "a"))]);
    let came = envoy.settle(&plane).await;
    assert!(came.contains(&"RouteConfiguration b.io".to_owned()), "{came:?}");
    assert!(!came.iter().any(|line| line.contains("c.io")), "{came:?}");
}
