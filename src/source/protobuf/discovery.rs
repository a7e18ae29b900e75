//! discovery.k8s.io/v1

use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_pb::api::discovery::v1 as pb;

use super::metadata::metadata;
use super::{decoded, exact, list};
use crate::source::read::ReadError;
use crate::store::Object;

/// Reads an EndpointSlice.
pub(in crate::source) fn endpoint_slice(message: &[u8]) -> Result<Object, ReadError> {
    let it: pb::EndpointSlice = decoded(message)?;
    Ok(Object::EndpointSlice(Box::new(EndpointSlice {
        address_type: it.address_type.unwrap_or_default(),
        endpoints: list(it.endpoints, endpoint),
        metadata: metadata(it.metadata)?,
        ports: list(it.ports, port),
    })))
}

/// An endpoint without the details that nothing reads.
fn endpoint(it: pb::Endpoint) -> Endpoint {
    Endpoint {
        addresses: exact(it.addresses, |address| address),
        conditions: it.conditions.map(conditions),
        deprecated_topology: None,
        hints: it.hints.map(hints),
        hostname: it.hostname,
        node_name: None,
        target_ref: None,
        zone: it.zone,
    }
}

fn conditions(it: pb::EndpointConditions) -> EndpointConditions {
    EndpointConditions { ready: it.ready, serving: it.serving, terminating: it.terminating }
}

fn hints(it: pb::EndpointHints) -> EndpointHints {
    EndpointHints {
        for_nodes: list(it.for_nodes, |node| ForNode { name: node.name.unwrap_or_default() }),
        for_zones: list(it.for_zones, |zone| ForZone { name: zone.name.unwrap_or_default() }),
    }
}

fn port(it: pb::EndpointPort) -> EndpointPort {
    EndpointPort { app_protocol: it.app_protocol, name: it.name, port: it.port, protocol: it.protocol }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// Lists are kept for as long as their objects.
    #[test]
    fn lists_have_no_room_to_grow() {
        let endpoint = pb::Endpoint { addresses: vec!["10.0.0.1".into()], ..pb::Endpoint::default() };
        let port = pb::EndpointPort::default();
        let slice = pb::EndpointSlice {
            endpoints: vec![endpoint],
            ports: vec![port],
            ..pb::EndpointSlice::default()
        };
        let Ok(Object::EndpointSlice(slice)) = endpoint_slice(&slice.encode_to_vec()) else { panic!() };
        let (endpoints, ports) = (slice.endpoints.unwrap(), slice.ports.unwrap());
        assert_eq!([endpoints.capacity(), endpoints[0].addresses.capacity(), ports.capacity()], [1, 1, 1]);
    }
}
