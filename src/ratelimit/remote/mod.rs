//! Limits followed from a management server over xDS.
//!
//! ```text
//! server ─response→ feed: what is held (pure) ─→ watch
//!        ←ACK/NACK─
//! ```
//!
//! A response is accepted as a whole or rejected as a whole, with the reason. What was accepted last stays in force while
//! the server is away: it is connected to again, at once and then less and less often, and told what is held already.

mod config;
mod connect;
mod limits;

pub use config::follow_config;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use self::limits::Held;
use crate::model::limit::LimitSet;
use crate::tls::MutualTls;

/// Bytes of a response; some two million limits.
const LARGEST_RESPONSE: usize = 256 << 20;

const RETRY_AFTER: Duration = Duration::from_millis(100);
const RETRY_AT_LEAST_EVERY: Duration = Duration::from_secs(5);

/// The software's name, by which a control plane of ours knows what to send.
const USER_AGENT: &str = "chancery-ratelimit";

/// Of `google.rpc.Code`: what was sent cannot be used.
const INVALID_ARGUMENT: i32 = 3;

/// A management server, and who we are to it.
#[derive(Clone, Debug)]
pub struct Server {
    /// A DNS name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Mutual TLS; none means plain.
    pub tls: Option<MutualTls>,
    /// `node.id`.
    pub node_id: String,
}

impl Server {
    fn node(&self) -> Node {
        Node {
            id: self.node_id.clone(),
            cluster: USER_AGENT.to_owned(),
            user_agent_name: USER_AGENT.to_owned(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(
                env!("CARGO_PKG_VERSION").to_owned(),
            )),
            ..Node::default()
        }
    }
}

/// Follows the limits of a control plane of ours, until nobody receives them. The first set is sent even if it is empty;
/// after that, only a set that differs is.
pub async fn follow(server: Server, limits: watch::Sender<Arc<LimitSet>>) {
    let unwanted = limits.clone();
    let feed = Limits { held: Held::default(), known: false, limits };
    tokio::select! {
        () = unwanted.closed() => {}
        () = run(&server, feed) => {}
    }
}

/// One variant of the protocol with one type.
trait Feed: Send {
    type Request: Send + 'static;
    type Response: Send;

    /// The first request of a stream.
    fn hello(&mut self, node: Node) -> Self::Request;

    /// Takes a response; the answer, and what is wrong with it if it is rejected.
    fn take(&mut self, response: Self::Response) -> (Self::Request, Option<String>);

    fn open(
        client: &mut AggregatedDiscoveryServiceClient<Channel>,
        requests: ReceiverStream<Self::Request>,
    ) -> impl Future<Output = Result<Streaming<Self::Response>, Status>> + Send;
}

async fn run(server: &Server, mut feed: impl Feed) {
    let (mut wait, mut well) = (RETRY_AFTER, true);
    loop {
        let good = || {
            if !well {
                tracing::info!(server = %server.host, "the management server is back");
            }
            (wait, well) = (RETRY_AFTER, true);
        };
        let reason = stream(server, &mut feed, good).await;
        if well {
            let Server { host, port, .. } = server;
            tracing::warn!(server = %format_args!("{host}:{port}"), "no management server; the last limits stay: {reason}");
        }
        well = false;
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_AT_LEAST_EVERY);
    }
}

/// One stream, to its end; why it ended. `good` is called for each response that is accepted.
async fn stream<F: Feed>(server: &Server, feed: &mut F, mut good: impl FnMut()) -> String {
    let channel = match server.connect().await {
        Ok(channel) => channel,
        Err(reason) => return reason,
    };
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(LARGEST_RESPONSE);
    let (requests, outbound) = mpsc::channel(1);
    // There is room for one.
    let _ = requests.send(feed.hello(server.node())).await;
    let mut responses = match F::open(&mut client, ReceiverStream::new(outbound)).await {
        Ok(responses) => responses,
        Err(status) => return status.to_string(),
    };
    loop {
        let response = match responses.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return "it ended the stream".to_owned(),
            Err(status) => return status.to_string(),
        };
        let (answer, wrong) = feed.take(response);
        match wrong {
            None => good(),
            Some(reason) => tracing::warn!("rejected what was sent; the last good limits stay: {reason}"),
        }
        if requests.send(answer).await.is_err() {
            return "it reads nothing".to_owned();
        }
    }
}

/// Limits as a control plane of ours has them, by the delta variant: a change sends what it changes.
struct Limits {
    held: Held,
    /// Whether a first set was published.
    known: bool,
    limits: watch::Sender<Arc<LimitSet>>,
}

impl Feed for Limits {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn hello(&mut self, node: Node) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            node: Some(node),
            type_url: limits::TYPE_URL.to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            initial_resource_versions: self.held.versions().collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn take(&mut self, response: DeltaDiscoveryResponse) -> (DeltaDiscoveryRequest, Option<String>) {
        let answer = DeltaDiscoveryRequest {
            type_url: limits::TYPE_URL.to_owned(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        match self.held.after(response) {
            Ok(held) => {
                self.held = held;
                self.publish();
                (answer, None)
            }
            Err(reason) => {
                (DeltaDiscoveryRequest { error_detail: Some(rejection(&reason)), ..answer }, Some(reason))
            }
        }
    }

    async fn open(
        client: &mut AggregatedDiscoveryServiceClient<Channel>,
        requests: ReceiverStream<DeltaDiscoveryRequest>,
    ) -> Result<Streaming<DeltaDiscoveryResponse>, Status> {
        client.delta_aggregated_resources(requests).await.map(tonic::Response::into_inner)
    }
}

impl Limits {
    fn publish(&mut self) {
        let first = !std::mem::replace(&mut self.known, true);
        self.limits.send_if_modified(|current| {
            let changed = first || **current != self.held.limits;
            if changed {
                *current = Arc::new(self.held.limits.clone());
            }
            changed
        });
    }
}

fn rejection(reason: &str) -> rpc::Status {
    rpc::Status { code: INVALID_ARGUMENT, message: reason.to_owned(), ..rpc::Status::default() }
}

#[cfg(test)]
mod tests;
