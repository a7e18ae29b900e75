//! `proxy-body-size`: a larger request body is answered 413.

use serde::Serialize;

use super::effects::set;
use super::{Annotation, Effects, Feature, Reader};
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
