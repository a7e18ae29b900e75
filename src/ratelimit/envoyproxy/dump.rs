//! The rules as text, for `/rlconfig`.

use std::fmt::Write as _;

use super::Rules;
use crate::ratelimit::answer;

/// One line a rule, ordered by place: `DOMAIN.KEY_VALUE: unit=MINUTE requests_per_unit=10, shadow_mode: false`.
#[must_use]
pub fn text(rules: &Rules) -> String {
    let mut all: Vec<_> = rules.iter().collect();
    all.sort_by_key(|rule| rule.path.clone());
    let mut text = String::new();
    for rule in all {
        let limit = answer::current_limit(&rule.limit.algorithm, "");
        let (unit, requests) = if rule.unlimited {
            ("UNKNOWN", 0)
        } else {
            (limit.unit().as_str_name(), limit.requests_per_unit)
        };
        let _ = writeln!(
            text,
            "{}: unit={unit} requests_per_unit={requests}, shadow_mode: {}, quota_mode: {}",
            rule.path, rule.shadow, rule.quota
        );
    }
    text
}
