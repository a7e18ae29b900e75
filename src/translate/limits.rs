//! Limits to Envoy's rate limit filters.
//!
//! What a refusal looks like is the filter's, not the route's. So the usual answers are filters that stand in every
//! chain and ask for nothing unless a route tells them what to count. Any other answer is a filter that the route
//! brings along, which `ratelimit-others` runs `late`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{
    GrpcService, HeaderValue, HeaderValueOption, TypedExtensionConfig, grpc_service,
};
use envoy_types::pb::envoy::config::ratelimit::v3::RateLimitServiceConfig;
use envoy_types::pb::envoy::config::route::v3::RateLimit;
use envoy_types::pb::envoy::config::route::v3::rate_limit::action::{
    ActionSpecifier, GenericKey, RemoteAddress, RemoteAddressMatch,
};
use envoy_types::pb::envoy::config::route::v3::rate_limit::{Action, HitsAddend};
use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3::rate_limit::XRateLimitHeadersRfcVersion;
use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3::{
    RateLimit as RateLimitFilter, RateLimitPerRoute,
};
use envoy_types::pb::envoy::r#type::matcher::v3::AddressMatcher;
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{Any, UInt64Value};
use envoy_types::pb::xds::core::v3::CidrRange;

use super::{cost, jwt, late, names, proto};
use crate::descriptors::pack;
use crate::features::effects::{Refusal, RouteLimit};
use crate::model::limit;
use crate::values::header::escape_format;
use crate::values::{LimitKey, Network, pattern};

/// How long Envoy waits for the service.
const TIMEOUT: std::time::Duration = std::time::Duration::from_millis(100);
/// What requests are answered that must not be let through while the service cannot be asked.
const UNAVAILABLE: i32 = 503;

/// The filters that stand in every chain, by name: before other services are asked, or after.
pub(crate) fn standing(untold: bool, after_auth: bool) -> Vec<(String, Any)> {
    let with = |fail_closed| {
        let status = move |status: &u16| Refusal { fail_closed, untold, ..Refusal::status(*status) };
        Refusal::usual(after_auth).iter().map(status)
    };
    let named =
        |refusal: Refusal| (name(&refusal, after_auth), pack(&filter(&refusal, after_auth, Vec::new())));
    with(false).chain(with(true)).map(named).collect()
}

/// The filter that runs those with other answers.
pub(crate) fn others(after_auth: bool) -> &'static str {
    if after_auth { names::RATE_LIMIT_OTHERS_AFTER_AUTH } else { names::RATE_LIMIT_OTHERS }
}

/// The most that Envoy may keep of a body on a route with these limits, if they say.
pub(crate) fn buffer_limit(limits: &[RouteLimit]) -> Option<UInt64Value> {
    cost::buffer_limit(limits)
}

/// What the filters in the chain are told by a route with these limits.
pub(crate) fn per_route(limits: &[RouteLimit]) -> Vec<(String, Any)> {
    let (after, before): (Vec<_>, Vec<_>) = limits.iter().partition(|limit| limit.after_auth);
    let providers = jwt::Providers::of(limits);
    let tokens = jwt::per_route(limits, &providers).map(|config| (names::JWT.to_owned(), config));
    let mut told = at_place(&before, false, &providers, cost::readers(limits));
    told.extend(at_place(&after, true, &providers, Vec::new()));
    told.extend(tokens);
    told
}

