//! What envoyproxy/ratelimit means by its files, case by case: its own source is where each comes from.

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

use super::*;
use crate::model::limit::Algorithm;

pub(super) const PLAIN: Reading =
    Reading { compatible: Compatible { keys: false, charge: false, probe: false }, merge_domains: false };

pub(super) fn entries(text: &str) -> Vec<Entry> {
    let entry = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Entry { key: key.into(), value: value.into() }
    };
    text.split(' ').filter(|pair| !pair.is_empty()).map(entry).collect()
}

pub(super) fn read(text: &str, reading: Reading) -> Result<Rules, Error> {
    Rules::read(&[("a.yaml".into(), text.into())], reading)
}

/// The place of the rule that limits a descriptor, and the key it is counted by.
fn found(rules: &Rules, domain: &str, descriptor: &str) -> Option<(String, String)> {
    let entries = entries(descriptor);
    rules.find(domain, &entries).map(|found| {
        let key: Vec<_> = found.key.iter().map(|entry| format!("{}={}", entry.key, entry.value)).collect();
        (found.rule.path.to_string(), key.join(" "))
    })
}

const MATCHING: &str = "
domain: d
descriptors:
- key: a
  value: x
  rate_limit: {unit: minute, requests_per_unit: 1}
- key: a
  rate_limit: {unit: minute, requests_per_unit: 2}
  descriptors:
  - key: b
    rate_limit: {unit: minute, requests_per_unit: 3}
- key: w
  value: foo*
  rate_limit: {unit: minute, requests_per_unit: 4}
- key: w
  value: '*'
  rate_limit: {unit: minute, requests_per_unit: 5}
- key: w
  value: foobar
  rate_limit: {unit: minute, requests_per_unit: 6}
- key: w
  rate_limit: {unit: minute, requests_per_unit: 7}
- key: v
  value: '*.js'
  rate_limit: {unit: minute, requests_per_unit: 8}
- key: v
  value: a*b*c
  rate_limit: {unit: minute, requests_per_unit: 9}
- key: v
  rate_limit: {unit: minute, requests_per_unit: 10}
- key: outer
  descriptors:
  - key: inner
    value: p*
    descriptors:
    - key: leaf
      rate_limit: {unit: minute, requests_per_unit: 11}
- key: n
  value: 404
  rate_limit: {unit: minute, requests_per_unit: 12}
- key: bare
  value: none
- key: bare
  rate_limit: {unit: minute, requests_per_unit: 13}
";

#[test]
fn the_order_and_the_depth_of_matches() {
    let rules = read(MATCHING, PLAIN).unwrap();
    for (descriptor, expected) in [
        ("a=x", Some("d.a_x")),
        ("a=y", Some("d.a")),
        ("a", Some("d.a")),
        // As many levels as entries: neither more nor less.
        ("a=y b=1", Some("d.a.b")),
        ("a=x b=1", None),
        ("a=y b=1 c=1", None),
        ("outer=1", None),
        ("outer=1 inner=p", None),
        ("outer=1 inner=p7 leaf=z", Some("d.outer.inner_p*.leaf")),
        ("outer=1 inner=q leaf=z", None),
        // The value, then the first pattern in file order, then the key alone.
        ("w=foobar", Some("d.w_foobar")),
        ("w=foo", Some("d.w_foo*")),
        ("w=fooz", Some("d.w_foo*")),
        ("w=bar", Some("d.w_*")),
        ("w", Some("d.w_*")),
        // A star may stand anywhere, and more than once.
        ("v=x.js", Some("d.v_*.js")),
        ("v=x.jsx", Some("d.v")),
        ("v=a1b2c", Some("d.v_a*b*c")),
        ("v=abcd", Some("d.v")),
        // A value is text, whatever YAML takes it for.
        ("n=404", Some("d.n_404")),
        // What matches and has no limit is not passed over for the key alone.
        ("bare=none", None),
        ("bare=other", Some("d.bare")),
        ("x=1", None),
        ("", None),
    ] {
        assert_eq!(found(&rules, "d", descriptor).map(|(path, _)| path).as_deref(), expected, "{descriptor}");
    }
    assert_eq!(found(&rules, "other", "a=x"), None);
}

