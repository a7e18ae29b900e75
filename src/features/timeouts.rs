//! `proxy-connect-timeout`, `proxy-read-timeout`, `proxy-send-timeout`.
//!
//! nginx's read and send timeouts are the longest gaps between two reads or writes, not totals: an answer that keeps
//! flowing is never cut. Envoy's `idle_timeout` covers both directions, `per_try_idle_timeout` the upstream's silence.

use std::time::Duration;

use serde::Serialize;

use super::effects::set;
use super::{Annotation, Effects, Feature, Field, Reader};
use crate::crd::virtual_service::HttpRoute;
use crate::values::Origin;

const CONNECT: Annotation = Annotation {
    name: "proxy-connect-timeout",
    value: "whole seconds, without a unit",
    default: "5",
    example: "10",
    text: "Longest time for a connection to the upstream to be made.",
    config_map: Some("proxy-connect-timeout"),
};
const READ: Annotation = Annotation {
    name: "proxy-read-timeout",
    value: "whole seconds, without a unit",
    default: "60",
    example: "300",
    text: "Longest gap between two reads from the upstream; 504 before the response has begun.",
    config_map: Some("proxy-read-timeout"),
};
const SEND: Annotation = Annotation {
    name: "proxy-send-timeout",
    value: "whole seconds, without a unit",
    default: "60",
    example: "300",
    text: "Longest gap between two writes to the upstream.",
    config_map: Some("proxy-send-timeout"),
};

/// How long to wait. None stands for the default.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Timeouts {
    /// `proxy-connect-timeout`, in seconds.
    pub connect: Option<(u32, Origin)>,
    /// `proxy-read-timeout`, in seconds.
    pub read: Option<(u32, Origin)>,
    /// `proxy-send-timeout`, in seconds.
    pub send: Option<(u32, Origin)>,
}

/// nginx's `proxy_connect_timeout` as ingress-nginx sets it.
pub const DEFAULT_CONNECT: Duration = Duration::from_secs(5);
/// nginx's `proxy_read_timeout` and `proxy_send_timeout`.
pub const DEFAULT_GAP: Duration = Duration::from_secs(60);

impl Feature for Timeouts {
    const ANNOTATIONS: &'static [Annotation] = &[CONNECT, READ, SEND];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut seconds = |annotation| {
            reader.parse(annotation, |text| match text.parse::<u32>() {
                Ok(seconds) if seconds > 0 => Ok(seconds),
                _ => Err("a whole number of seconds from 1, without a unit"),
            })
        };
        let timeouts = Self { connect: seconds(&CONNECT), read: seconds(&READ), send: seconds(&SEND) };
        (timeouts.connect.is_some() || timeouts.read.is_some() || timeouts.send.is_some()).then_some(timeouts)
    }

    fn apply(&self, effects: &mut Effects) {
        let duration = |seconds: u32| Duration::from_secs(seconds.into());
        if let Some((seconds, origin)) = &self.connect {
            set(&mut effects.connect_timeout, duration(*seconds), origin.clone());
        }
        if let Some((seconds, origin)) = &self.read {
            set(&mut effects.per_try_idle_timeout, duration(*seconds), origin.clone());
        }
        if let Some((gap, origin)) = longer(self.read.as_ref(), self.send.as_ref()) {
            set(&mut effects.idle_timeout, gap, origin.clone());
        }
    }
}

/// Istio's longest time for a connection to be made.
pub const ISTIO_CONNECT: Duration = Duration::from_secs(10);

/// VirtualService's `timeout`: for the whole answer; without it there is no limit but a gRPC client's own.
pub fn from_rule(rule: &HttpRoute, field: &mut Field<'_>, effects: &mut Effects) {
    let mut child = field.child("timeout");
    let timeout = rule.timeout.as_deref().and_then(|text| child.duration(text));
    let origin = child.origin();
    match timeout {
        Some(timeout) => {
            set(&mut effects.timeout, timeout, origin.clone());
            set(&mut effects.grpc_timeout, timeout, origin);
        }
        None => set(&mut effects.grpc_timeout, Duration::ZERO, field.default_origin("Istio default")),
    }
}

/// The stream may be silent as long as the longer of the two gaps.
fn longer<'a>(
    read: Option<&'a (u32, Origin)>,
    send: Option<&'a (u32, Origin)>,
) -> Option<(Duration, &'a Origin)> {
    let gap =
        |side: Option<&(u32, Origin)>| side.map_or(DEFAULT_GAP, |side| Duration::from_secs(side.0.into()));
    let origin = if gap(read) >= gap(send) { read.or(send) } else { send.or(read) };
    origin.map(|(_, origin)| (gap(read).max(gap(send)), origin))
}
