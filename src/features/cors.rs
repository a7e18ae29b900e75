//! Cross-origin rules, by Envoy's `cors` filter.

use std::time::Duration;

use serde::Serialize;

use super::effects::set;
use super::field::text_match;
use super::{Effects, Field};
use crate::crd::virtual_service::{CorsPolicy, HttpRoute};
use crate::values::matching::TextMatch;
use crate::values::{duration, header};

/// What `Access-Control-*` headers say.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// Origins that are allowed.
    pub origins: Vec<TextMatch>,
    /// `Access-Control-Allow-Methods`
    pub methods: Vec<String>,
    /// `Access-Control-Allow-Headers`
    pub headers: Vec<String>,
    /// `Access-Control-Expose-Headers`
    pub expose_headers: Vec<String>,
    /// `Access-Control-Max-Age`, in whole seconds.
    pub max_age: Option<Duration>,
    /// `Access-Control-Allow-Credentials`
    pub credentials: Option<bool>,
    /// Whether a preflight whose origin is not allowed goes to the upstream.
    pub forward_unmatched_preflights: Option<bool>,
}

impl Cors {
    /// Whether every origin is allowed: Envoy compares `*` as it does the request's origin.
    pub fn allows_any(&self) -> bool {
        let any = |origin: &TextMatch| matches!(origin, TextMatch::Exact(text) | TextMatch::Prefix(text) if text == "*");
        self.origins.iter().any(any)
    }
}

/// VirtualService's `corsPolicy`.
pub fn from_rule(rule: &HttpRoute, field: &mut Field<'_>, effects: &mut Effects) {
    let Some(policy) = &rule.cors_policy else { return };
    let mut field = field.child("corsPolicy");
    let cors = Cors {
        origins: origins(policy, &mut field),
        methods: tokens(policy.allow_methods.as_deref(), &mut field.child("allowMethods")),
        headers: tokens(policy.allow_headers.as_deref(), &mut field.child("allowHeaders")),
        expose_headers: tokens(policy.expose_headers.as_deref(), &mut field.child("exposeHeaders")),
        max_age: policy.max_age.as_deref().and_then(|text| max_age(text, &mut field.child("maxAge"))),
        credentials: policy.allow_credentials,
        forward_unmatched_preflights: preflights(policy, &mut field.child("unmatchedPreflights")),
    };
    set(&mut effects.cors, cors, field.origin());
}

/// `allowOrigins`, else the deprecated `allowOrigin`. An origin that cannot be read is not allowed.
fn origins(policy: &CorsPolicy, field: &mut Field<'_>) -> Vec<TextMatch> {
    let Some(origins) = &policy.allow_origins else {
        return policy.allow_origin.iter().flatten().map(|origin| TextMatch::Exact(origin.clone())).collect();
    };
    let mut field = field.child("allowOrigins");
    let mut readable = Vec::with_capacity(origins.len());
    for (index, origin) in origins.iter().enumerate() {
        let problem = match text_match(origin) {
            Ok(TextMatch::Present) => "needs exact, prefix or regex".to_owned(),
            Ok(origin) => {
                readable.push(origin);
                continue;
            }
            Err(problem) => problem,
        };
        field.item(index).error("InvalidOrigin", format!("{problem}; the origin is not allowed"));
    }
    readable
}

fn tokens(names: Option<&[String]>, field: &mut Field<'_>) -> Vec<String> {
    let mut readable = Vec::new();
    for (index, name) in names.into_iter().flatten().enumerate() {
        if header::is_name(name) {
            readable.push(name.clone());
        } else {
            field.item(index).error("InvalidName", format!("{name:?} is not a name; it is left out"));
        }
    }
    readable
}

fn max_age(text: &str, field: &mut Field<'_>) -> Option<Duration> {
    match duration::parse(text) {
        Ok(age) if age.subsec_nanos() == 0 => Some(age),
        _ => {
            field.error(
                "InvalidDuration",
                format!("{text:?} is not a duration in whole seconds; it has no effect"),
            );
            None
        }
    }
}

/// None leaves it to Envoy, which forwards them.
fn preflights(policy: &CorsPolicy, field: &mut Field<'_>) -> Option<bool> {
    match policy.unmatched_preflights.as_deref()? {
        "UNSPECIFIED" => None,
        "FORWARD" => Some(true),
        "IGNORE" => Some(false),
        other => {
            let message = format!("{other:?} is not FORWARD or IGNORE; such preflights go to the upstream");
            field.error("InvalidValue", message);
            None
        }
    }
}
