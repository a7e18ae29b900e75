//! `RateLimitPolicy`: limits for the routes of another object.
//!
//! ```yaml
//! apiVersion: chancery.dev/v1alpha1
//! kind: RateLimitPolicy
//! metadata: {name: api-quota, namespace: shop}
//! spec:
//!   targetRef: {kind: Ingress, name: api}
//!   limits:
//!   - key: {header: x-api-key}
//!     requests: 5
//!     window: 1m
//!     windows: [{requests: 100, window: 1d}]
//!     plans:
//!     - {name: pro, prefix: pro_, requests: 100, window: 1m}
//!   - key: {clientAddress: {}}
//!     requests: 100
//!     window: 1s
//!   answer: {status: 429, headers: {x-reason: quota}}
//!   failureMode: closed
//! ```
//!
//! Fields that are not known are kept, for whoever resolves the policy to report; [`RateLimitPolicySpec::unknown_paths`]
//! names them all.

use std::collections::BTreeMap;

use http::HeaderName;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Fields that are not known, by name.
pub type UnknownFields = BTreeMap<String, Value>;

/// Limits the requests to the object in the same namespace that `targetRef` names.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "chancery.dev", version = "v1alpha1", kind = "RateLimitPolicy", namespaced)]
#[kube(shortname = "rlp", derive = "PartialEq", doc = "Limits for the routes of another object.")]
#[kube(printcolumn = r#"{"name": "Kind", "type": "string", "jsonPath": ".spec.targetRef.kind"}"#)]
#[kube(printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.targetRef.name"}"#)]
#[kube(printcolumn = r#"{"name": "Requests", "type": "string", "jsonPath": ".spec.limits[*].requests"}"#)]
#[kube(printcolumn = r#"{"name": "Window", "type": "string", "jsonPath": ".spec.limits[*].window"}"#)]
#[kube(printcolumn = r#"{"name": "Shadow", "type": "boolean", "jsonPath": ".spec.shadow", "priority": 1}"#)]
#[kube(printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitPolicySpec {
    /// The object whose routes are limited.
    pub target_ref: TargetRef,
    /// The limits. A request is let through if all of them allow it.
    #[schemars(length(min = 1, max = 64))]
    pub limits: Vec<PolicyLimit>,
    /// Whether requests are counted and none is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// What becomes of requests while the rate limit service, or the Redis that it shares counters in, cannot be asked:
    /// `open` lets them through, `closed` answers them 503, `local` has each replica of the service count by itself, and
    /// lets them through where there is none. Without it the service does as it was told to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["open", "closed", "local"]))]
    pub failure_mode: Option<String>,
    /// What a request above a limit is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<PolicyAnswer>,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// An object in the policy's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// `Ingress` or `VirtualService`.
    #[schemars(extend("enum" = ["Ingress", "VirtualService"]))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The one host of it, as it is written there, whose routes are limited; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// The one route of it that is limited: of an Ingress the path, of a VirtualService the name of the `http` rule; all
    /// without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub route: Option<String>,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// So many requests in a window of time, for each key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyLimit {
    /// What requests are told apart by.
    pub key: PolicyKey,
    /// What they are told apart by beside that: each combination of values is counted by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub and: Vec<PolicyKey>,
    /// Requests that a key may make in a window. A window of a minute or more slides: any that long counts. A shorter one
    /// begins with the key's first request.
    pub requests: u32,
    /// The length of the window: a whole number and `s`, `m`, `h` or `d`, such as `90s` or `1h`.
    #[schemars(regex(pattern = r"^[1-9][0-9]*(s|m|h|d)$"))]
    pub window: String,
    /// Further windows: a request is let through if all of them allow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub windows: Vec<PolicyWindow>,
    /// Other numbers for some values of the key. The first plan that has a value counts, and what no plan has is counted by
    /// the limit's own numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub plans: Vec<PolicyPlan>,
    /// Whether requests are counted and none is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// A further window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyWindow {
    /// Requests that a key may make in the window.
    pub requests: u32,
    /// The length of the window.
    #[schemars(regex(pattern = r"^[1-9][0-9]*(s|m|h|d)$"))]
    pub window: String,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// Other numbers for the keys whose value begins with `prefix`, or is matched as a whole by `regex`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.prefix) != has(self.regex)", "message": "a plan has one of prefix and regex"},
]))]
pub struct PolicyPlan {
    /// Its name, for people.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What the values of its keys begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub prefix: Option<String>,
    /// A regular expression (RE2) of the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub regex: Option<String>,
    /// Requests that a key may make in a window.
    pub requests: u32,
    /// The length of the window.
    #[schemars(regex(pattern = r"^[1-9][0-9]*(s|m|h|d)$"))]
    pub window: String,
    /// Further windows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub windows: Vec<PolicyWindow>,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// What a request above a limit is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAnswer {
    /// The status: one from 400 to 599 that is registered. 429 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub status: Option<u16>,
    /// Headers and their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub headers: BTreeMap<String, String>,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// Exactly one of these. A request that lacks what it is counted by is answered with 401.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct PolicyKey {
    /// The value of this request header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The value of this cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// The value of this query parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The address of the client: `{}`, or `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub client_address: Option<Value>,
    /// The path without the query: `{}`, or `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub path: Option<Value>,
    /// The method: `{}`, or `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub method: Option<Value>,
    /// Nothing: all requests are counted together, under this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub generic: Option<String>,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// The one key that a [`PolicyKey`] means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChoice {
    /// The address of the client.
    ClientAddress,
    /// The value of this header, whose name is in lower case.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The value of this query parameter.
    Query(String),
    /// The path.
    Path,
    /// The method.
    Method,
    /// All requests, under this name.
    Generic(String),
}

