//! What policies do to a route, in Envoy's words.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{
    DataSource, HeaderValue, HeaderValueOption, RuntimeFractionalPercent, TypedExtensionConfig,
};
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use envoy_types::pb::envoy::config::route::v3::route::Action as EnvoyAction;
use envoy_types::pb::envoy::config::route::v3::route_action::{HostRewriteSpecifier, RequestMirrorPolicy};
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, FilterConfig, RedirectAction, RetryPolicy, Route as EnvoyRoute, RouteAction,
    VirtualHost,
};
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::FaultDelay;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use envoy_types::pb::envoy::extensions::filters::http::body_size_limit::v3::BodySizeLimit;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use envoy_types::pb::envoy::extensions::filters::http::filter_chain::v3::{
    FilterChain, FilterChainConfigPerRoute,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf::{Any, UInt64Value};

use super::{external_auth, limits, names, proto};
use crate::descriptors::pack;
use crate::features::cors::Cors;
use crate::features::effects::{Answer, Effects, PathRewrite, Redirect, RedirectPath};
use crate::features::fault::{Abort, Fault};
use crate::features::retries::Retries;
use crate::features::rewrite;
use crate::model::{Action, Host, PathMatch, Route};
use crate::values::header::escape_format;
use crate::values::pattern;

const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
const PREVIOUS_PRIORITIES: &str = "envoy.retry_priorities.previous_priorities";
/// After how many tries the priorities that were tried are looked at anew; Istio's number.
const PRIORITIES_UPDATE: i32 = 2;

/// An answer that Envoy gives by itself.
pub(crate) fn answer(route: &mut EnvoyRoute, answer: &Answer) {
    route.action = Some(match answer {
        // Envoy's own redirect has a path, be it `/`, and keeps a port that stands behind the host.
        Answer::Redirect(redirect) if redirect.path == RedirectPath::Nothing || redirect.without_port => {
            let host = match &redirect.host {
                Some(host) => escape_format(host),
                None => names::HOST_WITHOUT_PORT.to_owned(),
            };
            let path = if redirect.path == RedirectPath::Nothing { "" } else { "%REQ(:PATH)%" };
            let location = format!("{}://{host}{path}", redirect.scheme.as_deref().unwrap_or("http"));
            route.response_headers_to_add.push(location_header(location));
            EnvoyAction::DirectResponse(DirectResponseAction {
                status: redirect.status.into(),
                ..DirectResponseAction::default()
            })
        }
        Answer::Redirect(redirect) => EnvoyAction::Redirect(redirect_action(redirect)),
        Answer::Direct { status, body } => {
            let specifier = (!body.is_empty()).then(|| Specifier::InlineBytes(body.clone()));
            EnvoyAction::DirectResponse(DirectResponseAction {
                status: (*status).into(),
                body: specifier
                    .map(|specifier| DataSource { specifier: Some(specifier), ..DataSource::default() }),
                ..DirectResponseAction::default()
            })
        }
    });
}

fn location_header(location: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: "location".to_owned(), value: location, ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

fn redirect_action(redirect: &Redirect) -> RedirectAction {
    let code = match redirect.status {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let path = match &redirect.path {
        RedirectPath::Keep | RedirectPath::Nothing => None,
        RedirectPath::Whole(path) => Some(PathRewriteSpecifier::PathRedirect(path.clone())),
        RedirectPath::WithoutTrailingSlash => {
            Some(PathRewriteSpecifier::RegexRewrite(substitute("^(.*)/$", "\\1")))
        }
        RedirectPath::Regex { pattern, substitution } => {
            Some(PathRewriteSpecifier::RegexRewrite(substitute(pattern, substitution)))
        }
    };
    RedirectAction {
        host_redirect: redirect.host.clone().unwrap_or_default(),
        port_redirect: redirect.port.map(u32::from).unwrap_or_default(),
        response_code: code.into(),
        scheme_rewrite_specifier: redirect.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
        ..RedirectAction::default()
    }
}

/// What most routes of a host have in common, so that it is said once, by the virtual host.
#[derive(Debug, Default)]
pub(crate) struct Common {
    max_request_bytes: u64,
    retry_policy: Option<RetryPolicy>,
}

impl Common {
    /// What the first route that forwards has is taken for what most have.
    pub(crate) fn of(host: &Host) -> Self {
        let forwards = |route: &&Route| matches!(route.action, Action::Forward(_));
        let first = host.routes.iter().find(forwards).map(|route| &route.effects);
        first.map_or_else(Self::default, |effects| Self {
            max_request_bytes: max_request_bytes(effects),
            retry_policy: retry_policy(effects),
        })
    }

    /// Says it.
    pub(crate) fn apply(self, virtual_host: &mut VirtualHost) {
        if self.max_request_bytes > 0 {
            let limit = body_size_limit(self.max_request_bytes);
            virtual_host.typed_per_filter_config.insert(names::BODY_SIZE.to_owned(), limit);
        }
        virtual_host.retry_policy = self.retry_policy;
    }
}

fn max_request_bytes(effects: &Effects) -> u64 {
    effects.max_request_bytes.as_ref().map_or(0, |limit| limit.value)
}

/// What the route's action says: timeouts, retries, rewrites, mirrors.
pub(crate) fn route_action(action: &mut RouteAction, host: &Host, route: &Route, common: &Common) {
    let effects = &route.effects;
    // No setting means no limit: Envoy's own default of 15 seconds would cut long inference calls.
    action.timeout =
        proto::duration(effects.timeout.as_ref().map_or(Duration::ZERO, |timeout| timeout.value));
    grpc_timeout(action, effects);
    action.idle_timeout =
        proto::duration(effects.idle_timeout.as_ref().map_or(Duration::ZERO, |gap| gap.value));
    let retry_policy = retry_policy(effects);
    if retry_policy != common.retry_policy {
        // A route without retries under a virtual host with them needs a policy that says so.
        action.retry_policy = Some(retry_policy.unwrap_or_default());
    }
    if let Some(rewrite) = &effects.path_rewrite {
        path_rewrite(action, &rewrite.value, &route.matches.path);
    }
    if let Some(host) = &effects.host_rewrite {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(host.value.clone()));
    }
    action.request_mirror_policies = route
        .mirrors
        .iter()
        .map(|mirror| {
            let target = &effects.mirrors[mirror.mirror].value;
            RequestMirrorPolicy {
                cluster: host.backends[mirror.backend].name.to_string(),
                runtime_fraction: (target.millionths < 1_000_000).then(|| RuntimeFractionalPercent {
                    default_value: millionths(target.millionths),
                    ..RuntimeFractionalPercent::default()
                }),
                disable_shadow_host_suffix_append: true,
                host_rewrite_literal: target.host_rewrite.clone().unwrap_or_default(),
                ..RequestMirrorPolicy::default()
            }
        })
        .collect();
}

/// Envoy warns that this is deprecated, for each route. `max_stream_duration`, which is meant to replace it, also counts the
/// time that a request takes to come, cuts requests that are no gRPC, has no limit of the route's own beside a client's,
/// and answers with another status. Istio keeps to this one for the same reason.
#[allow(deprecated, reason = "its replacement does something else")]
fn grpc_timeout(action: &mut RouteAction, effects: &Effects) {
    action.max_grpc_timeout =
        effects.grpc_timeout.as_ref().and_then(|timeout| proto::duration(timeout.value));
}

fn retry_policy(effects: &Effects) -> Option<RetryPolicy> {
    let silence = effects.per_try_idle_timeout.as_ref();
    let mut policy = match effects.retries.as_ref() {
        Some(retries) => retries_policy(&retries.value),
        None => {
            silence?;
            RetryPolicy::default()
        }
    };
    policy.per_try_idle_timeout = silence.and_then(|silence| proto::duration(silence.value));
    Some(policy)
}

fn retries_policy(retries: &Retries) -> RetryPolicy {
    let mut policy = RetryPolicy {
        retry_on: retries.on.join(","),
        num_retries: proto::uint32(retries.attempts),
        per_try_timeout: retries.per_try_timeout.and_then(proto::duration),
        retriable_status_codes: retries.statuses.clone(),
        retry_back_off: retries
            .back_off
            .map(|base| RetryBackOff { base_interval: proto::duration(base), ..RetryBackOff::default() }),
        ..RetryPolicy::default()
    };
    if retries.previous_hosts {
        policy.host_selection_retry_max_attempts = 5;
        policy.retry_host_predicate = vec![RetryHostPredicate {
            name: PREVIOUS_HOSTS.to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(
                &PreviousHostsPredicate {},
            ))),
        }];
    }
    if retries.previous_priorities {
        let config = PreviousPrioritiesConfig { update_frequency: PRIORITIES_UPDATE };
        policy.retry_priority = Some(RetryPriority {
            name: PREVIOUS_PRIORITIES.to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(pack(&config))),
        });
    }
    policy
}

