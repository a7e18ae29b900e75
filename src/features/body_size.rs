//! `proxy-body-size`: a larger request body is answered 413.

use serde::Serialize;

use super::effects::set;
use super::{Annotation, Effects, Feature, Reader};
use crate::values::matching::{HeaderMatch, TextMatch};
use crate::values::{Origin, size};

const BODY_SIZE: Annotation = Annotation {
    name: "proxy-body-size",
    value: "bytes, with k, m or g for larger units; 0 for no limit",
    default: "1m",
    example: "8m",
    text: "Largest request body; a larger one is answered 413.",
    config_map: Some("proxy-body-size"),
};

/// nginx's `client_max_body_size` as ingress-nginx sets it.
pub const DEFAULT_BYTES: u64 = 1 << 20;

/// How large a request may be.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct BodySize {
    /// In bytes; 0 for no limit.
    pub bytes: u64,
    /// The annotation.
    pub origin: Origin,
}

impl Feature for BodySize {
    const ANNOTATIONS: &'static [Annotation] = &[BODY_SIZE];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(&BODY_SIZE, size::parse).map(|(bytes, origin)| Self { bytes, origin })
    }

    fn apply(&self, effects: &mut Effects) {
        set(&mut effects.max_request_bytes, self.bytes, self.origin.clone());
    }
}

/// A request that declares a longer body.
pub fn declared_above(bytes: u64) -> HeaderMatch {
    HeaderMatch::new("content-length", TextMatch::Regex(above(bytes)))
}

/// An expression of the decimal numbers above this one.
fn above(number: u64) -> String {
    let digits = number.to_string();
    let length = digits.len();
    let higher = digits.bytes().enumerate().filter(|(_, digit)| *digit < b'9').map(|(at, digit)| {
        format!("{}[{}-9][0-9]{{{}}}", &digits[..at], char::from(digit + 1), length - at - 1)
    });
    let longer = format!("[1-9][0-9]{{{length},}}");
    format!("0*(?:{})", higher.chain([longer]).collect::<Vec<_>>().join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_above_another_are_told_by_their_digits() {
        for number in [1, 9, 10, 19, 99, 100, 1234, 1 << 20, 8_000_000, 1_090_909] {
            let above = regex::Regex::new(&format!("^(?:{})$", above(number))).unwrap();
            for other in [0, 1, 2, number / 10, number - 1, number, number + 1, number + 10, number * 10] {
                assert_eq!(above.is_match(&other.to_string()), other > number, "{other} above {number}");
            }
            assert!(above.is_match(&format!("00{}", number + 1)));
        }
    }
}
