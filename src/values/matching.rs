//! How a piece of text in a request is compared.

use serde::Serialize;

/// A comparison with the whole text, its beginning, or a regular expression that must match the whole text.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TextMatch {
    /// Equal, byte by byte.
    Exact(String),
    /// Begins so.
    Prefix(String),
    /// RE2, over the whole text.
    Regex(String),
    /// Is there at all.
    Present,
}

/// A condition on one header; pseudo headers such as `:method` and `:path` (with query) count.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// The header's name, in lower case.
    pub name: String,
    /// The comparison.
    pub value: TextMatch,
    /// True turns the condition round; an absent header then matches.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
}

impl HeaderMatch {
    /// The header has exactly this value.
    pub fn exact(name: &str, value: &str) -> Self {
        Self { name: name.to_ascii_lowercase(), value: TextMatch::Exact(value.to_owned()), invert: false }
    }

    /// The header matches.
    pub fn new(name: &str, value: TextMatch) -> Self {
        Self { name: name.to_ascii_lowercase(), value, invert: false }
    }

    /// The same condition turned round.
    pub fn inverted(mut self) -> Self {
        self.invert = !self.invert;
        self
    }
}

/// A condition on one name of a list such as query parameters or cookies.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedMatch {
    /// The parameter's or cookie's name.
    pub name: String,
    /// The comparison.
    pub value: TextMatch,
}