fn path_rewrite(action: &mut RouteAction, path_rewrite: &PathRewrite, path: &PathMatch) {
    match path_rewrite {
        // After a regular expression Envoy's `prefix_rewrite` has no prefix to replace.
        PathRewrite::Prefix(to) if matches!(path, PathMatch::Regex(_)) => {
            action.regex_rewrite = Some(substitute("^.*$", &to.replace('\\', "\\\\")));
        }
        PathRewrite::Prefix(to) => action.prefix_rewrite.clone_from(to),
        PathRewrite::Target(target) => {
            let substitution = rewrite::substitution(target, pattern::captures(path.text()));
            action.regex_rewrite = Some(substitute(&rewrite::whole_path(path.text()), &substitution));
        }
        PathRewrite::Regex { pattern, substitution } => {
            action.regex_rewrite = Some(substitute(pattern, substitution));
        }
    }
}

/// What the filters in the chain are told by this route.
pub(crate) fn typed_per_filter_config(route: &mut EnvoyRoute, effects: &Effects, common: &Common) {
    let mut set = |filter: &str, config: Any| {
        route.typed_per_filter_config.insert(filter.to_owned(), config);
    };
    let bytes = max_request_bytes(effects);
    if bytes != common.max_request_bytes {
        let unlimited = || pack(&FilterConfig { disabled: true, ..FilterConfig::default() });
        set(names::BODY_SIZE, if bytes == 0 { unlimited() } else { body_size_limit(bytes) });
    }
    for (filter, config) in limits::per_route(&effects.rate_limits) {
        set(&filter, config);
    }
    route.request_body_buffer_limit = limits::buffer_limit(&effects.rate_limits);
    if let Some(auth) = &effects.external_auth {
        set(names::EXTERNAL_AUTH, external_auth::per_route(&auth.value, &effects.rate_limits));
    }
    if let Some(fault) = &effects.fault {
        set("envoy.filters.http.fault", pack(&http_fault(&fault.value)));
    }
    if let Some(rules) = &effects.cors {
        cors(route, &rules.value);
    }
}

