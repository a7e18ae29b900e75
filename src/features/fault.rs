//! Faults on purpose, by Envoy's `fault` filter.

use std::time::Duration;

use serde::Serialize;

use super::effects::set;
use super::{Effects, Field};
use crate::crd::virtual_service::{Abort as IstioAbort, Delay, HttpRoute};

/// A delay, an abort, or both.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The delay, and the share of requests that have it, in millionths.
    pub delay: Option<(Duration, u32)>,
    /// The abort, and the share of requests that have it, in millionths.
    pub abort: Option<(Abort, u32)>,
}

/// How a request is aborted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Abort {
    /// With an HTTP status.
    Http(u32),
    /// With a gRPC status code.
    Grpc(u32),
}

/// The names of gRPC's status codes, by code.
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// VirtualService's `fault`. A share that is not given is none, as in Istio.
pub fn from_rule(rule: &HttpRoute, field: &mut Field<'_>, effects: &mut Effects) {
    let Some(fault) = &rule.fault else { return };
    let mut field = field.child("fault");
    let delay = fault.delay.as_ref().and_then(|delay| read_delay(delay, &mut field.child("delay")));
    let abort = fault.abort.as_ref().and_then(|abort| read_abort(abort, &mut field.child("abort")));
    if delay.is_some() || abort.is_some() {
        set(&mut effects.fault, Fault { delay, abort }, field.origin());
    }
}

fn read_delay(delay: &Delay, field: &mut Field<'_>) -> Option<(Duration, u32)> {
    let Some(text) = &delay.fixed_delay else {
        field.error("InvalidFault", "has no fixedDelay; nothing is delayed");
        return None;
    };
    let duration = field.child("fixedDelay").duration(text)?;
    let millionths = match (&delay.percentage, delay.percent) {
        (Some(percentage), _) => field.child("percentage").millionths(percentage)?,
        (None, Some(percent)) => field.child("percent").whole_millionths(percent)?,
        (None, None) => no_share(field),
    };
    (millionths > 0).then_some((duration, millionths))
}

fn read_abort(abort: &IstioAbort, field: &mut Field<'_>) -> Option<(Abort, u32)> {
    let answer = match (abort.http_status, abort.grpc_status.as_deref()) {
        (Some(status @ 200..=599), None) => Abort::Http(status),
        (None, Some(name)) => match grpc_status(name) {
            Some(code) => Abort::Grpc(code),
            None => {
                let message = format!("{name:?} is not the name of a gRPC status; nothing is aborted");
                field.child("grpcStatus").error("InvalidFault", message);
                return None;
            }
        },
        _ => {
            let message = "needs either an httpStatus from 200 to 599 or a grpcStatus; nothing is aborted";
            field.error("InvalidFault", message);
            return None;
        }
    };
    let millionths = match &abort.percentage {
        Some(percentage) => field.child("percentage").millionths(percentage)?,
        None => no_share(field),
    };
    (millionths > 0).then_some((answer, millionths))
}

fn no_share(field: &mut Field<'_>) -> u32 {
    field.warning("NoPercentage", "has no percentage, which means no request at all");
    0
}

fn grpc_status(text: &str) -> Option<u32> {
    let by_name = GRPC_STATUSES.iter().position(|name| *name == text).map(|code| code as u32);
    by_name.or_else(|| text.parse().ok().filter(|code| (*code as usize) < GRPC_STATUSES.len()))
}
