//! What a [`PolicyKey`](super::policy_key::PolicyKey) says of JSON web tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rate_limit_policy::UnknownFields;

/// A claim of a token that Envoy has verified. A request without a good token is answered 401, one whose token lacks the
/// claim 403.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyJwt {
    /// The name of the claim, such as `sub`; names with dots between them go into objects, such as `realm.tenant`. One with a
    /// `:` or a `/` in it, such as `https://example.com/tenant`, is one name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.:/@#~+-]+$"))]
    pub claim: String,
    /// The `iss` of the tokens.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[!-$&-~]+$"))]
    pub issuer: String,
    /// Those of which a token's `aud` has to have one; any will do without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    pub audiences: Vec<String>,
    /// The request header whose value is the token. Without it that is `authorization`, after `Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub header: Option<String>,
    /// The keys that tokens are signed with.
    pub jwks: PolicyJwks,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// Where a JWK Set stands. Its public keys alone are used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.secretRef) != has(self.inline)", "message": "jwks has one of secretRef and inline"},
]))]
pub struct PolicyJwks {
    /// In a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<PolicyJwksRef>,
    /// Here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub inline: Option<String>,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

/// An entry of an Opaque Secret in the policy's namespace that is a JWK Set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyJwksRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The entry: `jwks.json` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
    /// Fields that are not known.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: UnknownFields,
}

impl PolicyJwt {
    /// The path below it of a field that is not known.
    #[must_use]
    pub fn unknown_path(&self) -> Option<String> {
        let secret = self.jwks.secret_ref.iter().flat_map(|secret| secret.unknown.keys());
        let own = self.unknown.keys().cloned();
        let of_jwks = self.jwks.unknown.keys().map(|name| format!("jwks.{name}"));
        own.chain(of_jwks).chain(secret.map(|name| format!("jwks.secretRef.{name}"))).next()
    }
}
