//! Requests whose values are no UTF-8. Envoy sends what clients sent, and a client could switch all of a request's limits
//! off by one such byte, were the message refused.

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use envoy_types::pb::google::protobuf::UInt64Value;
use prost::bytes::Bytes;
use prost::{DecodeError, Message};

/// A `RateLimitRequest`; each byte of a text that is no UTF-8 is taken for the character of its number, as in the headers of
/// old. So two of them stay different, though one may be what another client writes in UTF-8, and share its counter.
///
/// # Errors
/// When it is no such message.
pub(super) fn decode(message: Bytes) -> Result<RateLimitRequest, DecodeError> {
    RateLimitRequest::decode(message.clone()).or_else(|_| AnyText::decode(message).map(AnyText::read))
}

/// `RateLimitRequest`, with any text.
#[derive(Clone, PartialEq, Message)]
struct AnyText {
    #[prost(bytes = "bytes", tag = "1")]
    domain: Bytes,
    #[prost(message, repeated, tag = "2")]
    descriptors: Vec<AnyDescriptor>,
    #[prost(uint32, tag = "3")]
    hits_addend: u32,
}

#[derive(Clone, PartialEq, Message)]
struct AnyDescriptor {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<AnyEntry>,
    #[prost(message, optional, tag = "2")]
    limit: Option<RateLimitOverride>,
    #[prost(message, optional, tag = "3")]
    hits_addend: Option<UInt64Value>,
    #[prost(bool, tag = "4")]
    is_negative_hits: bool,
}

#[derive(Clone, PartialEq, Message)]
struct AnyEntry {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

impl AnyText {
    fn read(self) -> RateLimitRequest {
        let Self { domain, descriptors, hits_addend } = self;
        let descriptors = descriptors.into_iter().map(AnyDescriptor::read).collect();
        RateLimitRequest { domain: text(&domain), descriptors, hits_addend }
    }
}

impl AnyDescriptor {
    fn read(self) -> RateLimitDescriptor {
        let Self { entries, limit, hits_addend, is_negative_hits } = self;
        let entry = |AnyEntry { key, value }| Entry { key: text(&key), value: text(&value) };
        let entries = entries.into_iter().map(entry).collect();
        RateLimitDescriptor { entries, limit, hits_addend, is_negative_hits }
    }
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(value: &[u8]) -> AnyText {
        let entry = |value: &[u8]| AnyEntry { key: "key".into(), value: Bytes::copy_from_slice(value) };
        let descriptor = |value: &[u8]| AnyDescriptor {
            entries: vec![entry(b"first"), entry(value)],
            limit: Some(RateLimitOverride { requests_per_unit: 5, unit: 2 }),
            hits_addend: Some(UInt64Value { value: 3 }),
            is_negative_hits: true,
        };
        let descriptors = vec![descriptor(value), descriptor("né".as_bytes())];
        AnyText { domain: "chancery".into(), descriptors, hits_addend: 7 }
    }

    #[test]
    fn every_text_is_read() {
        let read = |value: &[u8]| decode(message(value).encode_to_vec().into()).unwrap();
        // Field by field what the message itself is.
        let known = message("né".as_bytes()).encode_to_vec();
        assert_eq!(read("né".as_bytes()), RateLimitRequest::decode(known.as_slice()).unwrap());
        for (value, text) in [(&b"\xff"[..], "ÿ"), (b"Ren\xe9", "René"), (b"\xed\xa0\x80", "í\u{a0}\u{80}")]
        {
            let (read, mut expected) = (read(value), read("né".as_bytes()));
            expected.descriptors[0].entries[1].value = text.to_owned();
            assert_eq!(read, expected);
        }
        assert!(decode(Bytes::from_static(b"\xff")).is_err());
    }
}
