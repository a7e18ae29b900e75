use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn words() {
    let cases = [
        ("~", json!(null)),
        ("null", json!(null)),
        ("''", json!("")),
        ("true", json!(true)),
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("'yes'", json!("yes")),
        ("y", json!("y")),
        ("no-cache", json!("no-cache")),
        ("8080", json!(8080)),
        ("\"8080\"", json!("8080")),
        ("-1", json!(-1)),
        ("+1", json!(1)),
        ("18446744073709551615", json!(18446744073709551615_u64)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("0x1F", json!(31)),
        ("0o17", json!(15)),
        ("0b11", json!(3)),
        ("0644", json!(420)),
        ("08", json!(8.0)),
        ("1.10", json!(1.1)),
        (".5", json!(0.5)),
        ("1e3", json!(1000.0)),
        ("-", json!([null])),
        (".", json!(".")),
        ("10.0.0.1", json!("10.0.0.1")),
        ("1.2.3", json!("1.2.3")),
        ("5s", json!("5s")),
        ("12:30", json!("12:30")),
        ("2024-01-01T00:00:00Z", json!("2024-01-01T00:00:00Z")),
        (".inf", json!(".inf")),
        ("1_000", json!("1_000")),
        ("/api(/|$)(.*)", json!("/api(/|$)(.*)")),
        ("!!str 8080", json!("8080")),
        ("! 8080", json!("8080")),
        ("!!int 8080", json!(8080)),
        ("!!binary |\n  aGVs\n  bG8=\n", json!("aGVsbG8=")),
        ("|\n  a\n   b\n", json!("a\n b\n")),
        (">-\n  a\n  b\n", json!("a b")),
        ("{a: 1, b: [x, 'y']}", json!({"a": 1, "b": ["x", "y"]})),
        ("a: 1 # one\n# two\nb:\n", json!({"a": 1, "b": null})),
        ("1: a\ntrue: b\n", json!({"1": "a", "true": "b"})),
    ];
    for (text, expected) in cases {
        let expected = if expected.is_null() { vec![] } else { vec![expected] };
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
}

#[test]
fn aliases_and_merges() {
    let text = "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\nitem:\n  <<: [*base, *more]\n  a: 0\nagain: *base\n";
    let base = json!({"a": 1, "b": 2});
    let expected = json!({
        "base": base, "more": {"b": 3, "c": 4}, "item": {"a": 0, "b": 2, "c": 4}, "again": base
    });
    assert_eq!(parse(text), Ok(vec![expected]));
}

#[test]
fn what_is_refused_says_where() {
    let cases = [
        ("a: 1\nb: 2\na: 3\n", 3, "the key `a` stands twice"),
        ("a: *b\n", 1, "unknown anchor"),
        ("a: !Ref b\n", 1, "the tag `!Ref` is not known"),
        ("a: !!int b\n", 1, "\"b\" is no `!!int`"),
        ("? [a]\n: b\n", 1, "a key must be text"),
        ("a:\n  <<: 1\n", 2, "`<<` takes a mapping"),
        ("a: b: c\n", 1, ""),
        ("b: 1\na: [1, 2\n", 2, "unclosed"),
        ("{{ .Values.name }}: x\n", 1, ""),
        ("a:\n\t- b\n", 2, ""),
    ];
    for (text, line, message) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.message.contains(message) && !error.message.is_empty(), "{text:?}: {error}");
        assert_eq!(error.line, line, "{text:?}: {error}");
    }
}

#[test]
fn bombs_are_refused() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    assert!(parse(&deep).unwrap_err().message.contains("nested"));
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        laughs.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    assert!(parse(&laughs).unwrap_err().message.contains("aliases repeat"));
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~\n]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z.~-]{1,8}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    /// What is written as YAML or JSON is read as it was.
    #[test]
    fn what_is_written_is_read(value in values()) {
        prop_assume!(!value.is_null());
        prop_assert_eq!(parse(&value.to_string()), Ok(vec![value.clone()]));
        let yaml = serde_saphyr::to_string(&value).unwrap();
        prop_assert_eq!(parse(&yaml), Ok(vec![value]), "{}", yaml);
    }

    #[test]
    fn anything_is_read_or_refused(text in "[ -~\n\t]{0,64}") {
        let _ = parse(&text);
    }
}
