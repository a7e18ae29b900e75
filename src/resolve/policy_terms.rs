//! What a RateLimitPolicy says for all of its limits: how it refuses, and what becomes of requests that nobody can count.

use super::limits::refusal;
use crate::crd::rate_limit_policy::{PolicyAnswer, RateLimitPolicySpec};
use crate::features::effects::Refusal;
use crate::features::request_limits::{REFUSALS, is_refusal};
use crate::model::limit::{Body, FailureMode};
use crate::settings::Settings;
use crate::values::{Findings, ObjectKey, header};

const TOO_MANY_REQUESTS: u16 = 429;

/// What holds for all limits of a policy.
pub(super) struct Terms {
    pub(super) refusal: Refusal,
    pub(super) failure_mode: Option<FailureMode>,
    pub(super) body: Option<Body>,
    pub(super) openai_headers: bool,
}

/// Headers of an answer, which Envoy's filter sends so many of (`response_headers_to_add`), and the bytes of a value of one.
const MOST_HEADERS: usize = 10;
const LONGEST_VALUE: usize = 4096;

/// What a policy says for all of its limits. What it says wrong is a finding, and as if it said nothing; but a failure mode that
/// nobody knows is closed.
pub(super) fn terms(
    policy: &ObjectKey,
    spec: &RateLimitPolicySpec,
    settings: &Settings,
    findings: &mut Findings,
) -> Terms {
    let failure_mode = spec.failure_mode.as_deref().map(|written| match written {
        "open" => FailureMode::Open,
        "closed" => FailureMode::Closed,
        "local" => FailureMode::Local,
        other => {
            let message = format!("{other:?} is none of open, closed and local, and read as closed");
            findings.error(policy, "spec.failureMode", "InvalidFailureMode", message);
            FailureMode::Closed
        }
    });
    let answer = spec.answer.clone().unwrap_or_default();
    let mut problem = |field: &str, message: String| {
        findings.error(policy, format!("spec.answer.{field}"), "InvalidAnswer", message);
    };
    let status = answer.status.filter(|status| {
        let known = is_refusal(*status);
        if !known {
            problem(
                "status",
                format!("{status} is no status that Envoy can refuse with: {REFUSALS} are; 429 stays"),
            );
        }
        known
    });
    let mut headers = Vec::new();
    for (name, value) in &answer.headers {
        let wrong = match () {
            () if !header::is_name(name) => {
                "is not the name of a header: write at most 128 letters, digits, `-` and `_`"
            }
            () if header::OF_THE_CONNECTION.contains(&&*name.to_ascii_lowercase()) => {
                "is a header of the connection"
            }
            () if !header::is_value(value) => "has control characters in its value",
            () if value.len() > LONGEST_VALUE => "has more than 4096 bytes in its value",
            () if headers.len() == MOST_HEADERS => "is one header more than the 10 that Envoy sends",
            () => {
                headers.push((name.to_ascii_lowercase(), value.clone()));
                continue;
            }
        };
        problem(&format!("headers.{name}"), format!("{wrong}; it is left out"));
    }
    let body = body(&answer, &mut headers).unwrap_or_else(|message| {
        problem("body", message);
        None
    });
    let silent = refusal(settings, status.unwrap_or(TOO_MANY_REQUESTS));
    let fail_closed = failure_mode.map_or(silent.fail_closed, |mode| mode == FailureMode::Closed);
    let refusal = Refusal { headers, fail_closed, ..silent };
    let openai_headers = openai_headers(policy, spec, findings);
    Terms { refusal, failure_mode, body, openai_headers }
}

fn openai_headers(policy: &ObjectKey, spec: &RateLimitPolicySpec, findings: &mut Findings) -> bool {
    match spec.limit_headers.as_deref() {
        None => false,
        Some("openai") => true,
        Some(other) => {
            let message = format!("{other:?} is not known; `openai` is");
            findings.error(policy, "spec.limitHeaders", "InvalidLimitHeaders", message);
            false
        }
    }
}

/// The body of an answer. Envoy takes the type of a body from where the body is from, so it goes out of the headers.
fn body(answer: &PolicyAnswer, headers: &mut Vec<(String, String)>) -> Result<Option<Body>, String> {
    const LONGEST: usize = 4096;
    const CONTENT_TYPE: &str = "content-type";
    let text = match (&answer.body, answer.json) {
        (None, false) => return Ok(None),
        (Some(_), true) => return Err("stands beside `json`, which is one too many; none is sent".to_owned()),
        (Some(text), _) if text.len() > LONGEST => {
            return Err(format!("has more than {LONGEST} bytes; none is sent"));
        }
        (text, _) => text,
    };
    let given = headers.iter().position(|(name, _)| name == CONTENT_TYPE).map(|at| headers.remove(at).1);
    Ok(Some(match text {
        None => Body::Json,
        Some(text) => {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            let content_type = if is_json { "application/json" } else { "text/plain" };
            let content_type = given.as_deref().unwrap_or(content_type).into();
            Body::Text { content_type, text: text.as_str().into() }
        }
    }))
}
