//! Cross-origin rules, by Envoy's `cors` filter.

use std::time::Duration;

use serde::Serialize;

use crate::values::matching::TextMatch;

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
