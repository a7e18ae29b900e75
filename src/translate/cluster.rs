//! Backends to clusters.
//!
//! A cluster's name carries a hash of its settings, so that clusters are added and removed but never changed: Envoy
//! would warm a changed cluster anew and drop its connections.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpProtocolOptions,
    TransportSocket, transport_socket,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::extensions::clusters::dns::v3::DnsCluster;
use envoy_types::pb::envoy::extensions::clusters::dns::v3::dns_cluster::RefreshRate;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{CommonTlsContext, UpstreamTlsContext};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::Any;

use super::mutual_tls::{self, Credentials};
use super::{names, proto, version};
use crate::descriptors::pack;
use crate::features::backend_protocol::Protocol;
use crate::model::{Backend, Endpoints};
use crate::settings::RateLimitService;
use crate::xds::{Resource, TypeUrl};

/// nginx's `upstream-keepalive-timeout`: an idle connection is closed before a typical upstream closes it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// nginx's `upstream-keepalive-requests`.
const MAX_REQUESTS_PER_CONNECTION: u32 = 10_000;

/// How long an answer without a lifetime of its own is kept.
const DNS_REFRESH: Duration = Duration::from_secs(5);
/// How long after a failure a name is looked up again: at random up to this at first.
const DNS_FAILURE_REFRESH: Duration = Duration::from_secs(1);
/// The same, after many failures.
const DNS_FAILURE_REFRESH_MAX: Duration = Duration::from_secs(10);

const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The cluster of a backend.
pub fn cluster(backend: &Backend) -> Resource {
    let mut message = base(&backend.name);
    message.connect_timeout = proto::duration(backend.connect_timeout);
    match &backend.endpoints {
        Endpoints::Service(_) => {
            message.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
            message.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: proto::ads(), ..EdsClusterConfig::default() });
        }
        Endpoints::Dns { host, port } => dns(&mut message, host, *port),
    }
    let options = http_protocol_options(backend.protocol);
    message.typed_extension_protocol_options.insert(HTTP_PROTOCOL_OPTIONS.to_owned(), options);
    if backend.protocol.is_tls() {
        message.transport_socket = Some(transport_socket(backend));
    }
    Resource::new(TypeUrl::Cluster, backend.name.clone(), version(backend), &message)
}

/// The cluster of the rate limit service.
pub fn rate_limit(service: &RateLimitService) -> Resource {
    let mut message = base(names::RATE_LIMIT_CLUSTER);
    message.connect_timeout = proto::duration(Duration::from_secs(1));
    dns(&mut message, &service.host, service.port);
    let options = http_protocol_options(Protocol::Grpc);
    message.typed_extension_protocol_options.insert(HTTP_PROTOCOL_OPTIONS.to_owned(), options);
    if let Some(folder) = &service.secrets {
        let socket = mutual_tls::transport_socket(&service.host, Credentials::Secrets(folder));
        message.transport_socket = Some(socket);
    }
    Resource::new(TypeUrl::Cluster, names::RATE_LIMIT_CLUSTER, version(service), &message)
}

fn base(name: &str) -> Cluster {
    // ingress-nginx has no such limits; Envoy's defaults (1024) would refuse what nginx serves.
    let unlimited = proto::uint32(u32::MAX);
    let thresholds = Thresholds {
        max_connections: unlimited,
        max_pending_requests: unlimited,
        max_requests: unlimited,
        max_retries: unlimited,
        ..Thresholds::default()
    };
    Cluster {
        name: name.to_owned(),
        lb_policy: LbPolicy::RoundRobin.into(),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![thresholds],
            ..CircuitBreakers::default()
        }),
        // Panic mode would send requests to endpoints that said they are going away.
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(Percent { value: 0.0 }),
            ..CommonLbConfig::default()
        }),
        ..Cluster::default()
    }
}

fn dns(message: &mut Cluster, host: &str, port: u16) {
    message.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
        name: "envoy.clusters.dns".to_owned(),
        typed_config: Some(pack(&dns_cluster())),
    }));
    // A name that does not resolve must not hold back the clusters that come with it.
    message.wait_for_warm_on_init = proto::boolean(false);
    let endpoint = Endpoint { address: proto::socket_address(host, port), ..Endpoint::default() };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
    message.load_assignment = Some(ClusterLoadAssignment {
        cluster_name: message.name.clone(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    });
}

/// Each address is an endpoint of its own. A name is looked up again when its answer expires, as nginx does, and not every
/// five seconds, Envoy's default, whatever it says. That default is left to answers that expire at once, and failures are
/// tried again ever more rarely.
fn dns_cluster() -> DnsCluster {
    DnsCluster {
        respect_dns_ttl: true,
        dns_refresh_rate: proto::duration(DNS_REFRESH),
        dns_failure_refresh_rate: Some(RefreshRate {
            base_interval: proto::duration(DNS_FAILURE_REFRESH),
            max_interval: proto::duration(DNS_FAILURE_REFRESH_MAX),
        }),
        ..DnsCluster::default()
    }
}

fn http_protocol_options(protocol: Protocol) -> Any {
    let config = if protocol.is_http2() {
        ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())
    } else {
        ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())
    };
    let max_requests = (!protocol.is_http2()).then(|| proto::uint32(MAX_REQUESTS_PER_CONNECTION)).flatten();
    pack(&HttpProtocolOptions {
        common_http_protocol_options: Some(CommonHttpProtocolOptions {
            idle_timeout: proto::duration(IDLE_TIMEOUT),
            max_requests_per_connection: max_requests,
            ..CommonHttpProtocolOptions::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })),
        ..HttpProtocolOptions::default()
    })
}

/// As ingress-nginx: the certificate is not verified, and a Service's endpoints see no SNI. A DNS name is sent as SNI,
/// since hosts outside the cluster mostly need it.
fn transport_socket(backend: &Backend) -> TransportSocket {
    let alpn = if backend.protocol.is_http2() { "h2" } else { "http/1.1" };
    let sni = match &backend.endpoints {
        Endpoints::Service(_) => String::new(),
        Endpoints::Dns { host, .. } => host.to_string(),
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            alpn_protocols: vec![alpn.to_owned()],
            ..CommonTlsContext::default()
        }),
        sni,
        ..UpstreamTlsContext::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(&context))),
    }
}
