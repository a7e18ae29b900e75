//! The status of a RateLimitPolicy: whether it is in force as it is written, by our findings.

use jiff::Timestamp;

use super::analysis::summary;
use crate::crd::rate_limit_policy::{PolicyCondition, RateLimitPolicyStatus};
use crate::values::{Finding, Severity};

/// The findings that say that what a policy targets is not there.
const ABSENT: [&str; 2] = ["TargetNotFound", "NoTarget"];

/// What the findings come to. The condition's time stays that of `before` while the condition does.
pub(super) fn status(
    findings: &[Finding],
    generation: i64,
    before: Option<&RateLimitPolicyStatus>,
    now: Timestamp,
) -> RateLimitPolicyStatus {
    let errors = || findings.iter().filter(|finding| finding.severity == Severity::Error);
    let (status, reason) = match errors().count() {
        0 => ("True", "Accepted"),
        _ if errors().any(|finding| ABSENT.contains(&finding.reason)) => ("False", "TargetNotFound"),
        _ => ("False", "Invalid"),
    };
    let before = before.and_then(|before| before.conditions.first());
    let since = before.filter(|before| before.status == status).map(|it| it.last_transition_time.clone());
    // Kubernetes keeps whole seconds.
    let whole = || Timestamp::from_second(now.as_second()).unwrap_or_default().to_string();
    let condition = PolicyCondition {
        kind: "Accepted".into(),
        status: status.into(),
        observed_generation: generation,
        reason: reason.into(),
        message: summary(findings),
        last_transition_time: since.unwrap_or_else(whole),
    };
    RateLimitPolicyStatus { observed_generation: generation, conditions: vec![condition] }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::values::{Findings, Kind, ObjectKey};

    #[test]
    fn accepted_or_why_not() {
        let key = ObjectKey::new(Kind::RateLimitPolicy, "a", "b");
        type Finds = fn(&mut Findings, &ObjectKey);
        let cases: [(Finds, &str, &str); 5] = [
            (|_, _| {}, "True", "Accepted"),
            (|it, key| it.warning(key, "spec.x", "UnknownField", "is no field"), "True", "Accepted"),
            (|it, key| it.error(key, "spec.limits[0]", "InvalidLimit", "is none"), "False", "Invalid"),
            (
                |it, key| it.error(key, "spec.targetRef", "TargetNotFound", "is away"),
                "False",
                "TargetNotFound",
            ),
            (
                |it, key| it.error(key, "spec.targetRef.host", "NoTarget", "is none"),
                "False",
                "TargetNotFound",
            ),
        ];
        let mut before = None;
        let mut since = 0;
        for (at, (find, holds, reason)) in cases.into_iter().enumerate() {
            let mut findings = Findings::default();
            find(&mut findings, &key);
            let (second, findings) = (at as i64 + 1, findings.into_vec());
            let now = Timestamp::from_millisecond(second * 1000 + 500).unwrap();
            let made = status(&findings, second, before.as_ref(), now);
            // That of the last time that it turned.
            if before.as_ref().is_none_or(|before| before.conditions[0].status != holds) {
                since = second;
            }
            let expected = json!({"observedGeneration": second, "conditions": [{
                "type": "Accepted", "status": holds, "reason": reason, "observedGeneration": second,
                "message": summary(&findings), "lastTransitionTime": format!("1970-01-01T00:00:0{since}Z"),
            }]});
            assert_eq!(serde_json::to_value(&made).unwrap(), expected);
            before = Some(made);
        }
    }
}