#[test]
fn joined_keys_are_ambiguous_only_where_that_is_asked_for() {
    let text = "
domain: d
descriptors:
- {key: a, value: b_c, rate_limit: {unit: minute, requests_per_unit: 1}}
- {key: p_q, rate_limit: {unit: minute, requests_per_unit: 2}}
- {key: s*, rate_limit: {unit: minute, requests_per_unit: 3}}
- {key: t, rate_limit: {unit: minute, requests_per_unit: 4}}";
    let joined = Reading { compatible: Compatible { keys: true, ..Compatible::default() }, ..PLAIN };
    let (plain, joined) = (read(text, PLAIN).unwrap(), read(text, joined).unwrap());
    for (descriptor, ours, theirs) in [
        ("a=b_c", Some(("d.a_b_c", "a=b_c")), Some(("d.a_b_c", "a_b_c="))),
        ("a_b=c", None, Some(("d.a_b_c", "a_b_c="))),
        ("p=q", None, Some(("d.p_q", "p_q="))),
        ("p_q=1", Some(("d.p_q", "p_q=1")), Some(("d.p_q", "p_q_1="))),
        ("sx=1", None, Some(("d.s*", "sx_1="))),
        ("t=1", Some(("d.t", "t=1")), Some(("d.t", "t_1="))),
    ] {
        let owned = |pair: Option<(&str, &str)>| pair.map(|(path, key)| (path.to_owned(), key.to_owned()));
        assert_eq!(found(&plain, "d", descriptor), owned(ours), "{descriptor}");
        assert_eq!(found(&joined, "d", descriptor), owned(theirs), "{descriptor}, joined");
    }
    let twice = "
domain: d
descriptors: [{key: a, value: b_c}, {key: a_b, value: c}]";
    assert!(read(twice, PLAIN).is_ok());
    assert!(read(twice, joined.reading()).unwrap_err().to_string().contains("duplicate"));
}

