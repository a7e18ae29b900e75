//! How a piece of text in a request is compared.

use std::borrow::Cow;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::header::{REDACTED, is_secret};

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

impl TextMatch {
    /// As it is shown of what has a name.
    fn shown(&self, name: &str) -> Cow<'_, Self> {
        let redacted = || REDACTED.to_owned();
        match self {
            _ if !is_secret(name) => Cow::Borrowed(self),
            Self::Exact(_) => Cow::Owned(Self::Exact(redacted())),
            Self::Prefix(_) => Cow::Owned(Self::Prefix(redacted())),
            Self::Regex(_) => Cow::Owned(Self::Regex(redacted())),
            Self::Present => Cow::Borrowed(self),
        }
    }
}

/// A condition on one header; pseudo headers such as `:method` and `:path` (with query) count. What it compares a secret
/// with is not shown.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HeaderMatch {
    /// The header's name, in lower case.
    pub name: String,
    /// The comparison.
    pub value: TextMatch,
    /// True turns the condition round; an absent header then matches.
    pub invert: bool,
}

impl Serialize for HeaderMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("HeaderMatch", 2 + usize::from(self.invert))?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("value", &self.value.shown(&self.name))?;
        if self.invert {
            fields.serialize_field("invert", &true)?;
        }
        fields.end()
    }
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

/// A condition on one name of a list such as query parameters or cookies. What it compares a secret with is not shown.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NamedMatch {
    /// The parameter's or cookie's name.
    pub name: String,
    /// The comparison.
    pub value: TextMatch,
}

impl Serialize for NamedMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("NamedMatch", 2)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("value", &self.value.shown(&self.name))?;
        fields.end()
    }
}
