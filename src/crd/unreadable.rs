//! What stands for a [`RateLimitPolicy`] that cannot be read. It was to limit its target, and nobody knows how, so nothing is
//! let through; were it left out, the target would be open.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::rate_limit_policy::{RateLimitPolicy, RateLimitPolicySpec, TargetRef};

/// Why a policy cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The field as a path, such as `spec.limits[0].requests`; empty for the object as a whole.
    pub field: String,
    /// What is wrong with it, and what to write.
    pub problem: String,
}

impl Unreadable {
    /// What `serde` says of a field, in words for those who write manifests.
    #[must_use]
    pub fn new(field: &str, said: &str) -> Self {
        if let Some(name) = said.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            let field = if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
            let problem = format!("is missing: write {}", form(&field, ""));
            return Self { field, problem };
        }
        let wrong = ["invalid type: ", "invalid value: "].iter().find_map(|start| said.strip_prefix(start));
        let problem = match wrong.and_then(|rest| rest.split_once(", expected ")) {
            Some((found, expected)) => format!("is {found}: write {}", form(field, expected)),
            None => said.to_owned(),
        };
        Self { field: field.to_owned(), problem }
    }
}

/// What a field is to hold, by its name or by its type.
fn form<'a>(field: &str, expected: &'a str) -> &'a str {
    match field.rsplit('.').next().unwrap_or_default() {
        "spec" => "`targetRef` and `limits`",
        "targetRef" => "the `kind` and the `name` of an object in the policy's namespace",
        "kind" => "Ingress or VirtualService",
        "limits" => "a list of limits, each with `key`, `requests` and `window`",
        "requests" => "a whole number from 0 to 4294967295",
        "reserve" => "a whole number from 0 to 1000000000",
        "status" => "a whole number from 400 to 599",
        "window" => "a whole number and `s`, `m`, `h` or `d`, such as `90s` or `1h`",
        "failureMode" => "`open`, `closed` or `local`",
        "limitHeaders" => "`openai`",
        _ => match expected {
            "a boolean" => "`true` or `false`",
            "a string" | "" => "a text",
            "a sequence" => "a list",
            "struct PolicyLimit" => "`key`, `requests` and `window`",
            "struct PolicyKey" => "one thing to count by, such as `{header: x-api-key}`",
            "a map" => "names and values",
            expected if expected.starts_with("struct ") => "a map of fields",
            expected => expected,
        },
    }
}

impl RateLimitPolicy {
    /// What can be told of a policy that cannot be read: its names and its target, and whether it is in shadow. Where its
    /// target cannot be told, that has no kind and no name.
    #[must_use]
    pub fn unreadable(value: &Value, why: Unreadable) -> Self {
        let metadata = &value["metadata"];
        let metadata = part(metadata).unwrap_or_else(|| ObjectMeta {
            name: part(&metadata["name"]),
            namespace: part(&metadata["namespace"]),
            ..ObjectMeta::default()
        });
        let spec = &value["spec"];
        let target = &spec["targetRef"];
        let text = |field: &str| part::<String>(&target[field]);
        let target_ref = TargetRef {
            kind: text("kind").unwrap_or_default(),
            name: text("name").unwrap_or_default(),
            host: text("host"),
            route: text("route"),
            ..TargetRef::default()
        };
        let spec = RateLimitPolicySpec {
            target_ref,
            shadow: in_shadow(spec),
            unreadable: Some(why),
            ..RateLimitPolicySpec::default()
        };
        Self { metadata, spec, status: None }
    }
}

/// Whether all of it is in shadow, whatever else it says.
fn in_shadow(spec: &Value) -> bool {
    let marked = |value: &Value| value["shadow"] == true;
    let limits = spec["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    marked(spec) || spec["shadow"].is_null() && !limits.is_empty() && limits.iter().all(marked)
}

fn part<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_for_those_who_write_it() {
        let whole = "a whole number from 0 to 4294967295";
        for (field, said, expected) in [
            (
                "spec.limits[0].requests",
                "invalid type: string \"2\", expected u32",
                format!("spec.limits[0].requests is string \"2\": write {whole}"),
            ),
            (
                "spec.limits[0]",
                "missing field `requests`",
                format!("spec.limits[0].requests is missing: write {whole}"),
            ),
            ("", "missing field `spec`", "spec is missing: write `targetRef` and `limits`".to_owned()),
            (
                "spec.shadow",
                "invalid type: string \"false\", expected a boolean",
                "spec.shadow is string \"false\": write `true` or `false`".to_owned(),
            ),
            ("spec", "something else", "spec something else".to_owned()),
        ] {
            let Unreadable { field, problem } = Unreadable::new(field, said);
            assert_eq!(format!("{field} {problem}"), expected);
        }
    }

    #[test]
    fn its_target_is_told_where_it_can_be() {
        let policy = |spec: Value| {
            let value = json!({"metadata": {"name": "a", "namespace": "b", "labels": 1}, "spec": spec});
            RateLimitPolicy::unreadable(&value, Unreadable::new("spec", "x"))
        };
        let full = policy(json!({"targetRef": {"kind": "Ingress", "name": "api", "host": 1, "route": "/"}}));
        assert_eq!(
            (full.metadata.name.as_deref(), full.metadata.namespace.as_deref()),
            (Some("a"), Some("b"))
        );
        let target = &full.spec.target_ref;
        assert_eq!((target.kind.as_str(), target.name.as_str()), ("Ingress", "api"));
        assert_eq!((target.host.as_deref(), target.route.as_deref()), (None, Some("/")));
        assert_eq!(policy(json!(1)).spec.target_ref, TargetRef::default());
        for (spec, shadow) in [
            (json!({"shadow": true}), true),
            (json!({"shadow": "true"}), false),
            (json!({"limits": [{"shadow": true}, {"shadow": true}]}), true),
            (json!({"limits": [{"shadow": true}, {}]}), false),
            (json!({"limits": []}), false),
            (json!({"shadow": "false", "limits": [{"shadow": true}]}), false),
        ] {
            assert_eq!(policy(spec.clone()).spec.shadow, shadow, "{spec}");
        }
    }
}
