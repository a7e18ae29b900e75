use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::prelude::*;

use super::*;
use crate::compile::Published;
use crate::crd::virtual_service::VirtualService;
use crate::status::address::Address;
use crate::store::{Object, Stored};
use crate::values::{Age, Findings};

fn subject(kind: Kind, name: &str, uid: &str, ours: bool) -> (ObjectKey, Subject) {
    let metadata = ObjectMeta {
        name: Some(name.into()),
        namespace: Some("a".into()),
        uid: Some(uid.into()),
        generation: Some(1),
        ..ObjectMeta::default()
    };
    let object = match kind {
        Kind::Ingress => Object::Ingress(Box::default()),
        Kind::RateLimitPolicy => {
            let value = json!({"metadata": {}, "spec": {"targetRef": {"kind": "Ingress", "name": "a"}, "limits": []}});
            Object::RateLimitPolicy(serde_json::from_value(value).unwrap())
        }
        _ => Object::VirtualService(Box::<VirtualService>::default()),
    };
    let mut object = object;
    *object.metadata_mut() = metadata;
    let stored = Arc::new(Stored::new(object, Age::default(), Vec::new()));
    (stored.key.clone(), Subject { stored, ours })
}

fn addresses(ips: &[&str]) -> Addresses {
    ips.iter().map(|ip| Address { ip: (*ip).into(), ..Address::default() }).collect()
}

/// The objects that there are, and their statuses as an API server would hold them.
#[derive(Default)]
struct World {
    published: Published,
    addresses: Option<Addresses>,
    statuses: BTreeMap<ObjectKey, Known>,
    now: i64,
}

impl World {
    fn put(&mut self, kind: Kind, name: &str, uid: &str, ours: bool) -> ObjectKey {
        let (key, subject) = subject(kind, name, uid, ours);
        if self.statuses.get(&key).is_some_and(|known| known.uid != uid) {
            self.statuses.remove(&key);
        }
        self.published.subjects.insert(key.clone(), subject);
        key
    }

    fn delete(&mut self, key: &ObjectKey) {
        self.published.subjects.remove(key);
        self.published.findings.remove(key);
        self.statuses.remove(key);
    }

    fn find(&mut self, key: &ObjectKey, errors: usize) {
        let mut findings = Findings::default();
        for index in 0..errors {
            findings.error(key, format!("spec.http[{index}]"), "InvalidRule", "is none");
        }
        match errors {
            0 => drop(self.published.findings.remove(key)),
            _ => drop(self.published.findings.insert(key.clone(), findings.into_vec().into())),
        }
    }

    /// One turn, whose writes succeed.
    fn turn(&mut self, planner: &mut Planner) -> usize {
        self.now += 1;
        let now = Timestamp::from_second(self.now).unwrap();
        let writes = planner.plan(&self.published, self.addresses.as_ref(), now);
        for write in &writes {
            let held = self.statuses.get(&write.key).and_then(|known| known.status.clone());
            assert_ne!(held.unwrap_or(Status::Nothing), write.status, "{} needs no write", write.key);
            let known = Known { uid: write.uid.clone(), status: Some(write.status.clone()), written: true };
            self.statuses.insert(write.key.clone(), known);
        }
        writes.len()
    }

    fn holds(&self, key: &ObjectKey) -> Status {
        let known = self.statuses.get(key);
        known.and_then(|known| known.status.clone()).unwrap_or(Status::Nothing)
    }

    /// A leader that has just become one.
    fn leader(&self) -> Planner {
        Planner::new(self.statuses.clone().into_iter().collect())
    }

    fn assert_settled(&self) {
        for (key, subject) in &self.published.subjects {
            let status = self.holds(key);
            match (key.kind, subject.ours, &self.addresses) {
                (Kind::Ingress, true, Some(addresses)) if !addresses.is_empty() => {
                    assert_eq!(status, Status::Addresses(addresses.clone()), "{key}");
                }
                (Kind::Ingress, true, None) => {}
                (Kind::Ingress, ..) => assert_eq!(status, Status::Nothing, "{key}"),
                (Kind::RateLimitPolicy, ..) => {
                    let Status::Policy(status) = status else { panic!("{key}: {status:?}") };
                    let found = self.published.findings.contains_key(key);
                    assert_eq!(status.conditions[0].status, if found { "False" } else { "True" }, "{key}");
                }
                _ => {
                    let Status::Analysis(analysis) = status else { panic!("{key}: {status:?}") };
                    let found = self.published.findings.get(key).map_or(0, |findings| findings.len());
                    let value = serde_json::to_value(analysis).unwrap();
                    assert_eq!(value["validationMessages"].as_array().unwrap().len(), found, "{key}");
                }
            }
        }
    }
}

