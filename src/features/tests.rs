//! Laws that hold for every annotation of the table.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use super::{ANNOTATIONS, Annotation, Effects, Policies, Reader, snippets, unsupported};
use crate::values::{Finding, Findings, HostName, Kind, ObjectKey, Origin};

/// Annotations whose value is any text, or whose form is that of another annotation's context.
const FREE_TEXT: &[&str] = &["canary-by-header-value", "canary-by-header-pattern"];

/// Annotations that say nothing where they are blank, as in ingress-nginx.
const MAY_BE_BLANK: &[&str] = &["auth-method", "auth-response-headers", "auth-signin-redirect-param"];

/// Values that no form but free text takes.
const GARBAGE: &[&str] = &["", " ", "(", "two words\n", "🦀", "\u{0}"];

/// Values that no whole number takes.
const NO_NUMBERS: &[&str] = &["-1", "1.5", "5s", "$1", "99999999999999999999999"];

type Texts = BTreeMap<String, String>;

fn object() -> ObjectKey {
    ObjectKey::new(Kind::Ingress, "shop", "api")
}

fn config_map() -> ObjectKey {
    ObjectKey::new(Kind::ConfigMap, "ingress-nginx", "ingress-nginx-controller")
}

fn table() -> impl Iterator<Item = &'static Annotation> {
    ANNOTATIONS.iter().flat_map(|feature| feature.iter())
}

fn read(annotations: &Texts, defaults: &Texts) -> (Policies, Vec<Finding>) {
    let (object, config_map) = (object(), config_map());
    let mut findings = Findings::default();
    let mut reader = Reader::new(&object, Some(annotations), Some((&config_map, defaults)), &mut findings);
    let policies = Policies::read(&mut reader);
    (policies, findings.into_vec())
}

fn given(annotations: &Texts) -> (Policies, Vec<Finding>) {
    read(annotations, &Texts::new())
}

/// Annotations with the values of their examples.
fn examples<'a>(annotations: impl IntoIterator<Item = &'a Annotation>) -> Texts {
    annotations.into_iter().map(|annotation| (annotation.key(), annotation.example.to_owned())).collect()
}

/// The fields of `Effects` that these policies set.
fn effects(annotations: &Texts) -> BTreeMap<String, Value> {
    let unset = serde_json::to_value(Effects::default()).unwrap();
    let effects = serde_json::to_value(given(annotations).0.effects()).unwrap();
    let fields = effects.as_object().unwrap().iter();
    fields
        .filter(|(name, value)| unset.get(name) != Some(value))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

#[test]
fn a_key_stands_once() {
    let mut seen = BTreeSet::new();
    for annotation in table() {
        assert!(seen.insert(annotation.name), "{} stands twice", annotation.name);
    }
}

#[test]
fn what_is_not_supported_is_sorted_and_not_in_the_table() {
    assert!(unsupported::NAMES.is_sorted_by(|a, b| a < b), "sorted, each once");
    for annotation in table() {
        assert!(!unsupported::NAMES.contains(&annotation.name), "{} is supported", annotation.name);
    }
}

#[test]
fn known_annotations_are_told_from_unknown_ones() {
    let said = |name: &str| {
        let mut findings = Findings::default();
        let annotations = [(format!("{}{name}", super::PREFIX), String::new())].into();
        unsupported::check(
            &object(),
            Some(&annotations),
            true,
            &snippets::Snippets::default(),
            &mut findings,
        );
        findings.iter().map(|finding| (finding.reason, finding.message.clone())).collect::<Vec<_>>()
    };
    for annotation in table() {
        assert_eq!(said(annotation.name), [], "{}", annotation.name);
        let misspelt = said(&format!("{}x", annotation.name));
        assert!(misspelt[0].0 == "UnknownAnnotation" && misspelt[0].1.contains("nearest"), "{misspelt:?}");
    }
    for name in unsupported::NAMES {
        assert_eq!(said(name)[0].0, "NotSupported", "{name}");
    }
}

#[test]
fn every_row_says_all() {
    for Annotation { name, value, default, example, text, config_map } in table() {
        for column in [name, value, default, text, &config_map.unwrap_or("-")] {
            assert!(!column.trim().is_empty(), "{name}: an empty column");
        }
        assert!(text.ends_with('.'), "{name}: the text is a sentence");
        assert!(!text.contains("  ") && !text.contains('|'), "{name}: the text is one paragraph");
        assert!(!example.is_empty(), "{name}: an example");
    }
}

#[test]
fn every_example_parses() {
    for feature in ANNOTATIONS {
        let (_, findings) = given(&examples(*feature));
        assert_eq!(findings, [], "{feature:?}");
    }
    assert_eq!(given(&examples(table())).1, [], "all together");
}

/// Some annotations mean something only beside others of their policy, so there must be some of those with which the
/// example changes what is read.
#[test]
fn every_example_has_an_effect() {
    for feature in ANNOTATIONS {
        for annotation in *feature {
            let others: Vec<_> = feature.iter().filter(|other| other.name != annotation.name).collect();
            let matters = (0..1_u32 << others.len()).any(|chosen| {
                let chosen = others.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1);
                let without = examples(chosen.map(|(_, other)| *other));
                let mut with = without.clone();
                with.extend(examples([annotation]));
                given(&with) != given(&without) && given(&with).1.is_empty()
            });
            assert!(matters, "{} changes nothing", annotation.name);
        }
    }
}

