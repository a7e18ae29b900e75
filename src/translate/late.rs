//! Filters that a route brings along, and that run by the route that a request has when it gets to them.
//!
//! Envoy makes a chain of filters when a request arrives. The routes of wildcard hosts, and those of a host that is loaded
//! by its first request, are found by filters of that chain. So what stands in every chain is Envoy's `composite` filter,
//! which makes the route's filters in its place as late as the request gets there. This was tried with Envoy 1.40.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::filters::http::composite::v3::{
    CompositePerRoute, ExecuteFilterAction, FilterChainConfiguration,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::xds::core::v3::TypedExtensionConfig as MatchAction;
use envoy_types::pb::xds::r#type::matcher::v3::Matcher;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::{OnMatch, on_match};
use serde_json::{Value, json};

use crate::descriptors::pack;

/// The filter that stands in every chain. It does nothing unless a route brings filters along.
pub(super) fn filter() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.composite.v3.Composite",
    })
}

/// What it is told by a route that brings these along, which run in their order.
pub(super) fn per_route(filters: Vec<TypedExtensionConfig>) -> Any {
    let chain = FilterChainConfiguration { typed_config: filters };
    let action = ExecuteFilterAction { filter_chain: Some(chain), ..ExecuteFilterAction::default() };
    let action = MatchAction { name: "chain".to_owned(), typed_config: Some(pack(&action)) };
    let always = OnMatch { on_match: Some(on_match::OnMatch::Action(action)), ..OnMatch::default() };
    let matcher = Matcher { on_no_match: Some(Box::new(always)), ..Matcher::default() };
    pack(&CompositePerRoute { matcher: Some(matcher) })
}
