//! EndpointSlices to the endpoints of a Service port.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};

use super::backend::{PORT_FORM, port_number};
use crate::model::{Endpoint, EndpointSet, EndpointSetKey, Health};
use crate::store::{View, is_ready};
use crate::values::{Findings, Kind, ObjectKey};

/// The endpoints of a Service port, over all of its slices; empty if there is no such Service or port.
///
/// Ready endpoints take requests. Those that are terminating and still serve are kept as draining, so that what is in
/// flight ends there; when nothing is ready they take requests, as kube-proxy has it.
pub fn endpoint_set(view: &View<'_>, key: &EndpointSetKey) -> (EndpointSet, Findings) {
    let mut findings = Findings::default();
    let service_key = ObjectKey::new(Kind::Service, key.namespace.clone(), key.service.clone());
    let mut found: BTreeMap<(IpAddr, u16), Health> = BTreeMap::new();
    if let Some(port_name) =
        view.service(&key.namespace, &key.service).and_then(|service| port_name(service, key.port))
    {
        for slice in view.slices(&service_key) {
            collect(slice, port_name, &mut found, &mut findings);
        }
    }
    let mut endpoints: Vec<_> =
        found.into_iter().map(|((address, port), health)| Endpoint { address, port, health }).collect();
    if endpoints.iter().all(|endpoint| endpoint.health == Health::Draining) {
        for endpoint in &mut endpoints {
            endpoint.health = Health::Ready;
        }
    }
    (EndpointSet { key: key.clone(), endpoints }, findings)
}

/// The name by which slices know a Service port; a Service with one port may leave it out.
fn port_name(service: &Service, number: u16) -> Option<&str> {
    let ports = service.spec.as_ref()?.ports.as_deref()?;
    // 0 stands for a Service or port that does not exist, whatever a Service calls its ports.
    let port = ports.iter().find(|port| number != 0 && port.port == i32::from(number))?;
    Some(port.name.as_deref().unwrap_or_default())
}

fn collect(
    slice: &EndpointSlice,
    port_name: &str,
    found: &mut BTreeMap<(IpAddr, u16), Health>,
    findings: &mut Findings,
) {
    let ports = slice.ports.iter().flatten();
    let port =
        ports.filter(|port| port.name.as_deref().unwrap_or_default() == port_name).find_map(|port| port.port);
    let Some(port) = port else { return };
    let Some(port) = port_number(port) else {
        let message = format!("{port} is not {PORT_FORM}; its endpoints are left out");
        findings.error(&object(slice), "ports", "InvalidPort", message);
        return;
    };
    for endpoint in slice.endpoints.iter().flatten() {
        let Some(health) = health(endpoint) else { continue };
        for address in &endpoint.addresses {
            let Ok(address) = address.parse::<IpAddr>() else {
                let message = format!("{address:?} is not an IP address; the endpoint is left out");
                findings.warning(&object(slice), "endpoints[].addresses", "InvalidAddress", message);
                continue;
            };
            // An endpoint that two slices know (it moves between them) is as healthy as the better one says.
            found.entry((address, port)).and_modify(|known| *known = (*known).min(health)).or_insert(health);
        }
    }
}

fn object(slice: &EndpointSlice) -> ObjectKey {
    let metadata = &slice.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    ObjectKey::new(Kind::EndpointSlice, namespace, metadata.name.as_deref().unwrap_or_default())
}

/// None for endpoints that get nothing.
fn health(endpoint: &SliceEndpoint) -> Option<Health> {
    if is_ready(endpoint) {
        return Some(Health::Ready);
    }
    let conditions = endpoint.conditions.as_ref()?;
    let serving = conditions.serving.or(conditions.ready).unwrap_or(true);
    (conditions.terminating == Some(true) && serving).then_some(Health::Draining)
}