#[test]
fn a_violated_form_is_found() {
    for annotation in table() {
        let values = if FREE_TEXT.contains(&annotation.name) { &["\u{7}", "a\nb"] } else { GARBAGE };
        let numbers = if annotation.value.starts_with("whole") { NO_NUMBERS } else { &[] };
        let may_be_blank = MAY_BE_BLANK.contains(&annotation.name);
        let (blank, values): (Vec<&&str>, Vec<&&str>) =
            values.iter().chain(numbers).partition(|value| may_be_blank && value.trim().is_empty());
        for value in blank {
            assert_eq!(given(&[(annotation.key(), (*value).to_owned())].into()), given(&Texts::new()));
        }
        for value in values {
            let (_, findings) = given(&[(annotation.key(), (*value).to_owned())].into());
            let said = findings.iter().find(|finding| finding.field == annotation.key());
            let said = said.unwrap_or_else(|| panic!("{}: {value:?} is not found", annotation.name));
            assert!(said.object == object() && said.reason == "InvalidAnnotation", "{said}");
            assert!(said.message.contains(&format!("{value:?} is not ")), "{said}");
        }
    }
}

#[test]
fn a_violated_form_counts_as_not_given() {
    for annotation in table() {
        for value in ["\u{7}", "\u{0}x\u{0}"] {
            let (policies, _) = given(&[(annotation.key(), value.to_owned())].into());
            assert_eq!(policies, given(&Texts::new()).0, "{}", annotation.name);
        }
    }
}

/// A policy with the objects and fields that said so taken out.
fn bare(policies: &Policies, annotation: &Annotation) -> String {
    let by_annotation = Origin::new(&object(), annotation.key());
    let by_config_map =
        Origin::new(&config_map(), format!("data.{}", annotation.config_map.unwrap_or_default()));
    let text = format!("{policies:?}");
    text.replace(&format!("{by_annotation:?}"), "").replace(&format!("{by_config_map:?}"), "")
}

#[test]
fn a_config_map_gives_defaults() {
    for annotation in table() {
        let Some(name) = annotation.config_map else { continue };
        let row = |text: &str| -> Texts { [(name.to_owned(), text.to_owned())].into() };
        let by_annotation = examples([annotation]);

        let (policies, findings) = read(&Texts::new(), &row(annotation.example));
        assert_eq!(findings, [], "{name}");
        assert_eq!(bare(&policies, annotation), bare(&given(&by_annotation).0, annotation), "{name}");

        let both = read(&by_annotation, &row("\u{7}"));
        assert_eq!(both, given(&by_annotation), "{name}: an annotation beats the default");

        let (policies, findings) = read(&Texts::new(), &row("\u{7}"));
        assert_eq!(policies, given(&Texts::new()).0, "{name}: garbage has no effect");
        let said: Vec<_> =
            findings.iter().map(|said| (&said.object, said.field.as_str(), said.reason)).collect();
        let field = format!("data.{name}");
        assert_eq!(said, [(&config_map(), field.as_str(), "InvalidConfiguration")]);
    }
}

/// Whatever the order in which policies are applied, the result is the same: no two set the same field.
#[test]
fn policies_set_disjoint_effects() {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    let mut united = BTreeMap::new();
    for feature in ANNOTATIONS {
        for (field, value) in effects(&examples(*feature)) {
            if let Some(other) = owners.insert(field.clone(), feature[0].name) {
                panic!("{other} and {} both set {field}", feature[0].name);
            }
            united.insert(field, value);
        }
    }
    assert_eq!(effects(&examples(table())), united);
}

fn any_value() -> impl Strategy<Value = String> {
    let odd = prop::sample::select([GARBAGE, NO_NUMBERS].concat()).prop_map(str::to_owned);
    let example = prop::sample::select(table().map(|row| row.example).collect::<Vec<_>>());
    let mangled = (example, any::<prop::sample::Index>(), any::<char>()).prop_map(|(example, at, other)| {
        let mut characters: Vec<_> = example.chars().collect();
        let at = at.index(characters.len());
        characters[at] = other;
        characters.into_iter().collect()
    });
    prop_oneof![odd, any::<String>(), "[ -~]{0,12}", mangled]
}

fn any_annotations() -> impl Strategy<Value = Texts> {
    let keys = prop::sample::select(table().map(Annotation::key).collect::<Vec<_>>());
    prop::collection::btree_map(keys, any_value(), 0..8)
}

proptest! {
    /// Annotations are written by anybody.
    #[test]
    fn no_value_panics(annotations in any_annotations(), defaults in any_annotations()) {
        let strip = |key: String| key.trim_start_matches(super::PREFIX).to_owned();
        let defaults = defaults.into_iter().map(|(key, value)| (strip(key), value)).collect();
        let (policies, findings) = read(&annotations, &defaults);
        let _ = policies.effects();
        if let Some(redirect) = &policies.ssl_redirect {
            redirect.guards(&HostName::any(), None);
        }
        for finding in findings {
            prop_assert!(!finding.message.is_empty() && !finding.field.is_empty());
            let given = annotations.contains_key(&finding.field) || finding.object == config_map();
            prop_assert!(given, "{} is about nothing that is there", finding);
        }
    }
}