/// The keys that there are.
const KEYS: &str =
    "a key is one of `header`, `cookie`, `query`, `clientAddress`, `path`, `method` and `generic`";

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It says nothing, or says two things.
    #[error("{KEYS}")]
    NotOne,
    /// It says something that is not known.
    #[error("`{0}` is no key that is known; {KEYS}")]
    Unknown(String),
    /// It says `clientAddress` or the like, and then something else than that it is.
    #[error("`{0}` is `{{}}` or `true`")]
    Marker(&'static str),
    /// The header's name is not one.
    #[error("`{0}` is not the name of a header")]
    HeaderName(String),
    /// A name that is not one.
    #[error("`{1}` is not a name of a {0}: write letters, digits, `-`, `_` and `.`")]
    Name(&'static str, String),
}

/// A window that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It is not written like a window.
    #[error("`{0}` is not a window: write a whole number and `s`, `m`, `h` or `d`, such as `90s` or `1h`")]
    Malformed(String),
    /// It is too short.
    #[error("a window of `{0}` lets nothing through: it must be longer than no time")]
    Zero(String),
    /// It is too long.
    #[error("`{0}` is longer than the longest window, 366 days")]
    TooLong(String),
}

impl PolicyKey {
    /// The one key that is meant.
    ///
    /// # Errors
    /// When it is not exactly one that is known, or not well formed.
    pub fn choose(&self) -> Result<KeyChoice, KeyError> {
        if let Some(name) = self.unknown.keys().next() {
            return Err(KeyError::Unknown(name.clone()));
        }
        let named = [("cookie", &self.cookie), ("query", &self.query), ("generic", &self.generic)];
        let named = named.into_iter().filter_map(|(kind, name)| Some(named_key(kind, name.as_deref()?)));
        let marked = [
            ("clientAddress", &self.client_address, KeyChoice::ClientAddress),
            ("path", &self.path, KeyChoice::Path),
            ("method", &self.method, KeyChoice::Method),
        ];
        let marked = marked.into_iter().filter_map(|(kind, marker, choice)| {
            Some(if is_marker(marker.as_ref()?) { Ok(choice) } else { Err(KeyError::Marker(kind)) })
        });
        let mut given = self.header.as_deref().map(header_key).into_iter().chain(named).chain(marked);
        match (given.next(), given.next()) {
            (Some(key), None) => key,
            _ => Err(KeyError::NotOne),
        }
    }
}

