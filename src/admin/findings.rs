//! What there is to say about objects.

use axum::Json;
use axum::extract::State as Extract;
use serde::{Deserialize, Serialize};

use super::State;
use super::error::Query;
use crate::values::{Finding, Severity};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    severity: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Findings {
    errors: usize,
    warnings: usize,
    infos: usize,
    findings: Vec<Finding>,
}

/// Findings, the worst first; those that the query asks for, if it does.
pub(super) async fn findings(Extract(state): Extract<State>, Query(asked): Query<Asked>) -> Json<Findings> {
    let published = state.published.borrow().clone();
    let all = published.findings.values().flat_map(|of_object| of_object.iter());
    let mut findings: Vec<Finding> = all.filter(|finding| asked.wants(finding)).cloned().collect();
    findings.sort();
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings, infos) = (count(Severity::Error), count(Severity::Warning), count(Severity::Info));
    Json(Findings { errors, warnings, infos, findings })
}

impl Asked {
    fn wants(&self, finding: &Finding) -> bool {
        let same = |asked: &Option<String>, own: &str| {
            asked.as_deref().is_none_or(|asked| asked.is_empty() || asked.eq_ignore_ascii_case(own))
        };
        same(&self.severity, &finding.severity.to_string())
            && same(&self.kind, finding.object.kind.as_str())
            && same(&self.namespace, &finding.object.namespace)
            && same(&self.name, &finding.object.name)
    }
}
