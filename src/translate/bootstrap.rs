//! The bootstrap that an Envoy of this control plane starts with: hardened, and cheap with very many clusters.
//!
//! All else comes over xDS. What each part is for stands at the function that writes it.

use std::net::{IpAddr, SocketAddr};

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use prost::Message as _;
use serde_json::{Value, json};

use super::mutual_tls::{self, Credentials, Files};
use crate::descriptors;
use crate::xds::TypeUrl;

/// The static cluster that the control plane is reached by.
pub const XDS_CLUSTER: &str = "chancery_xds";

/// `node.cluster` unless told otherwise.
pub const NODE_CLUSTER: &str = "chancery";

/// Connections from clients that one Envoy takes unless told otherwise.
pub const MAX_CONNECTIONS: u64 = 50_000;

/// What differs between bootstraps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `node.id`, unique among the Envoys of a control plane.
    pub node_id: String,
    /// `node.cluster`, the same for all Envoys that serve the same.
    pub node_cluster: String,
    /// Host name or address, and port, of the control plane's xDS.
    pub xds: (String, u16),
    /// Where the admin interface listens; loopback only, port 0 picks one.
    pub admin: SocketAddr,
    /// The bytes of memory that Envoy has; none means no limit.
    pub memory_limit: Option<u64>,
    /// Connections from clients that are taken at once.
    pub max_connections: u64,
    /// Mutual TLS to the control plane.
    pub tls: Option<Tls>,
}

/// Mutual TLS to the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Where Envoy has its certificate, and the control plane's authority.
    pub files: Files,
    /// The folder, as Envoy sees it, where what [`secrets`] makes is written to; without one, Envoy reads its files once.
    pub secrets: Option<String>,
}

/// Why there is no bootstrap.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Whoever reaches the admin interface can read keys and stop Envoy.
    #[error("{0} is not a loopback address: Envoy's admin interface is for its own machine only")]
    AdminAddress(SocketAddr),
    /// What was written is not a bootstrap.
    #[error(transparent)]
    Message(#[from] descriptors::Error),
}

/// The bootstrap as JSON, known to be a `envoy.config.bootstrap.v3.Bootstrap`.
///
/// # Errors
/// When the admin address is not loopback.
pub fn bootstrap(options: &Options) -> Result<Value, Error> {
    if !options.admin.ip().is_loopback() {
        return Err(Error::AdminAddress(options.admin));
    }
    let bootstrap = json!({
        "node": {"id": options.node_id, "cluster": options.node_cluster},
        // Whoever debugs an overloaded Envoy must still get in.
        "admin": {"address": address(&options.admin.ip().to_string(), options.admin.port()),
                  "ignore_global_conn_limit": true},
        "dynamic_resources": dynamic_resources(),
        "static_resources": {"clusters": [xds_cluster(options)?]},
        "cluster_manager": {"outlier_detection": {}},
        "deferred_stat_options": {"enable_deferred_creation_stats": true},
        "stats_config": stats_config(),
        // Often enough for whoever scrapes; `stats_flush_on_admin` would show each scrape what the one before had.
        "stats_flush_interval": "10s",
        "overload_manager": overload_manager(options),
        "layered_runtime": {"layers": [{"name": "static", "static_layer": runtime()}]},
    });
    descriptors::from_json("envoy.config.bootstrap.v3.Bootstrap", &bootstrap)?;
    Ok(bootstrap)
}

/// One delta ADS stream for everything. Clusters and listeners are waited for however long it takes: until the
/// control plane has answered, Envoy is not ready, rather than ready to answer 404.
fn dynamic_resources() -> Value {
    let over_ads = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    json!({
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER, "retry_policy": reconnects()}}],
        },
        "cds_config": over_ads,
        "lds_config": over_ads,
    })
}

/// How long an Envoy waits before it asks a control plane that was away again: a random time up to `base_interval`,
/// which doubles with each try up to `max_interval`. Unless told, Envoy goes up to half a minute. The wait being random
/// over its whole length, a thousand Envoys come back as some five hundred a second.
fn reconnects() -> Value {
    json!({"retry_back_off": {"base_interval": "0.1s", "max_interval": "2s"}})
}

/// A control plane that is gone without a word is noticed within a minute, by HTTP/2 pings and by TCP.
fn xds_cluster(options: &Options) -> Result<Value, descriptors::Error> {
    let (host, port) = &options.xds;
    let kind = if host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let mut cluster = json!({
        "name": XDS_CLUSTER,
        "type": kind,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": XDS_CLUSTER, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(host, *port)}}]},
        ]},
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_probes": 3, "keepalive_time": 30, "keepalive_interval": 5},
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {
                    "connection_keepalive": {"interval": "30s", "timeout": "10s"},
                }},
            },
        },
    });
    if let Some(tls) = &options.tls {
        cluster["transport_socket"] = transport_socket(tls, host)?;
    }
    Ok(cluster)
}

fn transport_socket(tls: &Tls, host: &str) -> Result<Value, descriptors::Error> {
    let credentials = match &tls.secrets {
        Some(folder) => Credentials::Secrets(folder),
        None => Credentials::Files(&tls.files),
    };
    let socket = mutual_tls::transport_socket(host, credentials);
    descriptors::to_json("envoy.config.core.v3.TransportSocket", &socket.encode_to_vec())
}

