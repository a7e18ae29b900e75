//! Hosts to RouteConfigurations: one a host, shared by the listeners where they agree.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route::Action as EnvoyAction;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use envoy_types::pb::envoy::config::route::v3::{
    CookieMatcher, HeaderMatcher, QueryParameterMatcher, Route as EnvoyRoute, RouteAction,
    RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
};

use super::{names, proto, route_effects, version};
use crate::features::cors::Cors;
use crate::features::effects::{HeaderOperation, Listeners, Setting};
use crate::model::{Action, Destination, Host, Match, PathMatch, Route};
use crate::values::matching::{HeaderMatch, NamedMatch, TextMatch};
use crate::xds::{Resource, TypeUrl};

/// ingress-nginx's `hsts` defaults.
const STRICT_TRANSPORT_SECURITY: (&str, &str) =
    ("strict-transport-security", "max-age=31536000; includeSubDomains");

/// As Istio has it; Envoy's default is 4096. What is larger is refused before it gets here.
const MAX_DIRECT_RESPONSE_BYTES: u32 = 1 << 20;

/// The name of the RouteConfiguration that serves a host on a listener: the host's own, but for https where that
/// differs. So the http side keeps its name whatever comes, and Envoy never loads its routes anew.
pub fn name(host: &Host, listener: &str) -> Arc<str> {
    // To delta xDS a subscription to `*` would mean every RouteConfiguration.
    let host_name = if host.name.is_any() { names::ANY_HOST.into() } else { host.name.shared() };
    match listener == names::HTTPS && host.listeners_differ() {
        true => format!("{host_name}/{listener}").into(),
        false => host_name,
    }
}

/// The host whose RouteConfiguration has this [`name`].
pub fn host_of(name: &str) -> &str {
    match name.split_once('/').map_or(name, |(host, _)| host) {
        names::ANY_HOST => "*",
        host => host,
    }
}

/// The RouteConfigurations of a host: one, or one for each listener where they differ.
pub fn route_configurations(host: &Host) -> Vec<Resource> {
    let listeners = if host.listeners_differ() { &names::LISTENERS[..] } else { &names::LISTENERS[..1] };
    listeners.iter().map(|listener| route_configuration(host, listener)).collect()
}

fn route_configuration(host: &Host, listener: &str) -> Resource {
    let name = name(host, listener);
    let here = |listeners: Listeners| stands_on(listeners, listener) || !host.listeners_differ();
    let common = route_effects::Common::of(host);
    let mut routes = Vec::with_capacity(host.routes.len());
    for route in host.routes.iter().filter(|route| here(route.listeners)) {
        let mut guards: Vec<_> = route.effects.guards.iter().filter(|guard| here(guard.listeners)).collect();
        guards.sort_by_key(|guard| guard.phase);
        if let (false, Some(cors)) = (guards.is_empty(), &route.effects.cors) {
            routes.extend(preflights(route, cors));
        }
        for guard in guards {
            let mut matches = route.matches.clone();
            matches.headers.extend(guard.when.iter().cloned());
            let mut guarded = envoy_route(format!("{} {}", guard.origin, reason(route)), &matches);
            route_effects::answer(&mut guarded, &guard.answer);
            routes.push(guarded);
        }
        routes.push(lower(host, route, &common));
    }
    let mut virtual_host = VirtualHost {
        name: host.name.to_string(),
        domains: vec!["*".to_owned()],
        routes,
        ..VirtualHost::default()
    };
    common.apply(&mut virtual_host);
    let mut message = RouteConfiguration {
        name: name.to_string(),
        virtual_hosts: vec![virtual_host],
        max_direct_response_body_size_bytes: proto::uint32(MAX_DIRECT_RESPONSE_BYTES),
        request_headers_to_remove: vec![names::LISTENER_HEADER.to_owned(), names::SCOPE_HEADER.to_owned()],
        ..RouteConfiguration::default()
    };
    if host.strict_transport_security && listener == names::HTTPS {
        let (header, value) = STRICT_TRANSPORT_SECURITY;
        message.response_headers_to_add.push(header_value(
            header,
            value,
            HeaderAppendAction::OverwriteIfExistsOrAdd,
        ));
    }
    let clusters = host.backends.iter().map(|backend| backend.name.clone());
    // Neither the host's age, its certificate nor the figures of its limits are read here: they change alone.
    let read = (&host.name, &host.routes, &host.backends, host.strict_transport_security, listener);
    Resource::new(TypeUrl::RouteConfiguration, name, version(&read), &message).requiring(clusters)
}

