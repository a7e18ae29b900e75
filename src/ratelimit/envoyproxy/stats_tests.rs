//! The names and numbers of envoyproxy/ratelimit: what its own service said, of the version of
//! `scripts/install-envoyproxy-ratelimit` and with `USE_PROMETHEUS`, to the same files and requests.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use tokio::sync::watch;

use super::*;
use crate::ratelimit::counters::memory::Memory;
use crate::ratelimit::envoyproxy::Reading;
use crate::ratelimit::service::{Modes, Options, RateLimit};

const RULES: &str = r#"
domain: shop
descriptors:
- {key: user, rate_limit: {unit: day, requests_per_unit: 5}}
- key: plan
  value: free
  descriptors:
  - key: user
    rate_limit: {unit: day, requests_per_unit: 5}
    descriptors: [{key: deep, rate_limit: {unit: day, requests_per_unit: 2}}]
- {key: ghost, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: ip, value: "10.0.0.1:80", rate_limit: {unit: day, requests_per_unit: 1}}
- {key: open, rate_limit: {unlimited: true}}
- {key: none, rate_limit: {unit: day, requests_per_unit: 0}}
- {key: path, value: /static/*, rate_limit: {unit: day, requests_per_unit: 3}}"#;

struct Service(RateLimit<Memory>);

impl Service {
    fn new(text: &str, options: Options) -> Self {
        let rules = Rules::read(&[("a.yaml".into(), text.into())], Reading::default()).unwrap();
        rules.stats.loaded();
        let (limits, rules) = (watch::channel(Arc::default()).1, watch::channel(Arc::new(rules)).1);
        Self(RateLimit::new(limits, Arc::default(), Arc::default()).with_rules(rules, options))
    }

    /// One request with these descriptors, each so many times the same hits.
    async fn ask(&self, descriptors: &[&[(&str, &str)]], hits: u32) {
        let entry = |(key, value): &(&str, &str)| Entry { key: (*key).into(), value: (*value).into() };
        let descriptor = |entries: &&[(&str, &str)]| RateLimitDescriptor {
            entries: entries.iter().map(entry).collect(),
            ..RateLimitDescriptor::default()
        };
        let request = RateLimitRequest {
            domain: "shop".into(),
            descriptors: descriptors.iter().map(descriptor).collect(),
            hits_addend: hits,
        };
        let _ = self.0.decide(&request).await;
    }

    /// The lines of its metrics that have this in them, and a number above 0; without the names' common beginning, and
    /// labels that are empty.
    fn said(&self, of: &str) -> Vec<String> {
        let text = self.0.metrics().unwrap();
        let shown = |line: &str| {
            let line = line.strip_prefix("ratelimit_service_")?.replace(r#",key2="""#, "");
            (line.contains(of) && !line.ends_with(" 0")).then_some(line)
        };
        text.lines().filter_map(shown).collect()
    }
}

#[tokio::test]
async fn hits_are_told_as_there() {
    let service = Service::new(RULES, Options::default());
    for _ in 0..6 {
        service.ask(&[&[("user", "ann")]], 0).await;
    }
    service.ask(&[&[("plan", "free"), ("user", "bob")]], 0).await;
    service.ask(&[&[("plan", "free"), ("user", "bob"), ("deep", "x")]], 0).await;
    service.ask(&[&[("ghost", "a")]], 0).await;
    service.ask(&[&[("ghost", "a")]], 0).await;
    service.ask(&[&[("ip", "10.0.0.1:80")]], 0).await;
    service.ask(&[&[("open", "a")]], 0).await;
    service.ask(&[&[("path", "/static/a")]], 0).await;
    // What refuses the one is not what the other says.
    service.ask(&[&[("none", "a")], &[("path", "/static/b")]], 0).await;
    service.ask(&[&[("elsewhere", "a")]], 0).await;
    service.ask(&[], 0).await;
    assert_eq!(
        service.said("rate_limit_"),
        [
            r#"rate_limit_total_hits{domain="shop",key1="ghost"} 2"#,
            r#"rate_limit_total_hits{domain="shop",key1="ip_10_0_0_1_80"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="none"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="path_/static/*"} 2"#,
            r#"rate_limit_total_hits{domain="shop",key1="plan_free",key2="user"} 2"#,
            r#"rate_limit_total_hits{domain="shop",key1="user"} 6"#,
            r#"rate_limit_over_limit{domain="shop",key1="ghost"} 1"#,
            r#"rate_limit_over_limit{domain="shop",key1="none"} 1"#,
            r#"rate_limit_over_limit{domain="shop",key1="user"} 1"#,
            r#"rate_limit_near_limit{domain="shop",key1="ghost"} 1"#,
            r#"rate_limit_near_limit{domain="shop",key1="ip_10_0_0_1_80"} 1"#,
            r#"rate_limit_near_limit{domain="shop",key1="user"} 1"#,
            r#"rate_limit_within_limit{domain="shop",key1="ghost"} 1"#,
            r#"rate_limit_within_limit{domain="shop",key1="ip_10_0_0_1_80"} 1"#,
            r#"rate_limit_within_limit{domain="shop",key1="path_/static/*"} 2"#,
            r#"rate_limit_within_limit{domain="shop",key1="plan_free",key2="user"} 2"#,
            r#"rate_limit_within_limit{domain="shop",key1="user"} 5"#,
            r#"rate_limit_shadow_mode{domain="shop",key1="ghost"} 1"#,
            r#"should_rate_limit_error{err_type="service_error"} 1"#,
        ]
    );
    assert_eq!(service.said("config_load"), ["config_load_success 1"]);
    assert_eq!(service.said("total_requests"), [r#"total_requests{grpc_method="ShouldRateLimit"} 16"#]);
    let count = service.said("response_time_seconds_count");
    assert_eq!(count, [r#"response_time_seconds_count{grpc_method="ShouldRateLimit"} 16"#]);
    assert_eq!(service.said("ann").len() + service.said("elsewhere").len(), 0, "no value of a client's");
}

#[tokio::test]
async fn near_is_what_it_is_said_to_be() {
    for (ratio, hits, near) in [(0.8, 4, 0), (0.8, 5, 1), (0.5, 4, 2), (0.0, 5, 5), (1.0, 5, 0)] {
        let service =
            Service::new(RULES, Options { near_limit: NearLimitRatio(ratio), ..Options::default() });
        service.ask(&[&[("user", "ann")]], hits).await;
        let said = service.said("near_limit{").concat();
        let expected = if near == 0 { String::new() } else { format!(r#"key1="user"}} {near}"#) };
        assert!(said.ends_with(&expected) && said.is_empty() == (near == 0), "{ratio} {hits}: {said}");
    }
}

#[tokio::test]
async fn what_is_not_refused_in_shadow_is_told() {
    let modes = Modes { shadow: true, quota: false };
    let service = Service::new(RULES, Options { modes, ..Options::default() });
    service.ask(&[&[("none", "a")]], 0).await;
    assert_eq!(service.said("shadow_mode"), ["global_shadow_mode 1"]);
    assert_eq!(service.said("over_limit").len(), 1);
}

#[tokio::test]
async fn labels_are_bounded() {
    let descriptors: String = (0..LABELLED + 50)
        .map(|n| format!("- {{key: k{n:04}, rate_limit: {{unit: day, requests_per_unit: 9}}}}\n"))
        .collect();
    let service = Service::new(&format!("domain: shop\ndescriptors:\n{descriptors}"), Options::default());
    for n in 0..LABELLED + 50 {
        service.ask(&[&[(&format!("k{n:04}"), "a")]], 2).await;
    }
    let said = service.said("total_hits");
    assert_eq!(said.len(), LABELLED + 1);
    assert_eq!(said[0], r#"rate_limit_total_hits{domain="other",key1=""} 100"#);
    let rules = service.0.rules();
    let again = Rules::read(&[("a.yaml".into(), RULES.into())], Reading::default()).unwrap();
    assert_eq!(rules.stats.labelled.load(Ordering::Relaxed), LABELLED);
    assert_eq!(
        again.continuing(&rules).stats.labelled.load(Ordering::Relaxed),
        0,
        "those that went make room"
    );
}

#[test]
fn nothing_is_told_without_rules() {
    let service: RateLimit<Memory> =
        RateLimit::new(watch::channel(Arc::default()).1, Arc::default(), Arc::default());
    assert!(!service.metrics().unwrap().contains("ratelimit_service"));
}

#[test]
fn places_are_told_as_there() {
    for (path, expected) in [
        ("shop.user", ["shop", "user", ""]),
        ("shop.plan_free.user.deep", ["shop", "plan_free", "user"]),
        ("shop.ip_10.0.0.1:80", ["shop", "ip_10_0_0_1_80", ""]),
        ("shop.host_a.example.com", ["shop", "host_a", "example"]),
        ("a.b.k_x|y", ["a", "b", "k_x_y"]),
    ] {
        assert_eq!(place(path), expected, "{path}");
    }
}