/// What the `cors` filter is told.
pub(crate) fn cors(route: &mut EnvoyRoute, rules: &Cors) {
    let policy = pack(&cors_policy(rules));
    route.typed_per_filter_config.insert("envoy.filters.http.cors".to_owned(), policy);
}

fn body_size_limit(bytes: u64) -> Any {
    let limit = BodySizeLimit { max_request_bytes: Some(UInt64Value { value: bytes }) };
    let filter = TypedExtensionConfig {
        name: "envoy.filters.http.body_size_limit".to_owned(),
        typed_config: Some(pack(&limit)),
    };
    pack(&FilterChainConfigPerRoute { filter_chain: Some(FilterChain { filters: vec![filter] }) })
}

fn http_fault(fault: &Fault) -> HttpFault {
    HttpFault {
        delay: fault.delay.map(|(delay, share)| FaultDelay {
            fault_delay_secifier: proto::duration(delay).map(FaultDelaySecifier::FixedDelay),
            percentage: millionths(share),
        }),
        abort: fault.abort.map(|(abort, share)| FaultAbort {
            error_type: Some(match abort {
                Abort::Http(status) => ErrorType::HttpStatus(status),
                Abort::Grpc(status) => ErrorType::GrpcStatus(status),
            }),
            percentage: millionths(share),
            ..FaultAbort::default()
        }),
        ..HttpFault::default()
    }
}

fn cors_policy(cors: &Cors) -> CorsPolicy {
    CorsPolicy {
        allow_origin_string_match: cors.origins.iter().filter_map(proto::string_matcher).collect(),
        allow_methods: cors.methods.join(","),
        allow_headers: cors.headers.join(","),
        expose_headers: cors.expose_headers.join(","),
        max_age: cors.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: cors.credentials.and_then(proto::boolean),
        forward_not_matching_preflights: cors.forward_unmatched_preflights.and_then(proto::boolean),
        ..CorsPolicy::default()
    }
}

fn millionths(share: u32) -> Option<FractionalPercent> {
    Some(FractionalPercent { numerator: share, denominator: DenominatorType::Million.into() })
}

fn substitute(pattern: &str, substitution: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(proto::regex(pattern)), substitution: substitution.to_owned() }
}