fn stands_on(listeners: Listeners, listener: &str) -> bool {
    match listeners {
        Listeners::All => true,
        Listeners::Http => listener == names::HTTP,
        Listeners::Https => listener == names::HTTPS,
    }
}

/// What tells a guard's route from another route's of the same guard.
fn reason(route: &Route) -> String {
    format!("for {}", route.name())
}

/// The routes of preflights that guards must not refuse, since a browser sends no key with one.
///
/// Envoy's `cors` filter passes by what Envoy answers by itself, as it does for guards. So it gets routes that forward,
/// of requests that it answers: nothing ever comes to their cluster. Preflights of other origins are for the guards.
fn preflights(route: &Route, cors: &Setting<Cors>) -> Vec<EnvoyRoute> {
    let given = || TextMatch::Regex(".+".to_owned());
    let origins = if cors.value.allows_any() { vec![given()] } else { cors.value.origins.clone() };
    let preflight = |origin| {
        let mut matches = route.matches.clone();
        matches.headers.extend([
            HeaderMatch::exact(":method", "OPTIONS"),
            HeaderMatch::new("origin", origin),
            HeaderMatch::new("access-control-request-method", given()),
        ]);
        let mut preflight = envoy_route(format!("{} {}", cors.origin, reason(route)), &matches);
        preflight.action = Some(EnvoyAction::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(names::NO_CLUSTER.to_owned())),
            ..RouteAction::default()
        }));
        route_effects::cors(&mut preflight, &cors.value);
        preflight
    };
    origins.into_iter().map(preflight).collect()
}

fn lower(host: &Host, route: &Route, common: &route_effects::Common) -> EnvoyRoute {
    let mut lowered = envoy_route(route.name(), &route.matches);
    match &route.action {
        Action::Answer(answer) => route_effects::answer(&mut lowered, answer),
        Action::Forward(destinations) => {
            let mut action = forward(host, destinations);
            if let [only] = &destinations[..] {
                header_operations(&mut lowered, &only.request_headers, &only.response_headers);
            }
            route_effects::route_action(&mut action, host, route, common);
            lowered.action = Some(EnvoyAction::Route(action));
        }
    }
    header_operations(&mut lowered, &route.effects.request_headers, &route.effects.response_headers);
    route_effects::typed_per_filter_config(&mut lowered, &route.effects, common);
    lowered
}

fn envoy_route(name: String, matches: &Match) -> EnvoyRoute {
    EnvoyRoute { name, r#match: Some(route_match(matches)), ..EnvoyRoute::default() }
}

fn forward(host: &Host, destinations: &[Destination]) -> RouteAction {
    let cluster = |destination: &Destination| host.backends[destination.backend].name.to_string();
    let specifier = match destinations {
        [only] => ClusterSpecifier::Cluster(cluster(only)),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .map(|destination| cluster_weight(cluster(destination), destination))
                .collect(),
            ..WeightedCluster::default()
        }),
    };
    RouteAction { cluster_specifier: Some(specifier), ..RouteAction::default() }
}

fn cluster_weight(name: String, destination: &Destination) -> ClusterWeight {
    let (request_headers_to_add, request_headers_to_remove) = header_options(&destination.request_headers);
    let (response_headers_to_add, response_headers_to_remove) = header_options(&destination.response_headers);
    let host = destination.request_headers.iter().find_map(authority);
    ClusterWeight {
        name,
        weight: proto::uint32(destination.weight),
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        host_rewrite_specifier: host.map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..ClusterWeight::default()
    }
}

