//! Other services that are asked whether to let a request in: one filter for all routes.
//!
//! Envoy's own `ext_authz` asks with the request's method, and answers the client with whatever status it is answered. So
//! it is a script, always the same, that is told what to ask by the route; a route that says nothing has none. It stands
//! in every chain and reads the route as late as a request comes by, since for the first request to a host on demand
//! there is no route when the chain is made.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::extensions::filters::http::lua::v3::LuaPerRoute;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::lua_per_route::Override;
use envoy_types::pb::google::protobuf::Any;
use serde_json::{Value, json};

use super::proto;
use crate::descriptors::pack;
use crate::features::effects::{ExternalAuth, RouteLimit};
use crate::values::LimitKey;

/// The script's name, by which routes ask for it.
const SCRIPT: &str = "ask";

/// The filter.
pub(crate) fn filter() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "source_codes": {SCRIPT: {"inline_string": include_str!("external_auth.lua")}},
        // The headers that the script sets must not lead a request to a route of which nobody was asked.
        "clear_route_cache": false,
    })
}

/// What the filter is told by a route. It is data to the script, and never code.
pub(crate) fn per_route(auth: &ExternalAuth, limits: &[RouteLimit]) -> Any {
    let question = &auth.question;
    let headers = question.response_headers.iter().map(String::as_str);
    let required = auth.required.iter().map(|name| &**name);
    let required = (!auth.required.is_empty()).then(|| proto::texts(required));
    let counted = limits.iter().flat_map(|limit| limit.key.parts());
    let counted: BTreeSet<_> = counted.filter_map(header).collect();
    let counted = (!counted.is_empty()).then(|| proto::texts(counted));
    let context = proto::structure([
        ("cluster", Some(proto::text(&auth.cluster))),
        ("host", Some(proto::text(&auth.host))),
        ("method", Some(proto::text(question.method))),
        ("path", Some(proto::text(&question.path))),
        ("headers", Some(proto::texts(headers))),
        ("counted", counted),
        ("required", required),
        ("signin", question.signin.as_deref().map(proto::text)),
    ]);
    pack(&LuaPerRoute {
        filter_context: Some(context),
        r#override: Some(Override::Name(SCRIPT.to_owned())),
        ..LuaPerRoute::default()
    })
}

fn header(key: &LimitKey) -> Option<&str> {
    match key {
        LimitKey::Header(name) => Some(name),
        _ => None,
    }
}
