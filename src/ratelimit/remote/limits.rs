//! Limits of a control plane of ours: what is held, resource by resource. Pure.

use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use imbl::OrdMap;
use prost::Message as _;

use crate::messages::ratelimit as message;
use crate::model::limit::{Limit, LimitSet};

/// The URL of the type.
pub(super) const TYPE_URL: &str = "type.googleapis.com/chancery.ratelimit.v1.LimitSet";

/// What a response is rejected for says this many resources.
const NAMED: usize = 10;

/// Every limit that was accepted, and which resource it came from. A clone is cheap.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) limits: LimitSet,
    resources: OrdMap<String, Accepted>,
}

/// A resource as it was accepted.
#[derive(Clone, Debug)]
struct Accepted {
    version: String,
    ids: Vec<Arc<str>>,
}

impl Held {
    /// The versions that are held, by resource.
    pub(super) fn versions(&self) -> impl Iterator<Item = (String, String)> {
        self.resources.iter().map(|(name, accepted)| (name.clone(), accepted.version.clone()))
    }

    /// What is held after a response. It is accepted as a whole or not at all.
    ///
    /// # Errors
    /// What is wrong with which of its resources.
    pub(super) fn after(&self, response: DeltaDiscoveryResponse) -> Result<Self, String> {
        let mut next = self.clone();
        let gone = response.removed_resources.iter();
        for name in gone.chain(response.resources.iter().map(|resource| &resource.name)) {
            for id in next.resources.remove(name).into_iter().flat_map(|accepted| accepted.ids) {
                next.limits.remove(&id);
            }
        }
        let mut wrong = Vec::new();
        for resource in response.resources {
            let name = resource.name.clone();
            if let Err(reason) = next.add(resource) {
                wrong.push(format!("{name}: {reason}"));
            }
        }
        if wrong.is_empty() {
            return Ok(next);
        }
        let more = wrong.len().saturating_sub(NAMED);
        wrong.truncate(NAMED);
        if more > 0 {
            wrong.push(format!("and {more} more"));
        }
        Err(wrong.join("; "))
    }

    fn add(&mut self, resource: Resource) -> Result<(), String> {
        let Resource { name, version, resource, .. } = resource;
        let any = resource.ok_or("there is nothing in it")?;
        if any.type_url != TYPE_URL {
            return Err(format!("is of the type {}", any.type_url));
        }
        let set = message::LimitSet::decode(any.value.as_slice()).map_err(|error| error.to_string())?;
        let mut ids = Vec::with_capacity(set.limits.len());
        for limit in set.limits {
            let limit = Limit::try_from(limit).map_err(|error| error.to_string())?;
            if self.limits.get(&limit.id).is_some() {
                return Err(format!("the limit {} is in another resource too", limit.id));
            }
            ids.push(limit.id.clone());
            self.limits.insert(limit);
        }
        self.resources.insert(name, Accepted { version, ids });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::Any;

    use super::*;
    use crate::model::limit::{Algorithm, Key};

    fn limit(id: &str, requests: u32) -> Limit {
        Limit::new(id.into(), Key::ClientAddress, Algorithm::FixedWindow { requests, window_ms: 1 })
    }

    fn resource(name: &str, version: &str, limits: &[Limit]) -> Resource {
        let set = message::LimitSet { limits: limits.iter().map(message::Limit::from).collect() };
        let any = Any { type_url: TYPE_URL.into(), value: set.encode_to_vec() };
        Resource { name: name.into(), version: version.into(), resource: Some(any), ..Resource::default() }
    }

    fn response(resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
        let removed_resources = removed.iter().map(|name| (*name).to_owned()).collect();
        DeltaDiscoveryResponse { resources, removed_resources, ..DeltaDiscoveryResponse::default() }
    }

    fn seen(held: &Held) -> String {
        let limits = held.limits.iter().map(|limit| format!("{} {}", limit.id, limit.algorithm.quota().0));
        let versions = held.versions().map(|(name, version)| format!("{name}@{version}"));
        limits.chain(versions).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_changed_is_taken_and_the_rest_stays() {
        let mut held = Held::default();
        for (response, expected) in [
            (response(vec![], &[]), ""),
            (
                response(
                    vec![
                        resource("a", "1", &[limit("a", 1)]),
                        resource("o", "1", &[limit("x", 1), limit("y", 1)]),
                    ],
                    &[],
                ),
                "a 1, x 1, y 1, a@1, o@1",
            ),
            (response(vec![resource("a", "2", &[limit("a", 5)])], &["gone"]), "a 5, x 1, y 1, a@2, o@1"),
            // A limit moves from one resource to another, and one goes.
            (
                response(
                    vec![resource("o", "2", &[limit("y", 2)]), resource("p", "1", &[limit("x", 3)])],
                    &["a"],
                ),
                "x 3, y 2, o@2, p@1",
            ),
            (response(vec![], &["o", "p"]), ""),
        ] {
            held = held.after(response).unwrap();
            assert_eq!(seen(&held), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_is_taken() {
        let held = Held::default().after(response(vec![resource("a", "1", &[limit("a", 1)])], &[])).unwrap();
        let raw = |type_url: &str, value: &[u8]| {
            let any = Any { type_url: type_url.into(), value: value.to_vec() };
            Resource { name: "b".into(), resource: Some(any), ..Resource::default() }
        };
        let twice = [limit("b", 1), limit("b", 1)];
        for (wrong, words) in [
            (raw(TYPE_URL, b"\xff"), "b: failed to decode"),
            (raw("type.googleapis.com/x", b""), "b: is of the type type.googleapis.com/x"),
            (Resource { name: "b".into(), ..Resource::default() }, "b: there is nothing in it"),
            (resource("b", "1", &[limit("", 1)]), "b: id: is empty"),
            (resource("b", "1", &[limit("a", 1)]), "b: the limit a is in another resource too"),
            (resource("b", "1", &twice), "b: the limit b is in another"),
        ] {
            let good = resource("c", "1", &[limit("c", 1)]);
            let error = held.after(response(vec![good, wrong], &["x"])).unwrap_err();
            assert!(error.contains(words), "{error}: {words}");
            assert_eq!(seen(&held), "a 1, a@1");
        }
        let many = (0..30).map(|index| resource(&format!("r{index}"), "1", &[limit("", 1)])).collect();
        let error = held.after(response(many, &[])).unwrap_err();
        assert!(error.contains("r9: id") && error.ends_with("; and 20 more"), "{error}");
    }
}