#[test]
fn a_thousand_ingresses_take_a_thousand_writes() {
    let mut world = World { addresses: Some(addresses(&["10.0.0.1"])), ..World::default() };
    for index in 0..1000 {
        world.put(Kind::Ingress, &format!("i{index}"), "u", true);
    }
    let mut planner = world.leader();
    assert_eq!(world.turn(&mut planner), 1000);
    assert_eq!(world.turn(&mut planner), 0);
    world.put(Kind::Ingress, "i7", "u", true);
    assert_eq!(world.turn(&mut planner), 0, "its status is the same");
    let mut next = world.leader();
    assert_eq!(world.turn(&mut next), 0, "the next leader finds all as it should be");
    world.addresses = Some(addresses(&["10.0.0.2"]));
    assert_eq!(world.turn(&mut next), 1000);
}

#[test]
fn what_is_no_longer_ours_is_cleared_if_we_wrote_it() {
    let mut world = World { addresses: Some(addresses(&["10.0.0.1"])), ..World::default() };
    let ours = world.put(Kind::Ingress, "ours", "u", true);
    let theirs = world.put(Kind::Ingress, "theirs", "u", false);
    let status = Status::Addresses(addresses(&["9.9.9.9"]));
    let known = Known { uid: "u".into(), status: Some(status.clone()), written: false };
    world.statuses.insert(theirs.clone(), known);
    let mut planner = world.leader();
    assert_eq!(world.turn(&mut planner), 1);
    world.put(Kind::Ingress, "ours", "u", false);
    assert_eq!(world.turn(&mut planner), 1);
    assert_eq!((world.holds(&ours), world.holds(&theirs)), (Status::Nothing, status));
    assert_eq!(Status::Nothing.to_json(), json!({}));
}

#[test]
fn no_address_is_taken_away_because_it_is_not_known_yet() {
    let mut world = World { addresses: Some(addresses(&["10.0.0.1"])), ..World::default() };
    let key = world.put(Kind::Ingress, "a", "u", true);
    let mut planner = world.leader();
    world.turn(&mut planner);
    let mut next = world.leader();
    let before = std::mem::take(&mut world.addresses);
    assert_eq!(world.turn(&mut next), 0);
    world.addresses = before;
    assert_eq!(world.turn(&mut next), 0);
    assert_eq!(world.holds(&key).to_json(), json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}));
}

#[test]
fn a_failed_write_is_due_again() {
    let mut world = World { addresses: Some(addresses(&["10.0.0.1"])), ..World::default() };
    let key = world.put(Kind::Ingress, "a", "u", true);
    let mut planner = world.leader();
    world.turn(&mut planner);
    world.statuses.clear();
    planner.failed(key.clone());
    assert_eq!(world.turn(&mut planner), 1);
    // One that failed to be cleared is cleared.
    world.put(Kind::Ingress, "a", "u", false);
    let before = world.statuses.clone();
    world.turn(&mut planner);
    world.statuses = before;
    planner.failed(key);
    assert_eq!(world.turn(&mut planner), 1);
}

#[derive(Clone, Debug)]
enum Op {
    Put { kind: Kind, name: u8, uid: u8, ours: bool },
    Delete { kind: Kind, name: u8 },
    Find { kind: Kind, name: u8, errors: usize },
    Addresses(Option<u8>),
    Leader,
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..4_u8;
    let analysed = || prop_oneof![Just(Kind::VirtualService), Just(Kind::RateLimitPolicy)];
    let kind = || prop_oneof![2 => Just(Kind::Ingress), 2 => analysed()];
    prop_oneof![
        4 => (kind(), name.clone(), 0..2_u8, any::<bool>())
            .prop_map(|(kind, name, uid, ours)| Op::Put { kind, name, uid, ours: ours || kind != Kind::Ingress }),
        1 => (kind(), name.clone()).prop_map(|(kind, name)| Op::Delete { kind, name }),
        2 => (analysed(), name, 0..3_usize)
            .prop_map(|(kind, name, errors)| Op::Find { kind, name, errors }),
        1 => proptest::option::of(0..3_u8).prop_map(Op::Addresses),
        1 => Just(Op::Leader),
    ]
}

proptest! {
    #[test]
    fn statuses_become_what_they_should_be_and_rest(ops in proptest::collection::vec(op(), 1..40)) {
        let mut world = World::default();
        let mut planner = world.leader();
        for op in ops {
            match op {
                Op::Put { kind, name, uid, ours } => {
                    world.put(kind, &name.to_string(), &uid.to_string(), ours);
                }
                Op::Delete { kind, name } => {
                    world.delete(&ObjectKey::new(kind, "a", name.to_string()));
                }
                Op::Find { kind, name, errors } => {
                    world.find(&ObjectKey::new(kind, "a", name.to_string()), errors);
                }
                Op::Addresses(count) => {
                    let list = ["10.0.0.1", "10.0.0.2"];
                    world.addresses = count.map(|count| addresses(&list[..count.into()]));
                }
                Op::Leader => planner = world.leader(),
            }
            world.turn(&mut planner);
            world.assert_settled();
            prop_assert_eq!(world.turn(&mut planner), 0);
        }
    }
}
