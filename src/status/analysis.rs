//! The status of a VirtualService: what Istio's analysis would write there, with our findings.
//!
//! Istio's definition knows a message's code, name and level only, and refuses other fields; the text is the condition's.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use crate::values::{Finding, Severity};

/// How many findings a condition's message spells out.
const SPELT_OUT: usize = 10;

/// `status` of a VirtualService.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Analysis {
    observed_generation: i64,
    conditions: Vec<Condition>,
    validation_messages: Vec<Message>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: Time,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: MessageType,
    level: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct MessageType {
    name: String,
    code: String,
}

impl Analysis {
    /// What the findings come to. The condition's time stays that of `before` while the condition does.
    pub(super) fn new(findings: &[Finding], generation: i64, before: Option<&Self>, now: Timestamp) -> Self {
        let worst = findings.iter().map(|finding| finding.severity).min();
        let (status, reason) = match worst {
            Some(Severity::Error) => ("False", "ErrorsFound"),
            Some(Severity::Warning) => ("True", "WarningsFound"),
            Some(Severity::Info) | None => ("True", "NoErrorsFound"),
        };
        let before = before.and_then(|before| before.conditions.first());
        let since = before.filter(|before| before.status == status).map(|it| it.last_transition_time.0);
        // Kubernetes keeps whole seconds.
        let since = since.or_else(|| Timestamp::from_second(now.as_second()).ok()).unwrap_or_default();
        let condition = Condition {
            kind: "PassedAnalysis".into(),
            status: status.into(),
            reason: reason.into(),
            message: summary(findings),
            last_transition_time: Time(since),
        };
        Self {
            observed_generation: generation,
            conditions: vec![condition],
            validation_messages: findings.iter().map(message).collect(),
        }
    }
}

fn message(finding: &Finding) -> Message {
    let level = match finding.severity {
        Severity::Error => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
    };
    let kind = MessageType { name: finding.reason.into(), code: finding.reason.into() };
    Message { kind, level: level.into() }
}

/// What is worth saying of findings, in one line.
pub(super) fn summary(findings: &[Finding]) -> String {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let mut text = format!("errors: {errors}, warnings: {warnings}");
    let worth_saying = findings.iter().filter(|finding| finding.severity != Severity::Info);
    for finding in worth_saying.take(SPELT_OUT) {
        text.push_str(&format!("; {}: {}", finding.severity, finding.text()));
    }
    if errors + warnings > SPELT_OUT {
        text.push_str(&format!("; and {} more", errors + warnings - SPELT_OUT));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::values::{Findings, Kind, ObjectKey};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn in_istios_shape() {
        let key = ObjectKey::new(Kind::VirtualService, "a", "b");
        let mut findings = Findings::default();
        findings.error(&key, "spec.tcp", "NotSupported", "is not supported");
        findings.info(&key, "spec.gateways", "GatewaysNotRead", "are not read");
        let bad = Analysis::new(&findings.into_vec(), 3, None, at(60));
        let expected = json!({
            "observedGeneration": 3,
            "conditions": [{
                "type": "PassedAnalysis", "status": "False", "reason": "ErrorsFound",
                "message": "errors: 1, warnings: 0; error: spec.tcp: is not supported",
                "lastTransitionTime": "1970-01-01T00:01:00Z",
            }],
            "validationMessages": [
                {"type": {"name": "NotSupported", "code": "NotSupported"}, "level": "ERROR"},
                {"type": {"name": "GatewaysNotRead", "code": "GatewaysNotRead"}, "level": "INFO"},
            ],
        });
        assert_eq!(serde_json::to_value(&bad).unwrap(), expected);
        assert_eq!(serde_json::from_value::<Analysis>(expected).unwrap(), bad);
    }

    #[test]
    fn the_time_is_that_of_the_transition() {
        let key = ObjectKey::new(Kind::VirtualService, "a", "b");
        let mut findings = Findings::default();
        findings.warning(&key, "spec.http", "NeverReached", "is never reached");
        let first = Analysis::new(&[], 1, None, at(1));
        let warned = Analysis::new(&findings.into_vec(), 2, Some(&first), at(2));
        assert_eq!(warned.conditions[0].last_transition_time, Time(at(1)));
        let mut findings = Findings::default();
        findings.error(&key, "", "Malformed", "cannot be read");
        let failed = Analysis::new(&findings.into_vec(), 2, Some(&warned), at(3));
        assert_eq!(failed.conditions[0].last_transition_time, Time(at(3)));
    }
}
