//! The HTTP filters of every connection manager, in their one order.
//!
//! First those that find the route, then the policies' in the order of nginx's phases, then the router. What a policy
//! sets stands in `typed_per_filter_config` of routes, so the chain itself never changes.

use envoy_types::pb::google::protobuf::Any;
use serde_json::{Value, json};

use super::{external_auth, late, limits, names};
use crate::descriptors;
use crate::settings::Settings;

/// Hosts that are in lower case and do not end in a dot, with a port or not: their scope needs no rewriting.
const PLAIN_HOST: &str = r"[a-z0-9_-]+(\.[a-z0-9_-]+)*(:[0-9]*)?";

/// Lower-cases the scope and takes a trailing dot away.
const SCOPE_SCRIPT: &str = r#"function envoy_on_request(handle)
  local scope = handle:headers():get("x-chancery-scope")
  if scope ~= nil then
    scope = string.gsub(string.gsub(string.lower(scope), "%.$", ""), "%.(:%d*)$", "%1")
    handle:headers():replace("x-chancery-scope", scope)
  end
end
"#;

/// The filters of requests; those of upgraded connections (websockets) lack the limit of request bodies, since what
/// flows on them is no body.
pub(crate) fn http_filters(settings: &Settings, upgrade: bool) -> Vec<Value> {
    let mut filters = vec![scope(), on_demand(), fallback(), fault(), cors(), jwt()];
    if settings.ratelimit.is_some() {
        filters.extend(rate_limits(!settings.envoy_limit_headers, false));
    }
    if !upgrade {
        filters.push(body_size());
    }
    filters.push(filter(names::EXTERNAL_AUTH, &external_auth::filter()));
    if settings.ratelimit.is_some() {
        filters.extend(rate_limits(!settings.envoy_limit_headers, true));
    }
    filters.push(router());
    filters
}

fn filter(name: &str, typed_config: &Value) -> Value {
    json!({"name": name, "typed_config": typed_config})
}

fn scope() -> Value {
    filter(
        "scope",
        &json!({
            "@type": "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
            "extension_config": {"name": "envoy.filters.http.lua", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                "default_source_code": {"inline_string": SCOPE_SCRIPT},
            }},
            "xds_matcher": {"matcher_list": {"matchers": [{
                "predicate": {"single_predicate": {
                    "input": {"name": "scope", "typed_config": {
                        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
                        "header_name": names::SCOPE_HEADER,
                    }},
                    "value_match": {"safe_regex": {"google_re2": {}, "regex": PLAIN_HOST}},
                }},
                "on_match": {"action": {"name": "skip", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter",
                }}},
            }]}},
        }),
    )
}

fn on_demand() -> Value {
    filter(
        "envoy.filters.http.on_demand",
        &json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand",
        }),
    )
}

fn fallback() -> Value {
    json!({
        "name": names::FALLBACK,
        "config_discovery": {
            "config_source": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "5s"},
            "type_urls": [
                "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            ],
        },
    })
}

fn fault() -> Value {
    filter(
        "envoy.filters.http.fault",
        &json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        }),
    )
}

fn cors() -> Value {
    filter(
        "envoy.filters.http.cors",
        &json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors",
        }),
    )
}

/// Runs the filters by which a route has tokens verified. What they verify, the rate limit filters count by.
fn jwt() -> Value {
    filter(names::JWT, &late::filter())
}

/// The rate limit filters, and the one that runs those that routes bring along.
fn rate_limits(untold: bool, after_auth: bool) -> Vec<Value> {
    let shown = |any: &Any| {
        let mut config = descriptors::to_json(&any.type_url, &any.value).expect("a message of Envoy's");
        config["@type"] = any.type_url.as_str().into();
        config
    };
    let standing = limits::standing(untold, after_auth);
    let mut filters: Vec<_> = standing.iter().map(|(name, config)| filter(name, &shown(config))).collect();
    filters.push(filter(limits::others(after_auth), &late::filter()));
    filters
}

/// The limit of request bodies is a filter that routes bring along, in the chain that this filter makes for them.
///
/// Envoy makes that chain when a request arrives. For a host that is loaded by its very first request there is no
/// route then, so a body that comes with that request is not limited. Wildcard hosts have guards instead.
fn body_size() -> Value {
    filter(
        names::BODY_SIZE,
        &json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.filter_chain.v3.FilterChainConfig",
        }),
    )
}

fn router() -> Value {
    filter(
        "envoy.filters.http.router",
        &json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true,
        }),
    )
}
