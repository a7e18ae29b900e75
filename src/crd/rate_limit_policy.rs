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
//!   - key: {clientAddress: {}}
//!     requests: 100
//!     window: 1s
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
#[kube(printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitPolicySpec {
    /// The object whose routes are limited.
    pub target_ref: TargetRef,
    /// The limits. A request is let through if all of them allow it.
    #[schemars(length(min = 1))]
    pub limits: Vec<PolicyLimit>,
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
    /// Requests that a key may make in a window. A window of a minute or more slides: any that long counts. A shorter one
    /// begins with the key's first request.
    pub requests: u32,
    /// The length of the window: a whole number and `s`, `m`, `h` or `d`, such as `90s` or `1h`.
    #[schemars(regex(pattern = r"^[1-9][0-9]*(s|m|h|d)$"))]
    pub window: String,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// Exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct PolicyKey {
    /// The value of this request header. A request without it is answered with 401.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The address of the client: `{}`, or `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub client_address: Option<Value>,
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
}

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It says nothing, or says two things.
    #[error("a key is one of `header` and `clientAddress`")]
    NotOne,
    /// It says something that is not known.
    #[error("`{0}` is no key that is known; a key is one of `header` and `clientAddress`")]
    Unknown(String),
    /// It says `clientAddress`, and then something else than that it is.
    #[error("`clientAddress` is `{{}}` or `true`")]
    ClientAddress,
    /// The header's name is not one.
    #[error("`{0}` is not the name of a header")]
    HeaderName(String),
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
        match (&self.header, &self.client_address) {
            (Some(name), None) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Ok(KeyChoice::Header(name.as_str().to_owned())),
                Err(_) => Err(KeyError::HeaderName(name.clone())),
            },
            (None, Some(Value::Bool(true))) => Ok(KeyChoice::ClientAddress),
            (None, Some(Value::Object(fields))) if fields.is_empty() => Ok(KeyChoice::ClientAddress),
            (None, Some(_)) => Err(KeyError::ClientAddress),
            _ => Err(KeyError::NotOne),
        }
    }
}

impl PolicyLimit {
    /// The length of the window in milliseconds.
    ///
    /// # Errors
    /// See [`parse_window`].
    pub fn window_ms(&self) -> Result<u64, WindowError> {
        parse_window(&self.window)
    }
}

impl RateLimitPolicySpec {
    /// The paths of all fields that are not known, from the object's root, such as `spec.limits[0].burst`. What
    /// stands in a key is not among them: [`PolicyKey::choose`] refuses it.
    #[must_use]
    pub fn unknown_paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.unknown.keys().map(|name| format!("spec.{name}")).collect();
        paths.extend(self.target_ref.unknown.keys().map(|name| format!("spec.targetRef.{name}")));
        for (at, limit) in self.limits.iter().enumerate() {
            paths.extend(limit.unknown.keys().map(|name| format!("spec.limits[{at}].{name}")));
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
