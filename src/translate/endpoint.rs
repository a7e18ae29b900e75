//! Endpoint sets to ClusterLoadAssignments.

use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};

use super::{proto, version};
use crate::model::{EndpointSet, Health};
use crate::xds::{Resource, TypeUrl};

/// The endpoints of a Service port, under the name that its clusters subscribe to.
pub fn cluster_load_assignment(set: &EndpointSet) -> Resource {
    let name = set.key.to_string();
    let lb_endpoints: Vec<_> = set.endpoints.iter().map(lb_endpoint).collect();
    let endpoints = match lb_endpoints.is_empty() {
        true => Vec::new(),
        false => vec![LocalityLbEndpoints { lb_endpoints, ..LocalityLbEndpoints::default() }],
    };
    let message =
        ClusterLoadAssignment { cluster_name: name.clone(), endpoints, ..ClusterLoadAssignment::default() };
    Resource::new(TypeUrl::ClusterLoadAssignment, name, version(set), &message)
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