#[test]
fn values_that_share_a_threshold_share_a_counter() {
    let rules = read(
        "
domain: d
descriptors:
- key: files
  value: files/*
  share_threshold: true
  rate_limit: {unit: minute, requests_per_unit: 1}
  descriptors:
  - {key: user, rate_limit: {unit: minute, requests_per_unit: 1}}
- key: own
  value: own/*
  rate_limit: {unit: minute, requests_per_unit: 1}",
        PLAIN,
    )
    .unwrap();
    for (descriptor, key) in [
        ("files=files/a.pdf", "files=files/*"),
        ("files=files/b.csv", "files=files/*"),
        ("files=files/b.csv user=u", "files=files/* user=u"),
        ("own=own/a", "own=own/a"),
    ] {
        assert_eq!(found(&rules, "d", descriptor).map(|(_, key)| key).as_deref(), Some(key), "{descriptor}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_is_accepted() {
    let one = |descriptor: &str| format!("domain: d\ndescriptors:\n- {{key: k}}\n- {descriptor}");
    for (text, words) in [
        (String::new(), &["a.yaml: domain: is empty"][..]),
        ("descriptors: []".into(), &["a.yaml: domain: is empty"]),
        ("domain: ''".into(), &["a.yaml: domain: is empty"]),
        (
            "domain: d\nnope: 1".into(),
            &["a.yaml: ", "unknown field `nope`", "expected one of domain, descriptors"],
        ),
        (one("{value: v}"), &["a.yaml: descriptors[1].key: descriptor has empty key"]),
        (one("{key: k}"), &["a.yaml: descriptors[1]: duplicate descriptor composite key 'd.k'"]),
        (
            one("{key: l, keys: 1}"),
            &["descriptors[1]", "unknown field `keys`", "expected one of key, value, "],
        ),
        (
            one("{key: l, rate_limit: {unit: minute, requests_per_unit: -1}}"),
            &["descriptors[1].rate_limit.requests_per_unit"],
        ),
        (
            one("{key: l, rate_limit: {unit: minute, shadow_mode: true}}"),
            &["descriptors[1].rate_limit", "`shadow_mode`", "requests_per_unit"],
        ),
        (one("{key: l, shadow_mode: maybe}"), &["descriptors[1].shadow_mode"]),
        (one("{key: l, descriptors: {}}"), &["descriptors[1].descriptors"]),
        (
            one("{key: l, descriptors: [{key: m, rate_limit: {unit: fortnight}}]}"),
            &[
                "a.yaml: descriptors[1].descriptors[0].rate_limit.unit: invalid rate limit unit 'fortnight'",
                "second, minute, hour, day, week, month, year",
            ],
        ),
        (one("{key: l, rate_limit: {}}"), &["invalid rate limit unit ''"]),
        (one("{key: l, rate_limit: {unit: unknown}}"), &["invalid rate limit unit 'unknown'"]),
        (
            one("{key: l, rate_limit: {unlimited: true, unit: day}}"),
            &["should not specify rate limit unit when unlimited"],
        ),
        (
            one("{key: l, rate_limit: {unit: day, replaces: [{name: ''}]}}"),
            &["replaces[0].name: should not be empty"],
        ),
        (
            one("{key: l, rate_limit: {unit: day, name: n, replaces: [{name: n}]}}"),
            &["replaces[0].name", "own name 'n'"],
        ),
        (
            one("{key: l, value: v, share_threshold: true}"),
            &["descriptors[1].share_threshold: can only be used with a wildcard value"],
        ),
        ("domain: [".into(), &["a.yaml: "]),
        ("domain: d\ndomain: e".into(), &["a.yaml: ", "domain"]),
    ] {
        let error = read(&text, PLAIN).unwrap_err().to_string();
        assert!(words.iter().all(|words| error.contains(words)), "{text}\n{error}");
    }
}

#[test]
fn every_key_and_unit_is_taken() {
    let text = "
domain: d
descriptors:
- key: k
  value:
  detailed_metric: true
  value_to_metric: false
  quota_mode: yes
  metadata: {model: {name: m}, list: [1, true]}
  rate_limit: {unit: DAY, requests_per_unit: 4294967295, name: n, replaces: [{name: o}]}
  descriptors:";
    let rules = read(text, PLAIN).unwrap();
    let rule = rules.iter().next().unwrap();
    assert!(matches!(rule.limit.algorithm, Algorithm::AlignedWindow { .. }), "windows of the clock");
    assert!(rule.quota && !rule.shadow && !rule.unlimited);
    assert_eq!((rule.name(), rule.replaces().len(), rule.metadata().unwrap().len()), ("n", 1, 2));
    assert_eq!(rule.limit.algorithm.quota(), (u32::MAX, 86_400_000));
    for (unit, seconds) in [
        ("second", 1),
        ("Minute", 60),
        ("HOUR", 3_600),
        ("day", 86_400),
        ("week", 604_800),
        ("month", 2_592_000),
        ("year", 31_536_000),
    ] {
        let text = format!(
            "domain: d\ndescriptors: [{{key: k, rate_limit: {{unit: {unit}, requests_per_unit: 1}}}}]"
        );
        let rules = read(&text, PLAIN).unwrap();
        assert_eq!(rules.iter().next().unwrap().limit.algorithm.quota(), (1, seconds * 1_000), "{unit}");
    }
}

#[test]
fn a_domain_in_two_files() {
    let file = |name: &str, key: &str| {
        let text = format!(
            "domain: d\ndescriptors: [{{key: {key}, rate_limit: {{unit: day, requests_per_unit: 1}}}}]"
        );
        (name.to_owned(), text)
    };
    let files = [file("a.yaml", "a"), file("b.yaml", "b")];
    let error = Rules::read(&files, PLAIN).unwrap_err().to_string();
    assert!(error.starts_with("b.yaml: domain: duplicate domain 'd'"), "{error}");
    let merging = Reading { merge_domains: true, ..PLAIN };
    let rules = Rules::read(&files, merging).unwrap();
    assert!(["a", "b"].iter().all(|key| found(&rules, "d", key).is_some()));
    let error = Rules::read(&[file("a.yaml", "a"), file("b.yaml", "a")], merging).unwrap_err().to_string();
    assert!(error.starts_with("b.yaml: descriptors[0]: duplicate"), "{error}");
}