fn header_key(name: &str) -> Result<KeyChoice, KeyError> {
    let parsed = HeaderName::from_bytes(name.as_bytes());
    parsed
        .map(|name| KeyChoice::Header(name.as_str().to_owned()))
        .map_err(|_| KeyError::HeaderName(name.to_owned()))
}

fn named_key(kind: &'static str, name: &str) -> Result<KeyChoice, KeyError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 63 || !name.bytes().all(is_plain) {
        return Err(KeyError::Name(kind, name.to_owned()));
    }
    let name = name.to_owned();
    Ok(match kind {
        "cookie" => KeyChoice::Cookie(name),
        "query" => KeyChoice::Query(name),
        _ => KeyChoice::Generic(name),
    })
}

fn is_marker(value: &Value) -> bool {
    match value {
        Value::Bool(given) => *given,
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// So many requests in so many milliseconds.
pub type Quota = (u32, u64);

/// All windows, the first one first.
fn quotas(requests: u32, window: &str, windows: &[PolicyWindow]) -> Result<Vec<Quota>, WindowError> {
    let first = parse_window(window).map(|window_ms| (requests, window_ms));
    let further = windows.iter().map(|further| Ok((further.requests, parse_window(&further.window)?)));
    std::iter::once(first).chain(further).collect()
}

impl PolicyLimit {
    /// Its windows, of which there is at least one.
    ///
    /// # Errors
    /// See [`parse_window`].
    pub fn quotas(&self) -> Result<Vec<Quota>, WindowError> {
        quotas(self.requests, &self.window, &self.windows)
    }
}

impl PolicyPlan {
    /// Its windows, of which there is at least one.
    ///
    /// # Errors
    /// See [`parse_window`].
    pub fn quotas(&self) -> Result<Vec<Quota>, WindowError> {
        quotas(self.requests, &self.window, &self.windows)
    }
}

impl RateLimitPolicySpec {
    /// The paths of all fields that are not known, from the object's root, such as `spec.limits[0].burst`. What
    /// stands in a key is not among them: [`PolicyKey::choose`] refuses it.
    #[must_use]
    pub fn unknown_paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.unknown.keys().map(|name| format!("spec.{name}")).collect();
        paths.extend(self.target_ref.unknown.keys().map(|name| format!("spec.targetRef.{name}")));
        let answer = self.answer.iter().flat_map(|answer| answer.unknown.keys());
        paths.extend(answer.map(|name| format!("spec.answer.{name}")));
        for (at, limit) in self.limits.iter().enumerate() {
            let mut add = |below: String, unknown: &UnknownFields| {
                paths.extend(unknown.keys().map(|name| format!("spec.limits[{at}]{below}.{name}")));
            };
            add(String::new(), &limit.unknown);
            for (at, window) in limit.windows.iter().enumerate() {
                add(format!(".windows[{at}]"), &window.unknown);
            }
            for (at, plan) in limit.plans.iter().enumerate() {
                add(format!(".plans[{at}]"), &plan.unknown);
                for (window_at, window) in plan.windows.iter().enumerate() {
                    add(format!(".plans[{at}].windows[{window_at}]"), &window.unknown);
                }
            }
        }
        paths
    }
}

/// The milliseconds of a window: a whole number and `s`, `m`, `h` or `d`, from a second to 366 days.
///
/// # Errors
/// When it is anything else; the error says what to write.
pub fn parse_window(text: &str) -> Result<u64, WindowError> {
    const DAY_MS: u64 = 86_400_000;
    let malformed = || WindowError::Malformed(text.into());
    let unit_ms = match text.chars().last() {
        Some('s') => 1_000,
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => DAY_MS,
        _ => return Err(malformed()),
    };
    let number = &text[..text.len() - 1];
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let too_long = || WindowError::TooLong(text.into());
    let ms = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).ok_or_else(too_long)?;
    match ms {
        0 => Err(WindowError::Zero(text.into())),
        ms if ms > 366 * DAY_MS => Err(too_long()),
        ms => Ok(ms),
    }
}

#[cfg(test)]
#[path = "rate_limit_policy_tests.rs"]
mod tests;
