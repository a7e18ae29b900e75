//! The form of a file: text to values, nothing of their meaning but that there is no other key.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value};

/// A file: a domain, or a part of one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) domain: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) descriptors: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Descriptor {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) key: String,
    /// Empty is none.
    #[serde(default, deserialize_with = "nullable")]
    pub(super) value: String,
    pub(super) rate_limit: Option<RateLimit>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) descriptors: Vec<Descriptor>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) shadow_mode: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) quota_mode: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) share_threshold: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) detailed_metric: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) value_to_metric: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) metadata: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimit {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) unit: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) requests_per_unit: u32,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) unlimited: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) replaces: Vec<Replaces>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Replaces {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) name: String,
}

/// A key without a value says as much as none.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a file; the error says where and what.
pub(super) fn parse(text: &str) -> Result<File, String> {
    // Files are as large as their writers like: they are the operator's own.
    let options = serde_saphyr::options! { with_snippet: false, budget: None };
    let file: Option<Tracked<File>> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
    Ok(file.map_or_else(|| File { domain: String::new(), descriptors: Vec::new() }, |file| file.0))
}

/// A value whose errors name their place.
struct Tracked<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Tracked<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut track = serde_path_to_error::Track::new();
        match T::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track)) {
            Ok(value) => Ok(Self(value)),
            Err(error) => match track.path().to_string() {
                path if path == "." => Err(error),
                path => Err(D::Error::custom(format!("{path}: {error}"))),
            },
        }
    }
}
