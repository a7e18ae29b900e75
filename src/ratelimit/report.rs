//! Limits, what was decided by them and the keys with the most hits, as the debug endpoint shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::counters::StoreState;
use super::decisions::{Decided, Decisions, Totals};
use super::envoyproxy::{Rule, Rules};
use super::fingerprint::Fingerprint;
use super::shown;
use super::top::Hot;
use crate::model::limit::{Algorithm, Limit, LimitSet};

/// Keys that are shown.
const KEYS: usize = 100;

/// Where limits come from, by their ids: objects and fields.
pub type Origins = BTreeMap<Arc<str>, Vec<String>>;

/// All that is known.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Requests let through and refused.
    pub totals: Totals,
    /// Every limit in force, ordered by id.
    pub limits: Vec<LimitReport>,
    /// Every rule of a folder of envoyproxy/ratelimit's, ordered by place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleReport>,
    /// The keys with the most hits, those first; not all keys.
    pub keys: Vec<KeyReport>,
    /// The counters' store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreState>,
}

/// A limit and its decisions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitReport {
    /// The limit, without the keys of its plans.
    #[serde(flatten, serialize_with = "without_keys")]
    pub limit: Limit,
    /// The objects and fields that it comes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// What it decided.
    #[serde(flatten)]
    pub decided: Decided,
}

/// Of plans with keys of their own, how many they are.
fn without_keys<S: Serializer>(limit: &Limit, serializer: S) -> Result<S::Ok, S::Error> {
    let mut shown = serde_json::to_value(limit).map_err(serde::ser::Error::custom)?;
    for plan in shown.get_mut("plans").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(Value::Array(keys)) = plan["matches"].get("exact") {
            plan["matches"] = json!({"exact": format!("{} keys", keys.len())});
        }
    }
    shown.serialize(serializer)
}

/// A rule and its decisions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// Its place, as envoyproxy/ratelimit calls it: `DOMAIN.KEY_VALUE.KEY`.
    pub path: Arc<str>,
    /// How hits are counted; nothing is counted where this is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// Whether it refuses nothing.
    pub shadow: bool,
    /// Whether it refuses only together with others.
    pub quota: bool,
    /// What it decided.
    #[serde(flatten)]
    pub decided: Decided,
}

/// A key and its hits.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyReport {
    /// The limit's id, or the rule's place.
    pub limit: String,
    /// Its values, credentials redacted.
    pub key: Vec<String>,
    /// What it can be called by, where it is not shown.
    pub fingerprint: Fingerprint,
    /// Hits that were asked for.
    pub hits: u64,
    /// How much too high that can be.
    #[serde(skip_serializing_if = "is_zero")]
    pub at_most_over: u64,
    /// Times that it was over its limit.
    pub denied: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The report, for these limits and rules.
#[must_use]
pub fn report(
    decisions: &Decisions,
    limits: &LimitSet,
    rules: &Rules,
    origins: &Origins,
    store: Option<StoreState>,
) -> Report {
    let limit = |limit: &Limit| LimitReport {
        limit: limit.clone(),
        origins: origins.get(&limit.id).cloned().unwrap_or_default(),
        decided: decisions.of(&limit.id),
    };
    let rule = |rule: &Arc<Rule>| RuleReport {
        path: rule.path.clone(),
        algorithm: (!rule.unlimited).then_some(rule.limit.algorithm),
        shadow: rule.shadow,
        quota: rule.quota,
        decided: rule.decided(),
    };
    let mut rules: Vec<_> = rules.iter().map(rule).collect();
    rules.sort_by(|a, b| a.path.cmp(&b.path));
    Report {
        totals: decisions.totals(),
        limits: limits.iter().map(limit).collect(),
        rules,
        keys: decisions.top.all().into_iter().take(KEYS).map(|hot| key(limits, hot)).collect(),
        store,
    }
}

fn key(limits: &LimitSet, hot: Hot) -> KeyReport {
    let (limit, key) = shown(limits, &hot);
    let Hot { fingerprint, hits, at_most_over, denied, .. } = hot;
    KeyReport { limit, key, fingerprint, hits, at_most_over, denied }
}

/// The name of a key's limit, and its values, as people are shown them.
pub(super) fn shown(limits: &LimitSet, hot: &Hot) -> (String, Vec<String>) {
    let key = hot.key.as_deref().unwrap_or_default();
    match hot.limit.split_once('\n') {
        // Of a rule; ids of our own limits have one line.
        Some((_, path)) => (path.to_owned(), shown::theirs(key)),
        None => (hot.limit.to_string(), shown::ours(limits.get(&hot.limit), key)),
    }
}
