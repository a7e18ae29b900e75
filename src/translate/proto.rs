//! Protobuf's wrapper types, which envoy-types has without conversions.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, address, socket_address,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use envoy_types::pb::google::protobuf;
use envoy_types::pb::google::protobuf::value::Kind;

use crate::values::matching::TextMatch;

/// A duration.
pub fn duration(duration: Duration) -> Option<protobuf::Duration> {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Some(protobuf::Duration { seconds, nanos: duration.subsec_nanos().cast_signed() })
}

/// A wrapped boolean.
pub fn boolean(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}

/// A wrapped number.
pub fn uint32(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

/// An RE2 expression over the whole text.
pub fn regex(regex: &str) -> RegexMatcher {
    RegexMatcher { regex: regex.to_owned(), ..RegexMatcher::default() }
}

/// A text comparison; none asks for presence, which has a form of its own in each place.
pub fn string_matcher(value: &TextMatch) -> Option<StringMatcher> {
    let pattern = match value {
        TextMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        TextMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        TextMatch::Regex(text) => MatchPattern::SafeRegex(regex(text)),
        TextMatch::Present => return None,
    };
    Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() })
}

/// An address and port over TCP.
pub fn socket_address(host: &str, port: u16) -> Option<Address> {
    Some(Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })),
    })
}

/// The version of everything that is spoken.
pub fn api_version() -> i32 {
    ApiVersion::V3.into()
}

/// The stream that the resource itself came by.
pub fn ads() -> Option<ConfigSource> {
    Some(ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    })
}

/// Data without a message of its own.
pub fn structure<const N: usize>(fields: [(&str, Option<protobuf::Value>); N]) -> protobuf::Struct {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    protobuf::Struct { fields: given.collect() }
}

/// A text in a [`structure`].
pub fn text(text: &str) -> protobuf::Value {
    protobuf::Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// Texts in a [`structure`].
pub fn texts<'t>(texts: impl IntoIterator<Item = &'t str>) -> protobuf::Value {
    let values = texts.into_iter().map(text).collect();
    protobuf::Value { kind: Some(Kind::ListValue(protobuf::ListValue { values })) }
}
