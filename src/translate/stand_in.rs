//! What a host answers while Envoy has accepted none of its routes. Without an answer Envoy would hold each request back
//! until the client gives up.

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteConfiguration, RouteMatch, VirtualHost,
};

use super::version;
use crate::xds::{Resource, TypeUrl};

const STATUS: u32 = 503;
const BODY: &str = "The configuration of this host was rejected by Envoy.\n";

/// A resource in place of one of which Envoy rejects every form. Only routes have one: whatever else is missing, Envoy
/// answers without.
pub fn stand_in(type_url: TypeUrl, name: &str) -> Option<Resource> {
    (type_url == TypeUrl::RouteConfiguration).then(|| route_configuration(name))
}

fn route_configuration(name: &str) -> Resource {
    let body =
        DataSource { specifier: Some(Specifier::InlineString(BODY.to_owned())), ..DataSource::default() };
    let answer = DirectResponseAction { status: STATUS, body: Some(body), ..DirectResponseAction::default() };
    let everything =
        RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() };
    let route = Route {
        // Without a name the fallback filter would take it for no route.
        name: "rejected".to_owned(),
        r#match: Some(everything),
        action: Some(Action::DirectResponse(answer)),
        ..Route::default()
    };
    let message = RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "rejected".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    };
    Resource::new(TypeUrl::RouteConfiguration, name, version(&("stand-in", name)), &message)
}
