//! Endpoint sets to ClusterLoadAssignments.

use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};

use super::{proto, version};
use crate::model::{EndpointSet, Health};
use crate::xds::{Resource, TypeUrl};

/// The endpoints of a Service port for one of its clusters, under the cluster's name.
///
/// Clusters of the same endpoints do not share a name to subscribe to: Envoy asks for a name once, so that a second
/// cluster of it would wait for an answer that it has been given already.
pub fn cluster_load_assignment(cluster: &str, set: &EndpointSet) -> Resource {
    let name = cluster.to_owned();
    let lb_endpoints: Vec<_> = set.endpoints.iter().map(lb_endpoint).collect();
    let endpoints = match lb_endpoints.is_empty() {
        true => Vec::new(),
        false => vec![LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() }],
    };
    let message =
        ClusterLoadAssignment { cluster_name: name.clone(), endpoints, ..ClusterLoadAssignment::default() };
    Resource::new(TypeUrl::ClusterLoadAssignment, name, version(&(cluster, set)), &message)
}

fn lb_endpoint(endpoint: &crate::model::Endpoint) -> LbEndpoint {
    let health = match endpoint.health {
        Health::Ready => HealthStatus::Unknown,
        Health::Draining => HealthStatus::Draining,
    };
    LbEndpoint {
        health_status: health.into(),
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: proto::socket_address(&endpoint.address.to_string(), endpoint.port),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    }
}
