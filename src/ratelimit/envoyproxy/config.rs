//! The form of its xDS type: a message says what a file says.

use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value as AnyValue};
use envoy_types::pb::ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
};
use serde_json::{Map, Number, Value};

use super::yaml::{Descriptor, File, RateLimit, Replaces};

/// What a file of this would say. It has no `share_threshold` and no `value_to_metric`.
pub(super) fn file(config: RateLimitConfig) -> File {
    let RateLimitConfig { name: _, domain, descriptors } = config;
    File { domain, descriptors: descriptors.into_iter().map(descriptor).collect() }
}

fn descriptor(message: RateLimitDescriptor) -> Descriptor {
    let RateLimitDescriptor {
        key,
        value,
        rate_limit,
        descriptors,
        shadow_mode,
        detailed_metric,
        quota_mode,
        metadata,
    } = message;
    Descriptor {
        key,
        value,
        rate_limit: rate_limit.map(limit),
        descriptors: descriptors.into_iter().map(descriptor).collect(),
        shadow_mode,
        quota_mode,
        share_threshold: false,
        detailed_metric,
        value_to_metric: false,
        metadata: metadata.map(map).unwrap_or_default(),
    }
}

fn limit(message: RateLimitPolicy) -> RateLimit {
    let RateLimitPolicy { unit, requests_per_unit, unlimited, name, replaces } = message;
    let unit = match RateLimitUnit::try_from(unit) {
        Ok(unit) => unit.as_str_name().to_owned(),
        Err(_) => unit.to_string(),
    };
    let replaces = replaces.into_iter().map(|replaced| Replaces { name: replaced.name }).collect();
    RateLimit { unit, requests_per_unit, unlimited, name, replaces }
}

fn map(message: Struct) -> Map<String, Value> {
    message.fields.into_iter().map(|(name, field)| (name, value(field))).collect()
}

/// Numbers are floating point there, whole ones too.
fn value(message: AnyValue) -> Value {
    match message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::NumberValue(value)) => Number::from_f64(value).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(value)) => value.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(value).collect(),
        Some(Kind::StructValue(fields)) => map(fields).into(),
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
    use envoy_types::pb::google::protobuf::ListValue;
    use envoy_types::pb::ratelimit::config::ratelimit::v3::RateLimitReplace;

    use super::*;
    use crate::ratelimit::envoyproxy::{Reading, Rules};

    fn policy(unit: RateLimitUnit) -> RateLimitPolicy {
        RateLimitPolicy { unit: unit.into(), requests_per_unit: 5, ..RateLimitPolicy::default() }
    }

    fn one(key: &str, policy: RateLimitPolicy) -> RateLimitDescriptor {
        RateLimitDescriptor { key: key.into(), rate_limit: Some(policy), ..RateLimitDescriptor::default() }
    }

    fn read(name: &str, domain: &str, descriptors: Vec<RateLimitDescriptor>) -> Result<Rules, String> {
        let config = RateLimitConfig { name: name.into(), domain: domain.into(), descriptors };
        Rules::of_configs([config.clone()], Reading::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_field_is_taken() {
        let list = ListValue { values: vec![AnyValue { kind: Some(Kind::BoolValue(true)) }] };
        let metadata = Struct {
            fields: [
                ("name".to_owned(), AnyValue { kind: Some(Kind::StringValue("m".into())) }),
                ("list".to_owned(), AnyValue { kind: Some(Kind::ListValue(list)) }),
            ]
            .into(),
        };
        let inner = RateLimitDescriptor {
            value: "p*".into(),
            shadow_mode: true,
            quota_mode: true,
            detailed_metric: true,
            metadata: Some(metadata),
            ..one(
                "inner",
                RateLimitPolicy {
                    name: "n".into(),
                    replaces: vec![RateLimitReplace { name: "o".into() }],
                    ..policy(RateLimitUnit::Week)
                },
            )
        };
        let outer = RateLimitDescriptor {
            key: "outer".into(),
            descriptors: vec![inner],
            ..RateLimitDescriptor::default()
        };
        let free = one("free", RateLimitPolicy { unlimited: true, ..RateLimitPolicy::default() });
        let rules = read("r", "d", vec![outer, free]).unwrap();
        let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into() };
        let entries = [entry("outer", "x"), entry("inner", "p7")];
        let rule = rules.find("d", &entries).unwrap().rule;
        assert_eq!(rule.limit.algorithm.quota(), (5, 7 * 86_400_000));
        assert!(rule.shadow && rule.quota && !rule.unlimited && rule.naming().is_some());
        assert_eq!((rule.name(), &*rule.replaces()[0]), ("n", "o"));
        assert_eq!(
            Value::from(rule.metadata().unwrap().clone()),
            serde_json::json!({"name": "m", "list": [true]})
        );
        assert!(rules.find("d", &[entry("free", "")]).unwrap().rule.unlimited);
    }

    #[test]
    fn what_is_wrong_is_said_as_of_files() {
        let nested = RateLimitDescriptor {
            descriptors: vec![one("m", policy(RateLimitUnit::Unknown))],
            ..one("l", policy(RateLimitUnit::Day))
        };
        let odd = RateLimitPolicy { unit: 99, ..RateLimitPolicy::default() };
        let day = || policy(RateLimitUnit::Day);
        for (domain, descriptors, words) in [
            ("", vec![], "r: domain: is empty"),
            (
                "d",
                vec![nested],
                "r: descriptors[0].descriptors[0].rate_limit.unit: invalid rate limit unit 'UNKNOWN': expected second,",
            ),
            ("d", vec![one("k", odd)], "invalid rate limit unit '99'"),
            (
                "d",
                vec![one("k", RateLimitPolicy { unlimited: true, ..day() })],
                "should not specify rate limit unit when unlimited",
            ),
            ("d", vec![one("", day())], "r: descriptors[0].key: descriptor has empty key"),
            ("d", vec![one("k", day()), one("k", day())], "r: descriptors[1]: duplicate"),
        ] {
            let error = read("r", domain, descriptors).unwrap_err();
            assert!(error.contains(words), "{error}: {words}");
        }
    }

    #[test]
    fn a_domain_in_two_messages() {
        let config = |name: &str| RateLimitConfig {
            name: name.into(),
            domain: "d".into(),
            descriptors: vec![one(name, policy(RateLimitUnit::Day))],
        };
        let both = [config("a"), config("b")];
        let error = Rules::of_configs(both.clone(), Reading::default()).unwrap_err().to_string();
        assert!(error.starts_with("b: domain: duplicate domain 'd'"), "{error}");
        let merging = Reading { merge_domains: true, ..Reading::default() };
        assert_eq!(Rules::of_configs(both, merging).unwrap().iter().count(), 2);
    }
}
