//! What requests are told apart by, where they are counted.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a counter is kept for: one for each value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LimitKey {
    /// The trusted address of the client, without its port.
    ClientAddress,
    /// The value of the request header of this name, in lower case.
    Header(Arc<str>),
    /// The value of the cookie of this name.
    Cookie(Arc<str>),
    /// The value of the first query parameter of this name.
    Query(Arc<str>),
    /// The path, without the query.
    Path,
    /// The method.
    Method,
    /// Nothing: all requests share one counter, which bears this name.
    Generic(Arc<str>),
    /// All of these together.
    Several(Vec<LimitKey>),
    /// The value of a claim of a verified JSON web token.
    Jwt(Arc<TokenClaim>),
}

/// A claim of a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenClaim {
    /// Whose token.
    pub issuer: String,
    /// Its name (see [`claim`](super::claim)).
    pub claim: String,
}

impl LimitKey {
    /// It, or what it is made of.
    #[must_use]
    pub fn parts(&self) -> &[Self] {
        match self {
            Self::Several(parts) => parts,
            one => std::slice::from_ref(one),
        }
    }
}

/// As it stands in a limit's id.
impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientAddress => f.write_str("clientAddress"),
            Self::Header(name) => write!(f, "header/{name}"),
            Self::Cookie(name) => write!(f, "cookie/{name}"),
            Self::Query(name) => write!(f, "query/{name}"),
            Self::Path => f.write_str("path"),
            Self::Method => f.write_str("method"),
            Self::Generic(name) => write!(f, "generic/{name}"),
            Self::Jwt(of) => write!(f, "jwt/{}/{}", of.issuer, of.claim),
            Self::Several(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    write!(f, "{}{part}", if at > 0 { "+" } else { "" })?;
                }
                Ok(())
            }
        }
    }
}
