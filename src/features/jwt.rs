//! JSON web tokens that Envoy verifies.

use std::sync::Arc;

use serde::Serialize;

/// Whose tokens are good, and where they are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provider {
    /// Their `iss`.
    pub issuer: Arc<str>,
    /// Those of which `aud` has to have one; any if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// The request header whose value they are, in lower case; without it `authorization`, after `Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The public keys, a JWK Set.
    pub jwks: Arc<str>,
}

/// The token that a claim is taken from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Whose it is.
    pub provider: Arc<Provider>,
    /// Whether requests are let through without it, and not counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}