/// The same of the filters before other services are asked, or after. `chain` is what goes before those with other answers.
fn at_place(
    limits: &[&RouteLimit],
    after_auth: bool,
    providers: &jwt::Providers<'_>,
    mut chain: Vec<TypedExtensionConfig>,
) -> Vec<(String, Any)> {
    let mut firsts: Vec<&RouteLimit> = Vec::new();
    for limit in limits {
        if firsts.iter().all(|first| first.refusal != limit.refusal) {
            firsts.push(limit);
        }
    }
    let mut told = Vec::new();
    for first in firsts {
        let refusal = &first.refusal;
        let counted = limits.iter().filter(|limit| limit.refusal == *refusal);
        let rate_limits = counted.flat_map(|limit| descriptors(limit, providers)).collect();
        if first.is_usual() {
            let config = RateLimitPerRoute { rate_limits, ..RateLimitPerRoute::default() };
            told.push((name(refusal, after_auth), pack(&config)));
        } else {
            chain.push(TypedExtensionConfig {
                name: format!("{}-{}", others(after_auth), chain.len()),
                typed_config: Some(pack(&filter(refusal, after_auth, rate_limits))),
            });
        }
    }
    if !chain.is_empty() {
        told.push((others(after_auth).to_owned(), late::per_route(chain)));
    }
    told
}

fn name(refusal: &Refusal, after_auth: bool) -> String {
    let closed = if refusal.fail_closed { "-closed" } else { "" };
    let after = if after_auth { "-after-auth" } else { "" };
    format!("ratelimit-{}{closed}{after}", refusal.status)
}

fn filter(refusal: &Refusal, after_auth: bool, rate_limits: Vec<RateLimit>) -> RateLimitFilter {
    let service = grpc_service::EnvoyGrpc {
        cluster_name: names::RATE_LIMIT_CLUSTER.to_owned(),
        ..grpc_service::EnvoyGrpc::default()
    };
    // nginx says nothing of how much is left.
    let told = !refusal.untold && refusal.status != 503;
    let headers = match told {
        false => XRateLimitHeadersRfcVersion::Off,
        true => XRateLimitHeadersRfcVersion::DraftVersion03,
    };
    RateLimitFilter {
        domain: limit::DOMAIN.to_owned(),
        stat_prefix: name(refusal, after_auth),
        timeout: proto::duration(TIMEOUT),
        failure_mode_deny: refusal.fail_closed,
        status_on_error: refusal.fail_closed.then_some(HttpStatus { code: UNAVAILABLE }),
        disable_x_envoy_ratelimited_header: true,
        enable_x_ratelimit_headers: headers.into(),
        // Envoy says so beside a 429 alone.
        enable_retry_after_header: told && refusal.status == 429,
        rate_limited_status: (refusal.status != 429).then(|| HttpStatus { code: refusal.status.into() }),
        response_headers_to_add: refusal.headers.iter().map(header).collect(),
        rate_limit_service: Some(RateLimitServiceConfig {
            transport_api_version: proto::api_version(),
            grpc_service: Some(GrpcService {
                target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(service)),
                ..GrpcService::default()
            }),
        }),
        rate_limits,
        ..RateLimitFilter::default()
    }
}

