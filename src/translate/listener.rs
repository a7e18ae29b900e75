//! The listeners: few, and almost never changed.
//!
//! They are written in protobuf JSON, since they are deeply nested and there are two of them.

use serde_json::{Value, json};

use super::{filters, names, version};
use crate::descriptors;
use crate::settings::Settings;
use crate::xds::{Resource, TypeUrl};

/// The listeners of these settings.
///
/// # Errors
/// When the JSON here does not fit Envoy's messages, which a test would have found.
pub fn listeners(settings: &Settings) -> Result<Vec<Resource>, descriptors::Error> {
    [http(settings), https(settings)].iter().map(resource).collect()
}

fn resource(listener: &Value) -> Result<Resource, descriptors::Error> {
    let name = listener["name"].as_str().unwrap_or_default();
    let body = descriptors::from_json(TypeUrl::Listener.as_str(), listener)?;
    Ok(Resource::from_bytes(TypeUrl::Listener, name, version(&listener.to_string()), &body))
}

fn http(settings: &Settings) -> Value {
    listener(
        names::HTTP,
        settings,
        settings.http_port,
        json!({
            "filters": [http_connection_manager(names::HTTP, settings)],
        }),
        json!([]),
    )
}

fn https(settings: &Settings) -> Value {
    listener(
        names::HTTPS,
        settings,
        settings.https_port,
        json!({
            "filters": [http_connection_manager(names::HTTPS, settings)],
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls_context()},
            "transport_socket_connect_timeout": "15s",
        }),
        json!([{"name": "envoy.filters.listener.tls_inspector", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        }}]),
    )
}

fn listener(name: &str, settings: &Settings, port: u16, chain: Value, listener_filters: Value) -> Value {
    json!({
        "name": name,
        "address": {"socket_address": {
            "address": settings.envoy_address.to_string(),
            "port_value": port,
        }},
        "listener_filters": listener_filters,
        "filter_chains": [chain],
    })
}

/// Certificates are picked by SNI and fetched when first asked for. A resumed session would skip the choice, so
/// sessions are not resumed.
fn tls_context() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "disable_stateless_session_resumption": true,
        "disable_stateful_session_resumption": true,
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "custom_tls_certificate_selector": {"name": "on_demand_secret", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.cert_selectors.on_demand_secret.v3.Config",
                "config_source": {"ads": {}, "resource_api_version": "V3"},
                "certificate_mapper": {"name": "sni", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.cert_mappers.sni.v3.SNI",
                    "default_value": names::NO_SNI,
                }},
                "prefetch_secret_names": [names::NO_SNI],
            }},
        },
    })
}

fn http_connection_manager(listener: &str, settings: &Settings) -> Value {
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": listener,
        "scoped_routes": scoped_routes(),
        "early_header_mutation_extensions": [{"name": "scope", "typed_config": early_headers(listener)}],
        "http_filters": filters::http_filters(settings, false),
        "upgrade_configs": [{"upgrade_type": "websocket", "filters": filters::http_filters(settings, true)}],
        "use_remote_address": true,
        "skip_xff_append": true,
        "generate_request_id": true,
        "preserve_external_request_id": true,
        "normalize_path": true,
        "merge_slashes": true,
        "http_protocol_options": {"accept_http_10": true},
        "http2_protocol_options": {
            "max_concurrent_streams": 128,
            "initial_stream_window_size": 1_048_576,
            "initial_connection_window_size": 4_194_304,
        },
        "common_http_protocol_options": {
            "idle_timeout": "75s",
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "request_headers_timeout": "60s",
        // Every route has an idle timeout of its own, so this is how long a request waits for a host that is on demand and
        // a control plane that is away, which is answered 504 then.
        "stream_idle_timeout": "15s",
        "delayed_close_timeout": "1s",
        "local_reply_config": {},
    }})
}

/// One subscription for all listeners: the key begins with the listener's name.
fn scoped_routes() -> Value {
    let fragment = |header: &str, separator: &str| json!({"header_value_extractor": {"name": header, "element_separator": separator, "index": 0}});
    json!({
        "name": "chancery",
        "scope_key_builder": {"fragments": [
            fragment(names::LISTENER_HEADER, ":"),
            fragment(names::SCOPE_HEADER, ":"),
        ]},
        "rds_config_source": {"ads": {}, "resource_api_version": "V3"},
        "scoped_rds": {"scoped_rds_config_source": {"ads": {}, "resource_api_version": "V3"}},
    })
}

/// What every request is given before a route is looked for. The scope's headers overwrite a client's own; the rest is
/// what ingress-nginx sets, with the client's own `X-Forwarded-For` kept aside, since it is not trusted.
fn early_headers(listener: &str) -> Value {
    let set = |key: &str, value: &str| {
        json!({"append": {
            "header": {"key": key, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }})
    };
    json!({
        "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        "mutations": [
            set(names::LISTENER_HEADER, listener),
            set(names::SCOPE_HEADER, "%REQ(:AUTHORITY)%"),
            set("x-original-forwarded-for", "%REQ(X-FORWARDED-FOR)%"),
            set("x-forwarded-for", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"),
            {"remove": "x-forwarded-proto"},
            {"remove": "proxy"},
            set("x-real-ip", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"),
            set("x-forwarded-host", "%REQ(:AUTHORITY)%"),
            set("x-forwarded-port", "%DOWNSTREAM_LOCAL_PORT%"),
            set("x-forwarded-scheme", listener),
            set("x-scheme", listener),
        ],
    })
}
