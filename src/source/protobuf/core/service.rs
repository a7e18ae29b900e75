//! Service

use k8s_openapi::api::core::v1::{
    ClientIPConfig, LoadBalancerIngress, LoadBalancerStatus, PortStatus, Service, ServicePort, ServiceSpec,
    ServiceStatus, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_pb::api::core::v1 as pb;
use k8s_pb::apimachinery::pkg::util::intstr;

use crate::source::protobuf::metadata::{condition, metadata};
use crate::source::protobuf::{decoded, list, map, nonempty, texts};
use crate::source::read::ReadError;
use crate::store::Object;

/// Reads a Service, with its status.
pub(in crate::source) fn service(message: &[u8]) -> Result<Object, ReadError> {
    let it: pb::Service = decoded(message)?;
    Ok(Object::Service(Box::new(Service {
        metadata: metadata(it.metadata)?,
        spec: it.spec.map(spec),
        status: it.status.map(status).transpose()?,
    })))
}

fn spec(it: pb::ServiceSpec) -> ServiceSpec {
    ServiceSpec {
        allocate_load_balancer_node_ports: it.allocate_load_balancer_node_ports,
        cluster_ip: nonempty(it.cluster_ip),
        cluster_ips: texts(it.cluster_ips),
        external_ips: texts(it.external_ips),
        external_name: nonempty(it.external_name),
        external_traffic_policy: nonempty(it.external_traffic_policy),
        health_check_node_port: nonempty(it.health_check_node_port),
        internal_traffic_policy: it.internal_traffic_policy,
        ip_families: texts(it.ip_families),
        ip_family_policy: it.ip_family_policy,
        load_balancer_class: it.load_balancer_class,
        load_balancer_ip: nonempty(it.load_balancer_ip),
        load_balancer_source_ranges: texts(it.load_balancer_source_ranges),
        ports: list(it.ports, port),
        publish_not_ready_addresses: nonempty(it.publish_not_ready_addresses),
        selector: map(it.selector),
        session_affinity: nonempty(it.session_affinity),
        session_affinity_config: it.session_affinity_config.map(session_affinity_config),
        traffic_distribution: it.traffic_distribution,
        type_: nonempty(it.r#type),
    }
}

fn port(it: pb::ServicePort) -> ServicePort {
    ServicePort {
        app_protocol: it.app_protocol,
        name: nonempty(it.name),
        node_port: nonempty(it.node_port),
        port: it.port.unwrap_or_default(),
        protocol: nonempty(it.protocol),
        target_port: it.target_port.map(int_or_string),
    }
}

fn int_or_string(it: intstr::IntOrString) -> IntOrString {
    match it.r#type {
        Some(1) => IntOrString::String(it.str_val.unwrap_or_default()),
        _ => IntOrString::Int(it.int_val.unwrap_or_default()),
    }
}

fn session_affinity_config(it: pb::SessionAffinityConfig) -> SessionAffinityConfig {
    let client_ip = it.client_ip.map(|it| ClientIPConfig { timeout_seconds: it.timeout_seconds });
    SessionAffinityConfig { client_ip }
}

fn status(it: pb::ServiceStatus) -> Result<ServiceStatus, ReadError> {
    let conditions = it.conditions.into_iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let load_balancer =
        it.load_balancer.map(|it| LoadBalancerStatus { ingress: list(it.ingress, load_balancer_ingress) });
    Ok(ServiceStatus { conditions: list(conditions, |it| it), load_balancer })
}

fn load_balancer_ingress(it: pb::LoadBalancerIngress) -> LoadBalancerIngress {
    LoadBalancerIngress {
        hostname: nonempty(it.hostname),
        ip: nonempty(it.ip),
        ip_mode: it.ip_mode,
        ports: list(it.ports, port_status),
    }
}

fn port_status(it: pb::PortStatus) -> PortStatus {
    PortStatus {
        error: it.error,
        port: it.port.unwrap_or_default(),
        protocol: it.protocol.unwrap_or_default(),
    }
}
