//! The gRPC shell around sessions: reads requests, watches snapshots, writes responses. All rules are in
//! [`session`](super::session).
//!
//! Each stream is polled by the connection it came on; nothing is spawned here. Streams end when the sender of
//! snapshots is dropped, which is how the server shuts down.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Status, Streaming};

use super::codec::Prost;
use super::message::{DeltaFrame, Protocol, Request, Response, SotwFrame};
use super::observer::{Observer, StreamObserver};
use super::session::{Event, Session, Settings};
use super::snapshot::Receiver;
use super::{Audience, Snapshot, TypeUrl};

/// The largest request that is read. A client that holds 100,000 resources names them all when it comes back.
const MAX_REQUEST: usize = 128 << 20;

/// The aggregated discovery service for these snapshots, to be added to a [`builder`].
pub fn service(snapshots: Receiver, observer: impl Observer + 'static) -> DiscoveryService {
    DiscoveryService { snapshots, observer: Arc::new(observer), settings: Settings::default() }
}

/// A gRPC server that notices Envoys which are gone without a word.
pub fn builder() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .tcp_keepalive(Some(Duration::from_secs(60)))
        .tcp_nodelay(true)
}

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`, both variants.
#[derive(Clone)]
pub struct DiscoveryService {
    snapshots: Receiver,
    observer: Arc<dyn Observer>,
    settings: Settings,
}

impl DiscoveryService {
    /// Other settings than the defaults, for streams from now on.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }
}

impl NamedService for DiscoveryService {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<B> Service<http::Request<B>> for DiscoveryService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            Ok(match method {
                "DeltaAggregatedResources" => serve::<Delta, B>(service, request).await,
                "StreamAggregatedResources" => serve::<Sotw, B>(service, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

async fn serve<W, B>(service: DiscoveryService, request: http::Request<B>) -> http::Response<Body>
where
    W: Wire,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    let codec = Prost::<W::Frame, W::Request>::default();
    let mut grpc = Grpc::new(codec).apply_max_message_size_config(Some(MAX_REQUEST), None);
    grpc.streaming(Method::<W>(service, std::marker::PhantomData), request).await
}

struct Method<W>(DiscoveryService, std::marker::PhantomData<W>);

impl<W: Wire> StreamingService<W::Request> for Method<W> {
    type Response = W::Frame;
    type ResponseStream = BoxStream<'static, Result<W::Frame, Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<W::Request>>) -> Self::Future {
        let stream = Stream::<W>::new(self.0.clone(), request.remote_addr(), request.into_inner());
        let responses = futures::stream::unfold(stream, |mut stream| async move {
            let frame = stream.next().await?;
            Some((Ok(frame), stream))
        });
        Box::pin(async move { Ok(tonic::Response::new(responses.boxed())) })
    }
}

/// The messages of one variant of the protocol.
trait Wire: Send + 'static {
    const PROTOCOL: Protocol;
    type Request: Message + Default + TryInto<Request, Error = String> + 'static;
    type Frame: Message + for<'r> From<&'r Response> + 'static;

    fn node(request: &mut Self::Request) -> Option<Node>;
}

struct Delta;

impl Wire for Delta {
    const PROTOCOL: Protocol = Protocol::Delta;
    type Request = DeltaDiscoveryRequest;
    type Frame = DeltaFrame;

    fn node(request: &mut DeltaDiscoveryRequest) -> Option<Node> {
        request.node.take()
    }
}

struct Sotw;

impl Wire for Sotw {
    const PROTOCOL: Protocol = Protocol::Sotw;
    type Request = DiscoveryRequest;
    type Frame = SotwFrame;

    fn node(request: &mut DiscoveryRequest) -> Option<Node> {
        request.node.take()
    }
}

/// One stream.
struct Stream<W: Wire> {
    inbound: Streaming<W::Request>,
    snapshots: Receiver,
    settings: Settings,
    /// `None` until there is a snapshot: requests are not read before.
    session: Option<Session>,
    responses: VecDeque<Response>,
    observer: Box<dyn StreamObserver>,
    /// `node.id`, once the client said it.
    node: Option<String>,
    /// `node.user_agent_name`, likewise.
    user_agent_name: String,
    /// What it is, from its first request on.
    audience: Option<Audience>,
}

impl<W: Wire> Stream<W> {
    fn new(service: DiscoveryService, address: Option<SocketAddr>, inbound: Streaming<W::Request>) -> Self {
        let observer = service.observer.connect(W::PROTOCOL, address, crate::clock::now());
        tracing::debug!(stream = observer.id(), ?address, protocol = ?W::PROTOCOL, "stream opened");
        Stream {
            inbound,
            snapshots: service.snapshots,
            settings: service.settings,
            session: None,
            responses: VecDeque::new(),
            observer,
            node: None,
            user_agent_name: String::new(),
            audience: None,
        }
    }

    /// The next message to the client; `None` ends the stream.
    async fn next(&mut self) -> Option<W::Frame> {
        if self.session.is_none() {
            let snapshot = first_snapshot(&mut self.snapshots).await?;
            self.session = Some(Session::new(W::PROTOCOL, self.settings.clone(), snapshot, Instant::now()));
        }
        loop {
            if let Some(response) = self.responses.pop_front() {
                return Some(self.frame(&response));
            }
            self.report_progress();
            let responses = self.step().await?;
            self.report_events();
            self.responses.extend(responses);
        }
    }

    /// Waits for something to happen and lets the session take it.
    async fn step(&mut self) -> Option<Vec<Response>> {
        let session = self.session.as_mut()?;
        let deadline = session.next_deadline();
        tokio::select! {
            request = self.inbound.message() => {
                let request = match request {
                    Ok(request) => request?,
                    Err(status) => {
                        tracing::debug!(node = self.node, %status, "stream broke");
                        return None;
                    }
                };
                self.on_request(request)
            }
            changed = self.snapshots.changed() => {
                changed.ok()?;
                let snapshot = self.snapshots.borrow_and_update().clone()?;
                Some(session.on_snapshot(snapshot, Instant::now()))
            }
            () = sleep_until(deadline) => Some(session.on_deadline(Instant::now())),
        }
    }

    fn on_request(&mut self, mut request: W::Request) -> Option<Vec<Response>> {
        // Envoy repeats itself in every request unless told to set its node on the first message only.
        if let Some(node) = W::node(&mut request).filter(|_| self.node.is_none()) {
            self.identify(node);
        }
        let not_served = |type_url: &str| {
            tracing::warn!(node = self.node, type_url, "asked for a type that is not served");
            Some(Vec::new())
        };
        let request = match request.try_into() {
            Ok(request) => request,
            Err(type_url) => return not_served(&type_url),
        };
        let audience = match self.audience {
            Some(audience) => audience,
            None => {
                let audience = Audience::new(&self.user_agent_name, request.type_url);
                self.observer.is(audience);
                *self.audience.insert(audience)
            }
        };
        if request.type_url.audience() != audience {
            return not_served(request.type_url.as_str());
        }
        tracing::trace!(node = self.node, ?request, "received");
        Some(self.session.as_mut()?.on_request(request, Instant::now()))
    }

    fn identify(&mut self, node: Node) {
        let version = match node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version,
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
                let version = build.version.unwrap_or_default();
                format!("{}.{}.{}", version.major_number, version.minor_number, version.patch)
            }
            None => String::new(),
        };
        let user_agent = format!("{} {version}", node.user_agent_name).trim().to_owned();
        tracing::info!(node = node.id, cluster = node.cluster, user_agent, "connected");
        self.observer.identify(&node.id, &node.cluster, user_agent);
        self.node = Some(node.id);
        self.user_agent_name = node.user_agent_name;
    }

    fn frame(&self, response: &Response) -> W::Frame {
        let frame = W::Frame::from(response);
        let bytes = frame.encoded_len();
        self.observer.on_response(response, bytes, crate::clock::now());
        tracing::debug!(
            node = self.node,
            type_url = %response.type_url,
            nonce = response.nonce,
            resources = response.resources.len(),
            removed = response.removed.len(),
            bytes,
            "sent"
        );
        frame
    }

    fn report_progress(&self) {
        if let Some(session) = &self.session {
            let counts = TypeUrl::ALL.map(|type_url| session.counts(type_url));
            self.observer.on_held(TypeUrl::ALL.map(|type_url| session.held(type_url).clone()));
            self.observer.on_progress(session.progress(), counts, crate::clock::now());
        }
    }

    fn report_events(&mut self) {
        let Some(session) = &mut self.session else { return };
        for event in session.take_events() {
            match &event {
                Event::Nacked { type_url, message } => {
                    tracing::warn!(node = self.node, %type_url, reason = message, "a response was rejected");
                }
                Event::Rejected { type_url, name, version, message } => {
                    tracing::error!(node = self.node, %type_url, %name, %version, reason = message, "rejected");
                }
                Event::Acked { .. } | Event::Settled { .. } => {}
            }
            self.observer.on_event(&event, crate::clock::now());
        }
    }
}

impl<W: Wire> Drop for Stream<W> {
    fn drop(&mut self) {
        tracing::info!(node = self.node, stream = self.observer.id(), "disconnected");
    }
}

async fn first_snapshot(snapshots: &mut Receiver) -> Option<Arc<Snapshot>> {
    snapshots.wait_for(Option::is_some).await.ok()?.clone()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
