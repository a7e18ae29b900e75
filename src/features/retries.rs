//! When and how often a request is tried again.
//!
//! ingress-nginx's `proxy-next-upstream: error timeout` with 3 tries is the default of Ingress routes: a request is
//! tried on another endpoint if nothing of it can have been processed. VirtualService's `retries` says it for itself.

use std::time::Duration;

use serde::Serialize;

use super::effects::set;
use super::{Effects, Field};
use crate::crd::virtual_service::{HttpRetry, HttpRoute};

/// When and how often a request is tried again.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// Envoy's `retry_on` names.
    pub on: Vec<String>,
    /// Statuses that are retried, with `retriable-status-codes` in `on`.
    pub statuses: Vec<u32>,
    /// Tries after the first.
    pub attempts: u32,
    /// Longest time of one try.
    pub per_try_timeout: Option<Duration>,
    /// Base of the back-off between tries.
    pub back_off: Option<Duration>,
    /// Whether a retry avoids endpoints that were tried.
    pub previous_hosts: bool,
    /// Whether a retry goes to other localities than those that were tried.
    pub previous_priorities: bool,
}

/// What Envoy and Istio know as `retry_on`; anything else never applies.
const CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];
const STATUS_CODES: &str = "retriable-status-codes";

impl Retries {
    /// ingress-nginx's default: never a request that an upstream may have begun to process.
    pub fn ingress_nginx() -> Self {
        Self {
            on: ["connect-failure", "refused-stream", "reset-before-request"].map(str::to_owned).to_vec(),
            statuses: Vec::new(),
            attempts: 2,
            per_try_timeout: None,
            back_off: None,
            previous_hosts: true,
            previous_priorities: false,
        }
    }

    /// Istio's default for rules that do not say: twice, where the upstream cannot have begun or says that it did not.
    pub fn istio() -> Self {
        let on = ["connect-failure", "refused-stream", "unavailable", "cancelled", STATUS_CODES];
        Self { on: on.map(str::to_owned).to_vec(), ..Self::ingress_nginx() }
    }
}

/// VirtualService's `retries`: its own words replace the default's, `attempts: 0` switches retries off.
pub fn from_rule(rule: &HttpRoute, field: &mut Field<'_>, effects: &mut Effects) {
    let Some(retries) = &rule.retries else {
        set(&mut effects.retries, Retries::istio(), field.default_origin("Istio default"));
        return;
    };
    let mut field = field.child("retries");
    if let Some(value) = read(retries, &mut field) {
        set(&mut effects.retries, value, field.origin());
    }
}

fn read(retries: &HttpRetry, field: &mut Field<'_>) -> Option<Retries> {
    let attempts = match retries.attempts.map(u32::try_from) {
        Some(Ok(attempts)) => attempts,
        None => 0,
        Some(Err(_)) => {
            field
                .child("attempts")
                .error("InvalidRetries", "is not a whole number from 0; nothing is retried");
            return None;
        }
    };
    if attempts == 0 {
        let HttpRetry { per_try_timeout, retry_on, backoff, .. } = retries;
        if per_try_timeout.is_some() || retry_on.is_some() || backoff.is_some() {
            field.warning("RetriesDisabled", "has no effect without attempts: nothing is retried");
        }
        return None;
    }
    let mut value = Retries { attempts, ..Retries::istio() };
    if let Some(text) = retries.retry_on.as_deref().filter(|text| !text.is_empty()) {
        (value.on, value.statuses) = conditions(text);
        for name in value.on.iter().filter(|name| !CONDITIONS.contains(&name.as_str())) {
            let message =
                format!("{name:?} is neither a condition that Envoy knows nor a status; it never applies");
            field.child("retryOn").warning("UnknownRetryCondition", message);
        }
    }
    let mut duration = |name, text: &Option<String>| field.child(name).duration(text.as_deref()?);
    value.per_try_timeout = duration("perTryTimeout", &retries.per_try_timeout);
    value.back_off = duration("backoff", &retries.backoff);
    value.previous_hosts = retries.retry_ignore_previous_hosts.unwrap_or(true);
    value.previous_priorities = retries.retry_remote_localities.unwrap_or(false);
    Some(value)
}

/// `retry_on` names and statuses out of one comma-separated list.
fn conditions(text: &str) -> (Vec<String>, Vec<u32>) {
    let (mut names, mut statuses) = (Vec::new(), Vec::new());
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse() {
            Ok(status @ 100..=599) => statuses.push(status),
            _ => names.push(part.to_owned()),
        }
    }
    if !statuses.is_empty() && !names.iter().any(|name| name == STATUS_CODES) {
        names.push(STATUS_CODES.to_owned());
    }
    (names, statuses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_from_conditions() {
        for (text, names, statuses) in [
            (
                "some,fake,5xx,404,conditions,503",
                "some fake 5xx conditions retriable-status-codes",
                &[404, 503][..],
            ),
            ("retriable-status-codes,503", "retriable-status-codes", &[503]),
            ("5xx,1000", "5xx 1000", &[]),
            (" 5xx , ,reset,", "5xx reset", &[]),
            (",", "", &[]),
        ] {
            assert_eq!(
                conditions(text),
                (names.split_whitespace().map(str::to_owned).collect(), statuses.to_vec())
            );
        }
    }
}
