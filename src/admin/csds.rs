//! Envoy's client status discovery service: what each connected Envoy was sent, holds and rejects, for tools that speak it.
//!
//! It stands on the xDS port. A Secret is listed without its content.

use std::time::SystemTime;

use envoy_types::pb::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_server::{
    ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::status::v3::{
    ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{NodeMatcher, StringMatcher};
use envoy_types::pb::google::protobuf::{Any, Timestamp};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::fleet::{Fleet, NodeReport, Rejected};
use crate::translate::names;
use crate::xds::snapshot::Receiver;
use crate::xds::{Resource, Snapshot, TypeUrl};

/// The service, for a gRPC server.
pub type Service = ClientStatusDiscoveryServiceServer<ClientStatus>;

/// Makes it.
pub fn service(snapshots: Receiver, fleet: Fleet) -> Service {
    ClientStatusDiscoveryServiceServer::new(ClientStatus { snapshots, fleet })
}

/// What it answers from.
#[derive(Clone)]
pub struct ClientStatus {
    snapshots: Receiver,
    fleet: Fleet,
}

#[tonic::async_trait]
impl ClientStatusDiscoveryService for ClientStatus {
    type StreamClientStatusStream = BoxStream<'static, Result<ClientStatusResponse, Status>>;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let service = self.clone();
        let answers = request.into_inner().map(move |asked| service.answer(&asked?));
        Ok(Response::new(answers.boxed()))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        self.answer(request.get_ref()).map(Response::new)
    }
}

impl ClientStatus {
    fn answer(&self, asked: &ClientStatusRequest) -> Result<ClientStatusResponse, Status> {
        let snapshot = self.snapshots.borrow().clone().unwrap_or_default();
        let mut config = Vec::new();
        for node in self.fleet.nodes() {
            if is_asked(&asked.node_matchers, &node.id)? {
                config.push(self.client(&node, &snapshot, !asked.exclude_resource_contents));
            }
        }
        Ok(ClientStatusResponse { config })
    }

    fn client(&self, node: &NodeReport, snapshot: &Snapshot, with_contents: bool) -> ClientConfig {
        let mut generic_xds_configs: Vec<_> = node.rejected.iter().map(rejected).collect();
        for type_url in TypeUrl::ALL {
            for (name, held) in &self.fleet.held(node.stream, type_url).unwrap_or_default() {
                let is_rejected =
                    |rejected: &Rejected| rejected.type_url == type_url && rejected.name == *name;
                match node.rejected.iter().position(is_rejected) {
                    Some(at) => generic_xds_configs[at].xds_config = content(held, with_contents),
                    None => generic_xds_configs.push(accepted(name, held, snapshot, with_contents)),
                }
            }
        }
        ClientConfig {
            node: Some(Node {
                id: node.id.clone(),
                cluster: node.cluster.clone(),
                user_agent_name: node.user_agent.clone(),
                ..Node::default()
            }),
            generic_xds_configs,
            ..ClientConfig::default()
        }
    }
}

/// A resource that the client holds, under the name that it asked.
fn accepted(name: &str, held: &Resource, snapshot: &Snapshot, with_contents: bool) -> GenericXdsConfig {
    let default = Some(names::DEFAULT_SECRET);
    let latest = snapshot.find(held.type_url(), name, default).map(|(resource, _)| resource.version());
    let status = if latest == Some(held.version()) { ConfigStatus::Synced } else { ConfigStatus::Stale };
    GenericXdsConfig {
        type_url: held.type_url().as_str().to_owned(),
        name: name.to_owned(),
        version_info: held.version().to_string(),
        xds_config: content(held, with_contents),
        config_status: status.into(),
        client_status: ClientResourceStatus::Acked.into(),
        ..GenericXdsConfig::default()
    }
}

/// A resource that the client rejects; its content is the form that it holds, if any.
fn rejected(rejected: &Rejected) -> GenericXdsConfig {
    GenericXdsConfig {
        type_url: rejected.type_url.as_str().to_owned(),
        name: rejected.name.to_string(),
        version_info: rejected.version.to_string(),
        config_status: ConfigStatus::Error.into(),
        client_status: ClientResourceStatus::Nacked.into(),
        error_state: Some(UpdateFailureState {
            last_update_attempt: Some(timestamp(rejected.at)),
            details: rejected.message.clone(),
            version_info: rejected.version.to_string(),
            ..UpdateFailureState::default()
        }),
        ..GenericXdsConfig::default()
    }
}

/// Times before 1970 are none.
fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos().cast_signed() }
}

