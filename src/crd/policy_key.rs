//! What a [`RateLimitPolicy`](super::rate_limit_policy::RateLimitPolicy) tells requests apart by.

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::policy_jwt::PolicyJwt;
use super::rate_limit_policy::UnknownFields;

/// Exactly one of these. A request that lacks what it is counted by is answered with 401, one whose token lacks the claim with 403.
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
    /// The value of a claim of its JSON web token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<PolicyJwt>,
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
    /// The value of a claim of a token.
    Jwt(Box<PolicyJwt>),
}

/// The keys that there are.
const KEYS: &str =
    "a key is one of `header`, `cookie`, `query`, `clientAddress`, `path`, `method`, `generic` and `jwt`";

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
    #[error("`{0}` is not the name of a header: write at most 128 letters, digits, `-` and `_`")]
    HeaderName(String),
    /// A name that is not one.
    #[error("`{1}` is not a name that `{0}` takes: write 1 to 63 letters, digits, `-`, `_` and `.`")]
    Name(&'static str, String),
}

impl KeyError {
    /// The field of the key that is wrong; none if it is the key as a whole.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::NotOne => None,
            Self::Unknown(name) => Some(name),
            Self::Marker(kind) | Self::Name(kind, _) => Some(kind),
            Self::HeaderName(_) => Some("header"),
        }
    }
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
        let token = self.jwt.iter().map(|jwt| Ok(KeyChoice::Jwt(Box::new(jwt.clone()))));
        let header = self.header.as_deref().map(header_key);
        let mut given = header.into_iter().chain(named).chain(marked).chain(token);
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