/// By which Envoy reads its files again whenever they are exchanged: names of files, and the responses of SDS in them.
///
/// # Errors
/// None that the arguments could cause.
pub fn secrets(files: &Files) -> Result<Vec<(String, Value)>, Error> {
    let response = |secret: &Secret| -> Result<Value, Error> {
        let mut json = descriptors::to_json(TypeUrl::Secret.as_str(), &secret.encode_to_vec())?;
        json["@type"] = json!(TypeUrl::Secret.as_str());
        Ok(json!({"resources": [json]}))
    };
    mutual_tls::secrets(files).iter().map(|(name, secret)| Ok((name.clone(), response(secret)?))).collect()
}

/// Statistics that are kept, by the end of their names. A cluster has over a hundred otherwise and a route
/// configuration a dozen, which is most of Envoy's memory once there are thousands of either.
const KEPT_SUFFIXES: [&str; 38] = [
    // Listeners and connection managers.
    ".downstream_cx_active",
    ".downstream_cx_total",
    ".downstream_cx_overflow",
    ".downstream_cx_overload_reject",
    ".downstream_cx_ssl_active",
    ".downstream_cx_ssl_total",
    ".downstream_cx_length_ms",
    ".downstream_cx_rx_bytes_total",
    ".downstream_cx_tx_bytes_total",
    ".downstream_rq_active",
    ".downstream_rq_total",
    ".downstream_rq_1xx",
    ".downstream_rq_2xx",
    ".downstream_rq_3xx",
    ".downstream_rq_4xx",
    ".downstream_rq_5xx",
    ".downstream_rq_time",
    ".downstream_rq_overload_close",
    ".downstream_rq_timeout",
    ".no_route",
    // Clusters.
    ".upstream_cx_active",
    ".upstream_cx_total",
    ".upstream_cx_connect_fail",
    ".upstream_cx_connect_timeout",
    ".upstream_cx_overflow",
    ".upstream_rq_active",
    ".upstream_rq_total",
    ".upstream_rq_1xx",
    ".upstream_rq_2xx",
    ".upstream_rq_3xx",
    ".upstream_rq_4xx",
    ".upstream_rq_5xx",
    ".upstream_rq_time",
    ".upstream_rq_timeout",
    ".upstream_rq_retry",
    ".upstream_rq_pending_overflow",
    ".outlier_detection.ejections_active",
    // TLS.
    ".ssl.connection_error",
];

/// Statistics that are kept, by the beginning of their names. The connection to the control plane is watched closely.
const KEPT_PREFIXES: [&str; 6] = [
    "server.",
    "cluster_manager.",
    "listener_manager.",
    "control_plane.",
    "overload.",
    "cluster.chancery_xds.",
];

/// Only what is named here is kept, and of that the traffic of clusters only once there is some.
fn stats_config() -> Value {
    let prefixes = KEPT_PREFIXES.iter().map(|prefix| json!({"prefix": prefix}));
    let suffixes = KEPT_SUFFIXES.iter().map(|suffix| json!({"suffix": suffix}));
    let patterns: Vec<Value> = prefixes.chain(suffixes).collect();
    json!({"stats_matcher": {"inclusion_list": {"patterns": patterns}}})
}

/// Fewer connections than would run out of descriptors, and before memory runs out, the less useful goes first:
/// memory is given back, idle connections close sooner, the largest streams are reset, new requests are refused and
/// at last new connections.
fn overload_manager(options: &Options) -> Value {
    const HEAP: &str = "envoy.resource_monitors.fixed_heap";
    let mut monitors = vec![json!({
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": options.max_connections,
        },
    })];
    let Some(limit) = options.memory_limit else {
        return json!({"refresh_interval": "0.25s", "resource_monitors": monitors});
    };
    monitors.push(json!({
        "name": HEAP,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
            // The rest is for what is not heap: code, stacks, the kernel's socket buffers.
            "max_heap_size_bytes": limit / 5 * 4,
        },
    }));
    let at = |value: f64| json!([{"name": HEAP, "threshold": {"value": value}}]);
    let between = |from: f64, to: f64| json!([{"name": HEAP, "scaled": {"scaling_threshold": from, "saturation_threshold": to}}]);
    let shorter_timers = json!({
        "@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
        "timer_scale_factors": [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"}],
    });
    json!({
        "refresh_interval": "0.25s",
        "resource_monitors": monitors,
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
        "actions": [
            {"name": "envoy.overload_actions.shrink_heap", "triggers": at(0.85)},
            {"name": "envoy.overload_actions.reduce_timeouts", "triggers": between(0.85, 0.95),
             "typed_config": shorter_timers},
            {"name": "envoy.overload_actions.disable_http_keepalive", "triggers": at(0.92)},
            {"name": "envoy.overload_actions.reset_high_memory_stream", "triggers": between(0.92, 0.98)},
            {"name": "envoy.overload_actions.stop_accepting_requests", "triggers": at(0.95)},
            {"name": "envoy.overload_actions.stop_accepting_connections", "triggers": at(0.98)},
        ],
    })
}

