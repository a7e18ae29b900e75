//! The names and numbers of envoyproxy/ratelimit: what its own service said, of the version of
//! `scripts/install-envoyproxy-ratelimit` and with `USE_PROMETHEUS`, to the same files and requests.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitRequest;
use tokio::sync::watch;

use super::*;
use crate::ratelimit::counters::memory::Memory;
use crate::ratelimit::envoyproxy::names::NAMED;
use crate::ratelimit::envoyproxy::{Compatible, Reading};
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

const NAMED_RULES: &str = r#"
domain: shop
descriptors:
- {key: user, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 5}}
- {key: team, value_to_metric: true, rate_limit: {unit: day, requests_per_unit: 5}}
- {key: fixed, value: gold, value_to_metric: true, rate_limit: {unit: day, requests_per_unit: 5}}
- {key: path, value: /api/*, value_to_metric: true, rate_limit: {unit: day, requests_per_unit: 5}}
- {key: file, value: a*, value_to_metric: true, share_threshold: true, rate_limit: {unit: day, requests_per_unit: 5}}
- {key: shared, value: a*, detailed_metric: true, share_threshold: true, rate_limit: {unit: day, requests_per_unit: 5}}
- key: route
  value_to_metric: true
  descriptors:
  - key: method
    rate_limit: {unit: day, requests_per_unit: 5}
    descriptors: [{key: leaf, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 5}}]
- key: bucket
  value: b*
  share_threshold: true
  descriptors: [{key: leaf, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 5}}]
- key: outer
  detailed_metric: true
  descriptors: [{key: leaf, rate_limit: {unit: day, requests_per_unit: 5}}]"#;

fn rules(text: &str) -> Rules {
    Rules::read(&[("a.yaml".into(), text.into())], Reading::default()).unwrap()
}

struct Service(RateLimit<Memory>);

impl Service {
    fn new(text: &str, options: Options) -> Self {
        Self::of(rules(text), options)
    }

    fn of(rules: Rules, options: Options) -> Self {
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
    let again = self::rules(RULES);
    assert_eq!(rules.stats.labelled.load(Ordering::Relaxed), LABELLED);
    assert_eq!(
        again.continuing(&rules).stats.labelled.load(Ordering::Relaxed),
        0,
        "those that went make room"
    );
}

#[tokio::test]
async fn values_are_told_as_there() {
    let service = Service::new(NAMED_RULES, Options::default());
    let requests: [&[(&str, &str)]; 17] = [
        &[("user", "ann")],
        &[("user", "")],
        &[("user", "a\"b")],
        &[("team", "red")],
        &[("team", "")],
        &[("fixed", "gold")],
        &[("path", "/api/x")],
        &[("path", "/api/*")],
        &[("file", "abc")],
        &[("shared", "abc")],
        &[("route", "r"), ("method", "GET")],
        &[("route", ""), ("method", "GET")],
        &[("route", "r"), ("method", "GET"), ("leaf", "1")],
        &[("route", "r"), ("method", "GET"), ("leaf", "")],
        &[("bucket", "b1"), ("leaf", "x")],
        &[("bucket", "b1"), ("leaf", "")],
        &[("outer", "o"), ("leaf", "z")],
    ];
    for request in requests {
        service.ask(&[request], 0).await;
    }
    assert_eq!(
        service.said("total_hits"),
        [
            r#"rate_limit_total_hits{domain="shop",key1="bucket_b*",key2="leaf"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="bucket_b*",key2="leaf_x"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="file_a*"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="fixed_gold"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="outer",key2="leaf"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="path_/api/*"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="path_/api/x"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="route",key2="method"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="route_r",key2="method"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="route_r",key2="method_GET"} 2"#,
            r#"rate_limit_total_hits{domain="shop",key1="shared_a*"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="team"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="team_red"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="user_"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="user_a\"b"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="user_ann"} 1"#,
        ]
    );
}

#[tokio::test]
async fn values_are_told_of_joined_keys_too() {
    let compatible = Compatible { keys: true, ..Compatible::default() };
    let reading = Reading { compatible, ..Reading::default() };
    let rules = Rules::read(&[("a.yaml".into(), NAMED_RULES.into())], reading).unwrap();
    let service = Service::of(rules, Options::default());
    service.ask(&[&[("route", "r"), ("method", "GET")], &[("path", "/api/x")], &[("file", "abc")]], 0).await;
    assert_eq!(
        service.said("total_hits"),
        [
            r#"rate_limit_total_hits{domain="shop",key1="file_a*"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="path_/api/x"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="route_r",key2="method"} 1"#,
        ]
    );
}

#[tokio::test]
async fn names_that_clients_choose_are_bounded() {
    let service = Service::new(NAMED_RULES, Options::default());
    for n in 0..NAMED + 50 {
        service.ask(&[&[("user", &format!("u{n:04}"))]], 2).await;
    }
    service.ask(&[&[("user", "u0000")]], 1).await;
    service.ask(&[&[("team", "red")]], 1).await;
    let said = service.said("total_hits");
    assert_eq!(said.len(), NAMED + 2);
    assert_eq!(said[0], r#"rate_limit_total_hits{domain="shop",key1="team"} 1"#, "its plain name");
    assert_eq!(said[1], r#"rate_limit_total_hits{domain="shop",key1="user"} 100"#, "its plain name");
    assert_eq!(said[2], r#"rate_limit_total_hits{domain="shop",key1="user_u0000"} 3"#);
    let short = Service::new(NAMED_RULES, Options::default());
    short.ask(&[&[("user", &"x".repeat(2_000))]], 1).await;
    assert_eq!(short.said("total_hits"), [r#"rate_limit_total_hits{domain="shop",key1="user"} 1"#]);
}

#[tokio::test]
async fn names_outlive_a_change_and_go_with_their_rule() {
    let service = Service::new(NAMED_RULES, Options::default());
    service.ask(&[&[("user", "ann")], &[("team", "red")]], 1).await;
    let before = service.0.rules();
    let without_team = NAMED_RULES.replace("{key: team, value_to_metric: true,", "{key: team,");
    let service = Service::of(rules(&without_team).continuing(&before), Options::default());
    assert_eq!(service.said("total_hits"), [r#"rate_limit_total_hits{domain="shop",key1="user_ann"} 1"#]);
    service.ask(&[&[("user", "ann")], &[("team", "red")]], 1).await;
    assert_eq!(
        service.said("total_hits"),
        [
            r#"rate_limit_total_hits{domain="shop",key1="team"} 1"#,
            r#"rate_limit_total_hits{domain="shop",key1="user_ann"} 2"#,
        ]
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
