//! `canary`: an Ingress whose backend takes a share of another Ingress's requests for the same host and path.
//!
//! Order of decision, as in ingress-nginx: header, then cookie, then weight. Whatever a header or cookie does not
//! decide falls through to the next.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Annotation, Feature, Reader};
use crate::values::{Origin, boolean, header, pattern};

const CANARY: Annotation = Annotation {
    name: "canary",
    value: "\"true\" or \"false\"",
    default: "false",
    example: "true",
    text: "Makes the Ingress an alternative backend of the Ingress that has the same host and path.",
    config_map: None,
};
const WEIGHT: Annotation = Annotation {
    name: "canary-weight",
    value: "whole number from 0 to canary-weight-total",
    default: "0",
    example: "10",
    text: "Share of requests that go to the canary, out of canary-weight-total.",
    config_map: None,
};
const WEIGHT_TOTAL: Annotation = Annotation {
    name: "canary-weight-total",
    value: "whole number; less than 100 counts as 100",
    default: "100",
    example: "1000",
    text: "What canary-weight is a share of.",
    config_map: None,
};
const BY_HEADER: Annotation = Annotation {
    name: "canary-by-header",
    value: "header name",
    default: "none",
    example: "X-Canary",
    text: "A request whose header is `always` goes to the canary, with `never` to the main backend.",
    config_map: None,
};
const BY_HEADER_VALUE: Annotation = Annotation {
    name: "canary-by-header-value",
    value: "header value",
    default: "none",
    example: "beta",
    text: "Only this value of the canary-by-header header goes to the canary; `always` and `never` lose their meaning.",
    config_map: None,
};
const BY_HEADER_PATTERN: Annotation = Annotation {
    name: "canary-by-header-pattern",
    value: "regular expression",
    default: "none",
    example: "^beta-[0-9]+$",
    text: "Values of the canary-by-header header that match go to the canary; not used beside canary-by-header-value.",
    config_map: None,
};
const BY_COOKIE: Annotation = Annotation {
    name: "canary-by-cookie",
    value: "cookie name",
    default: "none",
    example: "canary",
    text: "A request whose cookie is `always` goes to the canary, with `never` to the main backend.",
    config_map: None,
};

/// An alternative backend's share.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Canary {
    /// Requests out of `total` that no header or cookie decided.
    pub weight: u32,
    /// What `weight` is a share of; at least 100.
    pub total: u32,
    /// The header that decides, and how.
    pub header: Option<(String, HeaderRule)>,
    /// The cookie that decides by `always` and `never`.
    pub cookie: Option<String>,
    /// The `canary` annotation.
    pub origin: Origin,
}

/// How the header decides.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum HeaderRule {
    /// `always` to the canary, `never` to the main backend.
    AlwaysNever,
    /// This value to the canary.
    Value(String),
    /// Values in which this regular expression matches somewhere to the canary.
    Pattern(String),
    /// A pattern that does not compile: ingress-nginx sends every request that has the header to the main backend.
    BrokenPattern,
}

impl Canary {
    /// Whether the annotations make an Ingress a canary, whatever else they say.
    pub fn is_canary(annotations: Option<&BTreeMap<String, String>>) -> bool {
        let value = annotations.and_then(|annotations| annotations.get(&CANARY.key()));
        value.is_some_and(|value| boolean::parse(value) == Ok(true))
    }
}

impl Feature for Canary {
    const ANNOTATIONS: &'static [Annotation] =
        &[CANARY, WEIGHT, WEIGHT_TOTAL, BY_HEADER, BY_HEADER_VALUE, BY_HEADER_PATTERN, BY_COOKIE];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let canary = reader.boolean(&CANARY);
        let weight = reader.number(&WEIGHT);
        let total = reader.number(&WEIGHT_TOTAL).map_or(100, |(total, _)| total.max(100));
        let value = reader.text(&BY_HEADER_VALUE);
        let pattern = reader.text(&BY_HEADER_PATTERN);
        let name = reader.parse(&BY_HEADER, |text| {
            // nginx takes `_` for `-`; headers that are sent with `_` are dropped before.
            if header::is_name(text) {
                Ok(text.to_ascii_lowercase().replace('_', "-"))
            } else {
                Err("a header name")
            }
        });
        let cookie = reader.parse(&BY_COOKIE, |text| {
            if header::is_name(text) { Ok(text.to_owned()) } else { Err("a cookie name") }
        });
        let Some((true, origin)) = canary else {
            let given = [
                &weight.as_ref().map(|w| &w.1),
                &name.as_ref().map(|n| &n.1),
                &cookie.as_ref().map(|c| &c.1),
            ];
            if let Some(origin) = given.into_iter().flatten().next() {
                let message = "has no effect without canary: \"true\"; the Ingress is served as any other";
                reader.warn(origin, "CanaryDisabled", message);
            }
            return None;
        };
        let rule = header_rule(reader, value, pattern);
        let weight = weight.map_or(0, |(weight, origin)| {
            if weight > total {
                reader.warn(
                    &origin,
                    "WeightAboveTotal",
                    format!("{weight} is more than the total {total}; all requests go to the canary"),
                );
            }
            weight.min(total)
        });
        Some(Self {
            weight,
            total,
            header: name.map(|(name, _)| (name, rule)),
            cookie: cookie.map(|(cookie, _)| cookie),
            origin,
        })
    }
}

/// A value beats a pattern, and an empty one of either is none.
fn header_rule(
    reader: &mut Reader<'_>,
    value: Option<(String, Origin)>,
    pattern: Option<(String, Origin)>,
) -> HeaderRule {
    match (value, pattern) {
        (Some((value, _)), _) if !value.is_empty() => HeaderRule::Value(value),
        (_, Some((regex, origin))) if !regex.is_empty() => match pattern::check(&regex) {
            Ok(()) => HeaderRule::Pattern(regex),
            Err(error) => {
                let message = format!(
                    "{regex:?} is not a regular expression that RE2 accepts: {error}; requests with the header go to \
                     the main backend"
                );
                reader.error(&origin, "InvalidRegex", message);
                HeaderRule::BrokenPattern
            }
        },
        _ => HeaderRule::AlwaysNever,
    }
}
