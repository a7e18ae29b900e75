//! Expectations of JSON documents, by pointer (RFC 6901).

use crate::case::step::JsonExpected;
use serde_json::Value;
use std::collections::BTreeMap;

/// Whether every pointer leads to what is expected there; an expected null also holds where nothing is.
pub(crate) fn check_json(expected: &BTreeMap<String, JsonExpected>, document: &Value) -> Result<(), String> {
    for (pointer, expected) in expected {
        let seen = document.pointer(pointer);
        let (holds, expected) = match expected {
            JsonExpected::Value(value) => (is_equal(value, seen.unwrap_or(&Value::Null)), value.to_string()),
            JsonExpected::Regex(regex) => {
                (seen.is_some_and(|seen| regex.matches(&text(seen))), regex.to_string())
            }
        };
        if !holds {
            let seen =
                seen.map_or("nothing".to_owned(), |seen| seen.to_string().chars().take(1000).collect());
            return Err(format!("json {pointer}: expected {expected}, seen {seen}"));
        }
    }
    Ok(())
}

/// 2 and 2.0 are the same number.
fn is_equal(expected: &Value, seen: &Value) -> bool {
    match (expected, seen) {
        (Value::Number(expected), Value::Number(seen)) => expected.as_f64() == seen.as_f64(),
        (Value::Array(expected), Value::Array(seen)) => {
            expected.len() == seen.len()
                && expected.iter().zip(seen).all(|(expected, seen)| is_equal(expected, seen))
        }
        (Value::Object(expected), Value::Object(seen)) => {
            let is_there =
                |(key, value): (&String, &Value)| seen.get(key).is_some_and(|seen| is_equal(value, seen));
            expected.len() == seen.len() && expected.iter().all(is_there)
        }
        _ => expected == seen,
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