fn authority(operation: &HeaderOperation) -> Option<String> {
    match operation {
        HeaderOperation::Set(name, value) if is_authority(name) => Some(value.clone()),
        _ => None,
    }
}

fn is_authority(name: &str) -> bool {
    name == ":authority" || name == "host"
}

fn route_match(matches: &Match) -> RouteMatch {
    let (path, case_sensitive) = path_specifier(&matches.path);
    RouteMatch {
        path_specifier: Some(path),
        case_sensitive: if case_sensitive { None } else { proto::boolean(false) },
        headers: matches.headers.iter().map(header_matcher).collect(),
        query_parameters: matches.query_parameters.iter().map(query_parameter_matcher).collect(),
        cookies: matches.cookies.iter().map(cookie_matcher).collect(),
        ..RouteMatch::default()
    }
}

fn path_specifier(path: &PathMatch) -> (PathSpecifier, bool) {
    match path {
        PathMatch::Exact(text) => (PathSpecifier::Path(text.clone()), true),
        PathMatch::ExactIgnoreCase(text) => (PathSpecifier::Path(text.clone()), false),
        PathMatch::Prefix(text) => (PathSpecifier::Prefix(text.clone()), true),
        PathMatch::PrefixIgnoreCase(text) => (PathSpecifier::Prefix(text.clone()), false),
        PathMatch::Segments(text) => (PathSpecifier::PathSeparatedPrefix(text.clone()), true),
        PathMatch::Regex(text) => (PathSpecifier::SafeRegex(proto::regex(text)), true),
        PathMatch::NginxRegex(text) => {
            (PathSpecifier::SafeRegex(proto::regex(&format!("(?is).*?(?:^{text}).*"))), true)
        }
    }
}

fn header_matcher(header: &HeaderMatch) -> HeaderMatcher {
    let specifier = match proto::string_matcher(&header.value) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher {
        name: header.name.clone(),
        invert_match: header.invert,
        // A header that is not there is not equal to anything either.
        treat_missing_header_as_empty: header.invert && header.value != TextMatch::Present,
        header_match_specifier: Some(specifier),
    }
}

fn query_parameter_matcher(parameter: &NamedMatch) -> QueryParameterMatcher {
    let specifier = match proto::string_matcher(&parameter.value) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher { name: parameter.name.clone(), query_parameter_match_specifier: Some(specifier) }
}

fn cookie_matcher(cookie: &NamedMatch) -> CookieMatcher {
    let any = TextMatch::Regex(".*".to_owned());
    let value = if cookie.value == TextMatch::Present { &any } else { &cookie.value };
    CookieMatcher {
        name: cookie.name.clone(),
        string_match: proto::string_matcher(value),
        ..CookieMatcher::default()
    }
}

fn header_operations(route: &mut EnvoyRoute, request: &[HeaderOperation], response: &[HeaderOperation]) {
    let (add, remove) = header_options(request);
    route.request_headers_to_add.extend(add);
    route.request_headers_to_remove.extend(remove);
    let (add, remove) = header_options(response);
    route.response_headers_to_add.extend(add);
    route.response_headers_to_remove.extend(remove);
}

/// What to add and what to remove. The authority is not a header to Envoy, and goes elsewhere.
fn header_options(operations: &[HeaderOperation]) -> (Vec<HeaderValueOption>, Vec<String>) {
    let mut add = Vec::new();
    let mut remove = Vec::new();
    for operation in operations {
        match operation {
            HeaderOperation::Set(name, _) if is_authority(name) => {}
            HeaderOperation::Set(name, value) => {
                add.push(header_value(name, value, HeaderAppendAction::OverwriteIfExistsOrAdd));
            }
            HeaderOperation::Add(name, value) => {
                add.push(header_value(name, value, HeaderAppendAction::AppendIfExistsOrAdd));
            }
            HeaderOperation::Remove(name) => remove.push(name.clone()),
        }
    }
    (add, remove)
}

fn header_value(name: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append_action: action.into(),
        keep_empty_value: value.is_empty(),
        ..HeaderValueOption::default()
    }
}
