//! `upstream-vhost`: the Host that the upstream sees.

use serde::Serialize;

use super::effects::set;
use super::{Annotation, Effects, Feature, Reader};
use crate::values::Origin;

const UPSTREAM_VHOST: Annotation = Annotation {
    name: "upstream-vhost",
    value: "host name, with a port if need be",
    default: "the request's own Host",
    example: "model.internal.example",
    text: "Host header of the request that the upstream sees; X-Forwarded-Host keeps the client's.",
    config_map: None,
};

/// The Host that the upstream sees.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct UpstreamVhost {
    /// The value.
    pub host: String,
    /// The annotation.
    pub origin: Origin,
}

impl Feature for UpstreamVhost {
    const ANNOTATIONS: &'static [Annotation] = &[UPSTREAM_VHOST];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (host, origin) = reader.parse(&UPSTREAM_VHOST, |text| {
            let valid =
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
            if valid {
                Ok(text.to_owned())
            } else {
                Err("a host name, with a port if need be (nginx variables are not expanded)")
            }
        })?;
        Some(Self { host, origin })
    }

    fn apply(&self, effects: &mut Effects) {
        set(&mut effects.host_rewrite, self.host.clone(), self.origin.clone());
    }
}
