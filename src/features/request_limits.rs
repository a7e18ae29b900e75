//! `limit-*` and `rate-limit`: requests per client address, counted over all hosts and paths of the Ingress.
//!
//! nginx's `limit_req … burst=N nodelay`: rate plus a burst of rate × multiplier at once, then refused with 503; and
//! `limit_conn`, requests under way. nginx counts in each replica; here the rate limit service counts for all Envoys.

use serde::Serialize;

use super::{Annotation, Feature, Reader};
use crate::values::{Network, Origin};

const RPS: Annotation = Annotation {
    name: "limit-rps",
    value: "whole number; 0 for no limit",
    default: "0",
    example: "10",
    text: "Requests a second that one client address may send to the Ingress; more is answered 503. What is answered \
           without an upstream (redirects, 404 for a path that nobody declares) is not counted.",
    config_map: None,
};
const RPM: Annotation = Annotation {
    name: "limit-rpm",
    value: "whole number; 0 for no limit",
    default: "0",
    example: "100",
    text: "Requests a minute that one client address may send to the Ingress; more is answered 503. It is counted as \
           for limit-rps.",
    config_map: None,
};
const RATE_LIMIT: Annotation = Annotation {
    name: "rate-limit",
    value: "whole number; 0 for no limit",
    default: "0",
    example: "100",
    text: "Requests in any minute that one client address may send to the Ingress, without a burst on top; more is \
           answered 503. ingress-nginx does not know it, though many manifests have it; with limit-rpm it is known there too.",
    config_map: None,
};
const CONNECTIONS: Annotation = Annotation {
    name: "limit-connections",
    value: "whole number; 0 for no limit",
    default: "0",
    example: "5",
    text: "Requests of one client address that may be under way at once; more is answered 503, or with the status of \
           the ConfigMap key limit-conn-status-code. One that takes longer than ten minutes no longer counts, so that \
           those of an Envoy that is gone end.",
    config_map: None,
};
const BURST_MULTIPLIER: Annotation = Annotation {
    name: "limit-burst-multiplier",
    value: "whole number from 1",
    default: "5",
    example: "2",
    text: "Burst of limit-rps and limit-rpm: limit × multiplier requests above the rate are let through at once.",
    config_map: None,
};
const ALLOWLIST: Annotation = Annotation {
    name: "limit-allowlist",
    value: "addresses and networks, separated by commas",
    default: "none",
    example: "10.0.0.0/8,192.0.2.7",
    text: "Client addresses to which these limits do not apply.",
    config_map: None,
};
const WHITELIST: Annotation = Annotation {
    name: "limit-whitelist",
    value: "addresses and networks, separated by commas",
    default: "none",
    example: "10.0.0.0/8",
    text: "The same as limit-allowlist, where that is not given.",
    config_map: None,
};

/// Keys of the ConfigMap that say with which status a limit refuses.
pub const STATUS_KEYS: [&str; 2] = [REQUEST_STATUS, CONNECTION_STATUS];
const REQUEST_STATUS: &str = "limit-req-status-code";
const CONNECTION_STATUS: &str = "limit-conn-status-code";

/// ingress-nginx's own.
const DEFAULT_MULTIPLIER: u32 = 5;
/// ingress-nginx's own.
pub const DEFAULT_STATUS: u16 = 503;

/// Requests per client address.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RequestLimits {
    /// `limit-rps`
    pub per_second: Option<(u32, Origin)>,
    /// `limit-rpm`
    pub per_minute: Option<(u32, Origin)>,
    /// `rate-limit`
    pub in_a_minute: Option<(u32, Origin)>,
    /// `limit-connections`
    pub connections: Option<(u32, Origin)>,
    /// `limit-burst-multiplier`
    pub burst_multiplier: u32,
    /// `limit-allowlist`
    pub exempt: Vec<Network>,
    /// `limit-req-status-code` of the ConfigMap
    pub status: u16,
    /// `limit-conn-status-code` of the ConfigMap
    pub connections_status: u16,
}

impl Feature for RequestLimits {
    const ANNOTATIONS: &'static [Annotation] =
        &[RPS, RPM, RATE_LIMIT, CONNECTIONS, BURST_MULTIPLIER, ALLOWLIST, WHITELIST];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut limit = |annotation| reader.number(annotation).filter(|(limit, _)| *limit > 0);
        let limits = [limit(&RPS), limit(&RPM), limit(&RATE_LIMIT), limit(&CONNECTIONS)];
        let burst_multiplier = reader.parse(&BURST_MULTIPLIER, |text| match text.parse::<u32>() {
            Ok(multiplier) if multiplier > 0 => Ok(multiplier),
            _ => Err(format!("a whole number from 1 to {}", u32::MAX)),
        });
        let lists = [&ALLOWLIST, &WHITELIST].map(|annotation| reader.parse(annotation, Network::list));
        if limits.iter().all(Option::is_none) {
            return None;
        }
        let [per_second, per_minute, in_a_minute, connections] = limits;
        Some(Self {
            per_second,
            per_minute,
            in_a_minute,
            connections,
            burst_multiplier: burst_multiplier.map_or(DEFAULT_MULTIPLIER, |(multiplier, _)| multiplier),
            exempt: lists.into_iter().flatten().next().map(|(networks, _)| networks).unwrap_or_default(),
            status: request_status(reader),
            connections_status: status(reader, CONNECTION_STATUS),
        })
    }
}

/// The status with which `limit_req` refuses, where nothing else says so.
pub fn request_status(reader: &mut Reader<'_>) -> u16 {
    status(reader, REQUEST_STATUS)
}

fn status(reader: &mut Reader<'_>, key: &'static str) -> u16 {
    let read = reader.config_map(key, |text| match text.parse::<u16>() {
        Ok(status) if is_refusal(status) => Ok(status),
        _ => Err(format!("a status that Envoy can refuse with: one of {REFUSALS}")),
    });
    read.unwrap_or(DEFAULT_STATUS)
}

/// The statuses that Envoy's rate limit filter can refuse with, in the words of findings: those that Envoy has names for.
pub const REFUSALS: &str = "400 to 417, 421 to 424, 426, 428, 429, 431, 500 to 508, 510 and 511";

/// Whether Envoy's rate limit filter can refuse with this status.
pub fn is_refusal(status: u16) -> bool {
    matches!(status, 400..=417 | 421..=424 | 426 | 428 | 429 | 431 | 500..=508 | 510 | 511)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody has to find out by trying.
    #[test]
    fn what_can_refuse_is_said() {
        let definition = include_str!("../../manifests/crds/ratelimitpolicies.chancery.dev.yaml");
        let definition = definition.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(definition.contains(REFUSALS));
        let number = |text: &str| text.parse::<u16>().unwrap();
        let said: Vec<_> = REFUSALS
            .split([',', 'd'])
            .map(|part| part.trim_matches([' ', 'a', 'n']))
            .flat_map(|part| match part.split_once(" to ") {
                Some((from, to)) => number(from)..=number(to),
                None => number(part)..=number(part),
            })
            .collect();
        assert_eq!(said, (0..=999).filter(|status| is_refusal(*status)).collect::<Vec<_>>());
    }
}
