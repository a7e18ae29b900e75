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
//!     - {name: partners, secretRef: {name: partner-keys}, requests: 1000, window: 1m}
//!   - key: {header: x-api-key}
//!     requests: 100000
//!     window: 1d
//!     cost: {responseJson: usage.total_tokens, reserve: 500}
//!   - key: {clientAddress: {}}
//!     requests: 100
//!     window: 1s
//!   answer: {status: 429, headers: {x-reason: quota}, json: true}
//!   limitHeaders: openai
//!   failureMode: closed
//! ```
//!
//! Fields that are not known are kept, for whoever resolves the policy to report; [`RateLimitPolicySpec::unknown_paths`]
//! names them all.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::policy_key::{KeyChoice, KeyError, PolicyKey};
use super::unreadable::Unreadable;

/// Fields that are not known, by name.
pub type UnknownFields = BTreeMap<String, Value>;

/// Limits the requests to the object in the same namespace that `targetRef` names.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "chancery.dev", version = "v1alpha1", kind = "RateLimitPolicy", namespaced)]
#[kube(shortname = "rlp", derive = "PartialEq", doc = "Limits for the routes of another object.")]
#[kube(status = "RateLimitPolicyStatus")]
#[kube(printcolumn = r#"{"name": "Kind", "type": "string", "jsonPath": ".spec.targetRef.kind"}"#)]
#[kube(printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.targetRef.name"}"#)]
#[kube(printcolumn = r#"{"name": "Requests", "type": "string", "jsonPath": ".spec.limits[*].requests"}"#)]
#[kube(printcolumn = r#"{"name": "Window", "type": "string", "jsonPath": ".spec.limits[*].window"}"#)]
#[kube(
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"}"#
)]
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
    /// What becomes of requests while the rate limit service cannot be asked: `open` lets them through, which is the
    /// default, `closed` answers them 503. `local` is as `open`, but while the service is there and the Redis that it
    /// shares counters in is not, each replica of the service counts by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["open", "closed", "local"]))]
    pub failure_mode: Option<String>,
    /// What a request above a limit is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<PolicyAnswer>,
    /// Headers of every answer that tell what is left, beside those that the service is told to send: `openai` is
    /// `x-ratelimit-limit-requests`, `-remaining-requests` and `-reset-requests`, and with `-tokens` those of limits that
    /// have a `cost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["openai"]))]
    pub limit_headers: Option<String>,
    /// Why the rest of it says nothing, if it could not be read.
    #[serde(skip)]
    #[schemars(skip)]
    pub unreadable: Option<Unreadable>,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// What became of a policy. Its conditions are in the shape of the Gateway API's policies; they stand here and not below
/// an ancestor, since a policy has one target, and so `kubectl wait` finds them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitPolicyStatus {
    /// The `metadata.generation` that this is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// One of each type. `Accepted` says whether the policy is in force as it is written.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<PolicyCondition>,
}

/// A condition, as Kubernetes has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCondition {
    /// What it is about, such as `Accepted`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// The `metadata.generation` that this is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Why, in one word: `Accepted`, `Invalid` or `TargetNotFound`.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Since when it holds or not.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
}

/// An object in the policy's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// The header of the answer of the target's `auth-url` that says another rate for the key, such as `100r/m` (`s`, `m`, `h`
    /// or `d`), which counts before any plan. It has to be one of `auth-response-headers`. Where the answer does not say it in
    /// this form, plans and the limit's own numbers count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub auth_header: Option<String>,
    /// What a request counts for: 1 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<PolicyCost>,
    /// Whether requests are counted and none is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// What a request counts for: as much as a header of it says, or, when it has ended, as much as the answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.header), has(self.responseHeader), has(self.responseJson)].filter(given, given).size() == 1",
        "message": "a cost is one of header, responseHeader and responseJson",
    },
    {"rule": "!(has(self.reserve) && has(self.header))", "message": "a reserve is for what the answer says"},
    {
        "rule": "!(has(self.events) && self.events) || has(self.responseJson)",
        "message": "events are read where responseJson says what of them",
    },
]))]
pub struct PolicyCost {
    /// The request header that says it. A request without it counts 1; one where it is no whole number from 1 to 999999999
    /// is answered 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The response header that says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header: Option<String>,
    /// The part of a JSON answer that says it, such as `usage.total_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"))]
    pub response_json: Option<String>,
    /// Whether the events of a stream (`text/event-stream`) are read for `responseJson` too. The last that has it counts.
    /// Envoy calls its filter for this work in progress.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub events: bool,
    /// What a request counts for until its answer has ended, and where an answer that is no error does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub reserve: Option<u32>,
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

/// Other numbers for the keys whose value begins with `prefix`, is matched as a whole by `regex`, or stands in a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.prefix), has(self.regex), has(self.secretRef)].filter(given, given).size() == 1",
        "message": "a plan has one of prefix, regex and secretRef",
    },
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
    /// The Secret in which the values stand, one a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<PolicySecretRef>,
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