fn header((name, value): &(String, String)) -> HeaderValueOption {
    let value = escape_format(value);
    HeaderValueOption {
        header: Some(HeaderValue { key: name.clone(), value, ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

/// One descriptor: which limit, and what it counts by; and one more for each thing that is taken or given back when the
/// request ends, be it that it was refused. `model::limit` says why so.
fn descriptors(limit: &RouteLimit, providers: &jwt::Providers<'_>) -> Vec<RateLimit> {
    let entries = |which: &str| {
        let which = generic(which, limit.id.to_string());
        let mut tokens = limit.tokens.iter();
        let by = limit.key.parts().iter().map(|key| match key {
            LimitKey::Jwt(of) => {
                let value = tokens.next().map(|token| providers.value(token, &of.claim));
                formatted(limit::KEY_ENTRY, value.unwrap_or_default())
            }
            key => action(key, &limit.exempt),
        });
        let told = limit.told.iter().map(|header| formatted(limit::TOLD_ENTRY, told(header)));
        let actions = std::iter::once(which).chain(by).chain(told);
        let actions = actions.map(|specifier| Action { action_specifier: Some(specifier) }).collect();
        RateLimit { actions, ..RateLimit::default() }
    };
    let at_end = |which: &str, hits: HitsAddend| RateLimit {
        apply_on_stream_done: true,
        hits_addend: Some(hits),
        ..entries(which)
    };
    let mut all = vec![RateLimit { hits_addend: cost::at_start(&limit.cost), ..entries(limit::LIMIT_ENTRY) }];
    if limit.under_way {
        let one = HitsAddend {
            number: Some(UInt64Value { value: 1 }),
            is_negative_hits: true,
            ..HitsAddend::default()
        };
        all.push(at_end(limit::LIMIT_ENTRY, one));
    }
    let settled = cost::at_end(&limit.cost);
    all.extend(settled.into_iter().map(|hits| at_end(limit::SETTLE_ENTRY, hits)));
    all
}

/// The entry of a key. Where it has no value, or an empty one, the descriptor is dropped.
fn action(key: &LimitKey, exempt: &[Network]) -> ActionSpecifier {
    let value = match key {
        LimitKey::ClientAddress if exempt.is_empty() => {
            return ActionSpecifier::RemoteAddress(RemoteAddress {});
        }
        LimitKey::ClientAddress => return counted_address(exempt),
        LimitKey::Generic(name) => return generic(limit::KEY_ENTRY, name.to_string()),
        LimitKey::Header(name) => format!("%REQ({name})%"),
        LimitKey::Cookie(name) => cookie(name),
        LimitKey::Query(name) => format!("%QUERY_PARAM({name})%"),
        LimitKey::Path => "%PATH(NQ)%".to_owned(),
        LimitKey::Method => "%REQ(:METHOD)%".to_owned(),
        LimitKey::Several(_) | LimitKey::Jwt(_) => String::new(),
    };
    formatted(limit::KEY_ENTRY, value)
}

/// A rate that there may be none of. No form of one is as long as what is kept.
fn told(header: &str) -> String {
    format!("=%REQ({header}):32%")
}

/// Envoy has no formatter for cookies. Of several of a name the first counts. Several headers are joined by commas here; spaces
/// around a value are no part of it.
fn cookie(name: &str) -> String {
    let found = format!(r"(?:^|[;,] *){}=\s*([^;,]*[^;,\s])", pattern::escape(name));
    format!("%CEL(re.extract(request.headers[\"cookie\"], r\"{found}\", r\"\\1\"))%")
}

/// An entry whose value is a format string. Of all actions this is the one that reads such a string without a runtime flag,
/// so it is told to match every address.
fn formatted(key: &str, value: String) -> ActionSpecifier {
    let everyone = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let everyone = everyone.map(|address| range(&Network { address, bits: 0 }));
    ActionSpecifier::RemoteAddressMatch(RemoteAddressMatch {
        descriptor_key: key.to_owned(),
        descriptor_value: value,
        address_matcher: Some(AddressMatcher { ranges: everyone.to_vec(), invert_match: false }),
        ..RemoteAddressMatch::default()
    })
}

fn generic(key: &str, value: String) -> ActionSpecifier {
    ActionSpecifier::GenericKey(GenericKey {
        descriptor_key: key.to_owned(),
        descriptor_value: value,
        ..GenericKey::default()
    })
}

/// The client's address, unless it is exempt. The entry is that of `remote_address`, so that counters outlive a change
/// of who is.
fn counted_address(exempt: &[Network]) -> ActionSpecifier {
    ActionSpecifier::RemoteAddressMatch(RemoteAddressMatch {
        descriptor_key: "remote_address".to_owned(),
        descriptor_value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%".to_owned(),
        address_matcher: Some(AddressMatcher {
            ranges: exempt.iter().map(range).collect(),
            invert_match: true,
        }),
        ..RemoteAddressMatch::default()
    })
}

fn range(network: &Network) -> CidrRange {
    CidrRange { address_prefix: network.address.to_string(), prefix_len: proto::uint32(network.bits.into()) }
}
