//! Rules as envoyproxy/ratelimit has them over xDS, from any management server, by the state-of-the-world variant: its own
//! servers speak no other.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::ratelimit::config::ratelimit::v3::RateLimitConfig;
use prost::{Message as _, Name as _};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::{Feed, Server, rejection, run};
use crate::ratelimit::envoyproxy::{Reading, Rules};

/// Follows every `RateLimitConfig` of a management server, until nobody receives the rules. The first rules are sent even
/// if there are none.
pub async fn follow_config(server: Server, reading: Reading, rules: watch::Sender<Arc<Rules>>) {
    let unwanted = rules.clone();
    let feed = Config { reading, version: String::new(), rules };
    tokio::select! {
        () = unwanted.closed() => {}
        () = run(&server, feed) => {}
    }
}

struct Config {
    reading: Reading,
    /// Of the set that was accepted last on this stream.
    version: String,
    rules: watch::Sender<Arc<Rules>>,
}

impl Config {
    fn read(&self, resources: Vec<Any>) -> Result<Rules, String> {
        let decode = |any: Any| {
            if any.type_url != RateLimitConfig::type_url() {
                return Err(format!("a resource is of the type {}", any.type_url));
            }
            RateLimitConfig::decode(any.value.as_slice()).map_err(|error| error.to_string())
        };
        let configs = resources.into_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        Rules::of_configs(configs, self.reading).map_err(|error| error.to_string())
    }

    fn request(&self) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: RateLimitConfig::type_url(),
            version_info: self.version.clone(),
            ..DiscoveryRequest::default()
        }
    }
}

impl Feed for Config {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    /// Without the version that is held: another process may mean something else by it.
    fn hello(&mut self, node: Node) -> DiscoveryRequest {
        self.version.clear();
        DiscoveryRequest { node: Some(node), ..self.request() }
    }

    fn take(&mut self, response: DiscoveryResponse) -> (DiscoveryRequest, Option<String>) {
        let DiscoveryResponse { version_info, resources, nonce, .. } = response;
        let (error_detail, wrong) = match self.read(resources) {
            Ok(rules) => {
                let rules = rules.continuing(&self.rules.borrow());
                rules.stats.loaded();
                tracing::info!(limits = rules.iter().count(), version = version_info, "taken limits");
                self.rules.send_replace(Arc::new(rules));
                self.version = version_info;
                (None, None)
            }
            Err(reason) => {
                self.rules.borrow().stats.not_loaded();
                (Some(rejection(&reason)), Some(reason))
            }
        };
        (DiscoveryRequest { response_nonce: nonce, error_detail, ..self.request() }, wrong)
    }

    async fn open(
        client: &mut AggregatedDiscoveryServiceClient<Channel>,
        requests: ReceiverStream<DiscoveryRequest>,
    ) -> Result<Streaming<DiscoveryResponse>, Status> {
        client.stream_aggregated_resources(requests).await.map(Response::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::ratelimit::config::ratelimit::v3::{
        RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
    };

    use super::*;

    fn any(name: &str, domain: &str, key: &str) -> Any {
        let rate_limit =
            RateLimitPolicy { unit: RateLimitUnit::Day.into(), requests_per_unit: 1, ..Default::default() };
        let descriptor =
            RateLimitDescriptor { key: key.into(), rate_limit: Some(rate_limit), ..Default::default() };
        let config =
            RateLimitConfig { name: name.into(), domain: domain.into(), descriptors: vec![descriptor] };
        Any { type_url: RateLimitConfig::type_url(), value: config.encode_to_vec() }
    }

    #[test]
    fn what_is_wrong_is_answered_with_the_version_before() {
        let (rules, seen) = watch::channel(Arc::default());
        let mut feed = Config { reading: Reading::default(), version: "of another stream".into(), rules };
        assert_eq!(feed.hello(Node::default()).version_info, "");
        let other = Any { type_url: "x".into(), value: Vec::new() };
        let broken = Any { value: b"\xff".to_vec(), ..any("b", "b", "k") };
        for (index, (resources, version, wrong, paths)) in [
            (vec![any("a", "a", "k")], "0", "", "a.k"),
            (vec![any("a", "a", "k"), any("b", "", "k")], "0", "b: domain: is empty", "a.k"),
            (vec![any("a", "a", "k"), any("b", "a", "l")], "0", "b: domain: duplicate domain 'a'", "a.k"),
            (vec![other], "0", "of the type x", "a.k"),
            (vec![broken], "0", "failed to decode", "a.k"),
            (vec![any("a", "a", "l"), any("b", "b", "k")], "5", "", "a.l b.k"),
            (vec![], "6", "", ""),
        ]
        .into_iter()
        .enumerate()
        {
            let (version_info, nonce) = (index.to_string(), format!("n{index}"));
            let response =
                DiscoveryResponse { version_info, nonce: nonce.clone(), resources, ..Default::default() };
            let (answer, reason) = feed.take(response);
            assert_eq!((answer.version_info.as_str(), answer.response_nonce), (version, nonce));
            let said = answer.error_detail.map(|status| status.message);
            assert_eq!(said, reason);
            assert_eq!(said.is_none(), wrong.is_empty());
            assert!(said.unwrap_or_default().contains(wrong), "{wrong}");
            let held: Vec<_> = seen.borrow().iter().map(|rule| rule.path.to_string()).collect();
            assert_eq!(held.join(" "), paths);
        }
        assert_eq!(seen.borrow().stats.loads(), (3, 4));
    }
}