/// An Opaque Secret in the policy's namespace whose lines are keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The one entry of it that counts; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// What a request above a limit is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!(has(self.body) && has(self.json) && self.json)", "message": "an answer has one of body and json"},
]))]
pub struct PolicyAnswer {
    /// The status, 429 without it. Envoy can refuse with 400 to 417, 421 to 424, 426, 428, 429, 431, 500 to 508, 510 and 511.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub status: Option<u16>,
    /// Headers and their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 10))]
    pub headers: BTreeMap<String, String>,
    /// The body. Its `content-type` is that of the headers; without one it is `application/json` where the body is JSON,
    /// else `text/plain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub body: Option<String>,
    /// Whether the body is a JSON `error` that says the limit and how many seconds to wait, in the shape of OpenAI's API.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub json: bool,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
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

/// So many requests in so many milliseconds.
pub type Quota = (u32, u64);

/// All windows, the first one first; or the field of the one that cannot be used.
fn quotas(
    requests: u32,
    window: &str,
    windows: &[PolicyWindow],
) -> Result<Vec<Quota>, (String, WindowError)> {
    let first = parse_window(window).map_err(|error| ("window".to_owned(), error));
    let first = first.map(|window_ms| (requests, window_ms));
    let further = windows.iter().enumerate().map(|(at, further)| {
        let window_ms = parse_window(&further.window);
        let window_ms = window_ms.map_err(|error| (format!("windows[{at}].window"), error))?;
        Ok((further.requests, window_ms))
    });
    std::iter::once(first).chain(further).collect()
}

impl PolicyLimit {
    /// Its windows, of which there is at least one.
    ///
    /// # Errors
    /// The field below it, and what is wrong there: see [`parse_window`].
    pub fn quotas(&self) -> Result<Vec<Quota>, (String, WindowError)> {
        quotas(self.requests, &self.window, &self.windows)
    }
}

impl PolicyPlan {
    /// Its windows, of which there is at least one.
    ///
    /// # Errors
    /// The field below it, and what is wrong there: see [`parse_window`].
    pub fn quotas(&self) -> Result<Vec<Quota>, (String, WindowError)> {
        quotas(self.requests, &self.window, &self.windows)
    }

    /// Whether it has every value that another one has, as far as their texts tell.
    #[must_use]
    pub fn has_all_of(&self, other: &Self) -> bool {
        let by_prefix = self.prefix.as_ref().zip(other.prefix.as_ref());
        let by_regex = self.regex.as_ref().zip(other.regex.as_ref());
        let by_secret = self.secret_ref.as_ref().zip(other.secret_ref.as_ref());
        by_prefix.is_some_and(|(own, its)| its.starts_with(own.as_str()))
            || by_regex.is_some_and(|(own, its)| own == its)
            || by_secret.is_some_and(|(own, its)| own == its)
    }
}

impl RateLimitPolicySpec {
    /// The field of it and the problem, where none of its limits is known. What it targets must not be open.
    #[must_use]
    pub fn problem(&self) -> Option<(&str, &str)> {
        match &self.unreadable {
            Some(Unreadable { field, problem }) => Some((field, problem)),
            None if self.limits.is_empty() => Some((
                "spec.limits",
                "has no limit: write a list of limits, each with `key`, `requests` and `window`",
            )),
            None => None,
        }
    }

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
            if let Some(cost) = &limit.cost {
                add(".cost".to_owned(), &cost.unknown);
            }
            for (at, window) in limit.windows.iter().enumerate() {
                add(format!(".windows[{at}]"), &window.unknown);
            }
            for (at, plan) in limit.plans.iter().enumerate() {
                add(format!(".plans[{at}]"), &plan.unknown);
                if let Some(secret) = &plan.secret_ref {
                    add(format!(".plans[{at}].secretRef"), &secret.unknown);
                }
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