/// Envoy refuses regular expressions of over a hundred instructions unless told otherwise; those of Ingresses and
/// VirtualServices are often longer. RE2 takes time linear in the request whatever the expression, and its own memory
/// limit stays.
fn runtime() -> Value {
    json!({
        "re2.max_program_size.error_level": 1_000_000,
        "re2.max_program_size.warn_level": 1_000_000,
    })
}

fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            node_id: "edge-0".into(),
            node_cluster: NODE_CLUSTER.into(),
            xds: ("127.0.0.1".into(), 18000),
            admin: ([127, 0, 0, 1], 9901).into(),
            memory_limit: Some(1 << 30),
            max_connections: MAX_CONNECTIONS,
            tls: None,
        }
    }

    fn files() -> Files {
        Files { certificate: "/c.pem".into(), key: "/k.pem".into(), authority: "/a.pem".into() }
    }

    fn tls(secrets: Option<&str>) -> Tls {
        Tls { files: files(), secrets: secrets.map(str::to_owned) }
    }

    /// How the control plane is reached by TLS.
    fn context(host: &str, secrets: Option<&str>) -> Value {
        let options = Options { tls: Some(tls(secrets)), xds: (host.into(), 1), ..options() };
        let mut bootstrap = bootstrap(&options).unwrap();
        bootstrap["static_resources"]["clusters"][0]["transport_socket"]["typed_config"].take()
    }

    #[test]
    fn every_form_is_a_bootstrap() {
        for memory_limit in [None, Some(256 << 20)] {
            for host in ["10.0.0.1", "::1", "chancery.svc"] {
                for tls in [None, Some(tls(None)), Some(tls(Some("/s")))] {
                    bootstrap(&Options { memory_limit, tls, xds: (host.into(), 1), ..options() }).unwrap();
                }
            }
        }
    }

    /// Envoy's own longest wait is half a minute, in which it learns of no change and finds no host that is on demand.
    #[test]
    fn an_envoy_comes_back_within_seconds() {
        let bootstrap = bootstrap(&options()).unwrap();
        let service = &bootstrap["dynamic_resources"]["ads_config"]["grpc_services"][0]["envoy_grpc"];
        let back_off = &service["retry_policy"]["retry_back_off"];
        assert_eq!(back_off, &json!({"base_interval": "0.1s", "max_interval": "2s"}));
    }

    #[test]
    fn heap_actions_need_a_limit() {
        let limited = bootstrap(&options()).unwrap();
        let monitors = &limited["overload_manager"]["resource_monitors"];
        assert_eq!(monitors[1]["typed_config"]["max_heap_size_bytes"], (1_u64 << 30) / 5 * 4);
        let unlimited = bootstrap(&Options { memory_limit: None, ..options() }).unwrap();
        assert_eq!(unlimited["overload_manager"]["resource_monitors"].as_array().map(Vec::len), Some(1));
        assert!(unlimited["overload_manager"].get("actions").is_none());
    }

    #[test]
    fn the_control_plane_must_prove_its_name() {
        for (host, kind, sni) in
            [("10.0.0.1", "IP_ADDRESS", Value::Null), ("cp.example", "DNS", json!("cp.example"))]
        {
            let expected = json!([{"san_type": kind, "matcher": {"exact": host}}]);
            let (once, again) = (context(host, None), context(host, Some("/s")));
            let (once_tls, again_tls) = (&once["common_tls_context"], &again["common_tls_context"]);
            assert_eq!(once_tls["validation_context"]["match_typed_subject_alt_names"], expected);
            let combined = &again_tls["combined_validation_context"];
            assert_eq!(combined["default_validation_context"]["match_typed_subject_alt_names"], expected);
            assert_eq!((&once["sni"], &again["sni"]), (&sni, &sni));
        }
    }

    #[test]
    fn secrets_are_where_they_are_looked_for() {
        let context = context("cp.example", Some("/s/"));
        let tls = &context["common_tls_context"];
        let certificate = &tls["tls_certificate_sds_secret_configs"][0];
        let authority = &tls["combined_validation_context"]["validation_context_sds_secret_config"];
        let written = secrets(&files()).unwrap();
        for (asked, (name, response)) in [certificate, authority].into_iter().zip(&written) {
            assert_eq!(asked["sds_config"]["path_config_source"]["path"], format!("/s/{name}"));
            assert_eq!(asked["name"], response["resources"][0]["name"]);
        }
        assert_eq!(written[0].1["resources"][0]["tls_certificate"]["private_key"]["filename"], "/k.pem");
        assert_eq!(written[1].1["resources"][0]["validation_context"]["trusted_ca"]["filename"], "/a.pem");
    }

    #[test]
    fn the_admin_interface_stays_on_the_machine() {
        let error = bootstrap(&Options { admin: ([0, 0, 0, 0], 9901).into(), ..options() }).unwrap_err();
        assert!(error.to_string().starts_with("0.0.0.0:9901 is not a loopback address"), "{error}");
    }
}
