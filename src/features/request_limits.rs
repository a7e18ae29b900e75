//! `limit-rps`, `limit-rpm`, `limit-burst-multiplier`: requests per client address, counted over all hosts and paths
//! of the Ingress.
//!
//! nginx's `limit_req … burst=N nodelay`: rate plus a burst of rate × multiplier at once, then refused with 503.
//! nginx counts in each replica; here the rate limit service counts for all Envoys.

use serde::Serialize;

use super::{Annotation, Feature, Reader};
use crate::values::Origin;

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
const BURST_MULTIPLIER: Annotation = Annotation {
    name: "limit-burst-multiplier",
    value: "whole number from 1",
    default: "5",
    example: "2",
    text: "Burst of limit-rps and limit-rpm: limit × multiplier requests above the rate are let through at once.",
    config_map: None,
};

/// ingress-nginx's own.
const DEFAULT_MULTIPLIER: u32 = 5;

/// Requests per client address.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct RequestLimits {
    /// `limit-rps`
    pub per_second: Option<(u32, Origin)>,
    /// `limit-rpm`
    pub per_minute: Option<(u32, Origin)>,
    /// `limit-burst-multiplier`
    pub burst_multiplier: u32,
}

impl Feature for RequestLimits {
    const ANNOTATIONS: &'static [Annotation] = &[RPS, RPM, BURST_MULTIPLIER];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let per_second = reader.number(&RPS).filter(|(limit, _)| *limit > 0);
        let per_minute = reader.number(&RPM).filter(|(limit, _)| *limit > 0);
        let burst_multiplier = reader.parse(&BURST_MULTIPLIER, |text| match text.parse::<u32>() {
            Ok(multiplier) if multiplier > 0 => Ok(multiplier),
            _ => Err("a whole number from 1"),
        });
        (per_second.is_some() || per_minute.is_some()).then_some(Self {
            per_second,
            per_minute,
            burst_multiplier: burst_multiplier.map_or(DEFAULT_MULTIPLIER, |(multiplier, _)| multiplier),
        })
    }
}
