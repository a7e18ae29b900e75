use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::store::{Object, Stored};
use crate::values::{Age, Findings, Kind};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::Ingress, "a", name)
}

fn put(published: &mut Published, name: &str, uid: &str) {
    let mut object = Object::Ingress(Box::default());
    *object.metadata_mut() = ObjectMeta {
        name: Some(name.into()),
        namespace: Some("a".into()),
        uid: Some(uid.into()),
        ..ObjectMeta::default()
    };
    let stored = Arc::new(Stored::new(object, Age::default(), Vec::new()));
    published.subjects.insert(key(name), Subject { stored, ours: true });
}

/// Says of an object that these of its annotations are wrong.
fn find(published: &mut Published, name: &str, fields: &[usize]) {
    let mut findings = Findings::default();
    for field in fields {
        findings.warning(&key(name), format!("f{field}"), "UnknownAnnotation", "is not known");
    }
    match fields {
        [] => drop(published.findings.remove(&key(name))),
        _ => drop(published.findings.insert(key(name), findings.into_vec().into())),
    }
}

fn one(fields: &[usize]) -> Published {
    let mut published = Published::default();
    put(&mut published, "i", "u");
    find(&mut published, "i", fields);
    published
}

fn told(events: &[Event]) -> Vec<(&str, i32)> {
    events.iter().map(|event| (event.finding.field.as_str(), event.count)).collect()
}

#[test]
fn a_finding_is_told_once_and_counted_when_it_comes_back() {
    let mut recorder = Recorder::default();
    let mut published = one(&[1]);
    assert_eq!(told(&recorder.plan(&published, at(0))), [("f1", 1)]);
    assert_eq!(recorder.plan(&published, at(1)), []);
    find(&mut published, "i", &[1, 2]);
    assert_eq!(told(&recorder.plan(&published, at(2))), [("f2", 1)]);
    find(&mut published, "i", &[2]);
    assert_eq!(recorder.plan(&published, at(3)), []);
    find(&mut published, "i", &[1, 2]);
    let again = recorder.plan(&published, at(4));
    assert_eq!(told(&again), [("f1", 2)]);
    assert_eq!(again[0].next_of_series(), json!({"count": 2, "lastTimestamp": "1970-01-01T00:00:04Z"}));
    // Another object of the name has not been told of.
    put(&mut published, "i", "v");
    assert_eq!(told(&recorder.plan(&published, at(5))), [("f1", 1), ("f2", 1)]);
    assert!(!recorder.holds_back());
}

#[test]
fn a_failed_event_is_told_again_as_what_it_was() {
    let mut recorder = Recorder::default();
    let mut published = one(&[1]);
    let events = recorder.plan(&published, at(0));
    recorder.failed(&events[0]);
    assert_eq!(recorder.plan(&published, at(1)), [Event { first: at(0), last: at(1), ..events[0].clone() }]);
    // Unless it is true no more.
    find(&mut published, "i", &[2]);
    let events = recorder.plan(&published, at(2));
    recorder.failed(&events[0]);
    find(&mut published, "i", &[]);
    assert_eq!(recorder.plan(&published, at(3)), []);
}

#[test]
fn one_object_is_told_within_bounds() {
    let mut recorder = Recorder::default();
    let published = one(&(0..30).collect::<Vec<_>>());
    assert_eq!(recorder.plan(&published, at(0)).len(), 25);
    assert!(recorder.holds_back());
    assert_eq!(recorder.plan(&published, at(299)), []);
    assert_eq!(recorder.plan(&published, at(301)).len(), 1);
    assert_eq!(recorder.plan(&published, at(10_000)).len(), 4);
    assert!(!recorder.holds_back());
}

#[test]
fn a_clock_that_steps_back_holds_nothing_up() {
    let mut recorder = Recorder::default();
    let published = one(&(0..30).collect::<Vec<_>>());
    assert_eq!(recorder.plan(&published, at(1_000_000)).len(), 25);
    assert_eq!(recorder.plan(&published, at(0)), []);
    assert_eq!(recorder.plan(&published, at(301)).len(), 1);
}

#[test]
fn all_objects_are_told_within_bounds() {
    let mut recorder = Recorder::default();
    let mut published = Published::default();
    for index in 0..300 {
        put(&mut published, &index.to_string(), "u");
        find(&mut published, &index.to_string(), &[1]);
    }
    let counts: Vec<_> = (0..6).map(|second| recorder.plan(&published, at(second)).len()).collect();
    assert_eq!(counts, [100, 50, 50, 50, 50, 0]);
}

#[test]
fn nothing_is_remembered_of_what_is_gone() {
    let mut recorder = Recorder::default();
    let mut published = one(&[1]);
    recorder.plan(&published, at(0));
    published.subjects.remove(&key("i"));
    find(&mut published, "i", &[]);
    recorder.plan(&published, at(1));
    assert!(recorder.told.is_empty());
    // Nor of all that ever was wrong with what is there.
    for round in 0..100 {
        recorder.plan(&one(&[round]), at(1000 * i64::try_from(round).unwrap()));
    }
    assert!(recorder.told[&key("i")].said.len() <= REMEMBERED + 1);
}

#[test]
fn as_kubernetes_has_it() {
    let mut recorder = Recorder::default();
    let events = recorder.plan(&one(&[1]), at(7));
    let event = events[0].to_json("pod-1");
    let about = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "namespace": "a", "name": "i", "uid": "u",
    });
    assert_eq!(event["involvedObject"], about);
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reason"], "UnknownAnnotation");
    assert_eq!(event["message"], "f1: is not known");
    assert_eq!(event["firstTimestamp"], "1970-01-01T00:00:07Z");
    assert_eq!(event["metadata"], json!({"namespace": "a", "name": events[0].name()}));
}

#[test]
fn names_and_notes_fit() {
    let mut published = Published::default();
    let name = format!("{}-.{}", "x".repeat(228), "y".repeat(20));
    put(&mut published, &name, "u");
    let mut findings = Findings::default();
    findings.error(&key(&name), "", "Malformed", "ä".repeat(1000));
    published.findings.insert(key(&name), findings.into_vec().into());
    let events = Recorder::default().plan(&published, at(0));
    let prefix = format!("{}.", "x".repeat(228));
    assert!(events[0].name().starts_with(&prefix) && events[0].name().len() <= 253);
    let message = events[0].to_json("")["message"].as_str().unwrap().to_owned();
    assert!(message.len() <= LONGEST && message.ends_with('…'), "{}", message.len());
}