fn content(resource: &Resource, is_wanted: bool) -> Option<Any> {
    let is_open = is_wanted && resource.type_url() != TypeUrl::Secret;
    is_open
        .then(|| Any { type_url: resource.type_url().as_str().to_owned(), value: resource.body().to_vec() })
}

/// Whether any matcher takes the node, or there is none.
fn is_asked(matchers: &[NodeMatcher], id: &str) -> Result<bool, Status> {
    let mut is_asked = matchers.is_empty();
    for matcher in matchers {
        if !matcher.node_metadatas.is_empty() {
            return Err(Status::invalid_argument("node_metadatas: metadata is not kept; match by node_id"));
        }
        is_asked |= matcher.node_id.as_ref().map_or(Ok(true), |wanted| matches(wanted, id))?;
    }
    Ok(is_asked)
}

fn matches(wanted: &StringMatcher, id: &str) -> Result<bool, Status> {
    let fold = |text: &str| if wanted.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let id = &fold(id);
    match &wanted.match_pattern {
        Some(MatchPattern::Exact(text)) => Ok(*id == fold(text)),
        Some(MatchPattern::Prefix(text)) => Ok(id.starts_with(&fold(text))),
        Some(MatchPattern::Suffix(text)) => Ok(id.ends_with(&fold(text))),
        Some(MatchPattern::Contains(text)) => Ok(id.contains(&fold(text))),
        Some(MatchPattern::SafeRegex(_) | MatchPattern::Custom(_)) | None => {
            Err(Status::invalid_argument("node_id: exact, prefix, suffix or contains"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::xds::message::Protocol;
    use crate::xds::{Update, Version, session, snapshot};

    fn resource(type_url: TypeUrl, name: &str, version: u64) -> Arc<Resource> {
        Arc::new(Resource::from_bytes(type_url, name, Version(version), b"\x12\x01x"))
    }

    fn node_id(pattern: MatchPattern) -> ClientStatusRequest {
        let node_id = StringMatcher { match_pattern: Some(pattern), ignore_case: false };
        let matcher = NodeMatcher { node_id: Some(node_id), ..NodeMatcher::default() };
        ClientStatusRequest { node_matchers: vec![matcher], ..ClientStatusRequest::default() }
    }

    #[test]
    fn an_envoy_is_told_by_what_it_holds_and_rejects() {
        let set = [
            (TypeUrl::Cluster, "same", 1),
            (TypeUrl::Cluster, "newer", 2),
            (TypeUrl::Cluster, "refused", 2),
            (TypeUrl::Secret, "*", 1),
        ];
        let set = set.map(|(type_url, name, version)| resource(type_url, name, version));
        let whole = Snapshot::empty().apply(Update { set: set.into(), remove: vec![] });
        let fleet = Fleet::new();
        let snapshots = snapshot::Sender::new(Some(Arc::new(whole)));
        let connection = fleet.connect(Protocol::Delta, None, SystemTime::UNIX_EPOCH);
        connection.identify("edge-0", "edge", "envoy 1.40.0".into());
        let mut held: [crate::xds::snapshot::Resources; TypeUrl::COUNT] = Default::default();
        for name in ["same", "newer", "refused"] {
            held[TypeUrl::Cluster as usize].insert(name.into(), resource(TypeUrl::Cluster, name, 1));
        }
        held[TypeUrl::Secret as usize].insert("a.io".into(), resource(TypeUrl::Secret, "*", 1));
        connection.on_held(held);
        let (name, version, message) = ("refused".into(), Version(2), "no".to_owned());
        let refused = session::Event::Rejected { type_url: TypeUrl::Cluster, name, version, message };
        connection.on_event(&refused, SystemTime::UNIX_EPOCH);

        let service = ClientStatus { snapshots: snapshots.subscribe(), fleet };
        let answer = service.answer(&node_id(MatchPattern::Prefix("edge".into()))).unwrap();
        let configs = &answer.config[0].generic_xds_configs;
        let mut lines: Vec<_> = configs
            .iter()
            .map(|config| {
                let details = config.error_state.as_ref().map_or("", |state| &state.details);
                let content = if config.xds_config.is_some() { "content" } else { "" };
                format!("{} {} {content} {details}", config.name, config.config_status().as_str_name())
            })
            .collect();
        lines.sort();
        assert_eq!(
            lines,
            ["a.io SYNCED  ", "newer STALE content ", "refused ERROR content no", "same SYNCED content "]
        );

        assert_eq!(service.answer(&node_id(MatchPattern::Exact("edge".into()))).unwrap().config, []);
        assert!(service.answer(&node_id(MatchPattern::Custom(Default::default()))).is_err());
    }
}
