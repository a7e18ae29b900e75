//! From the protobuf messages of built-in kinds to objects, as reading their JSON would make them.
//!
//! Two rules make them equal. What Go has as a value, not as a pointer, is always in the message, but in JSON only if it is
//! not empty (`omitempty`): [`nonempty`] and the like. And lists keep no room to grow.

pub(super) mod core;
pub(super) mod discovery;
mod metadata;
pub(super) mod networking;

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_pb::api::core::v1 as pb;
use prost::Message;

use super::read::ReadError;

fn decoded<M: Message + Default>(message: &[u8]) -> Result<M, ReadError> {
    M::decode(message).map_err(|error| ReadError { field: String::new(), message: error.to_string() })
}

/// A value that JSON has if it is not empty, zero or false.
fn nonempty<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

fn texts(texts: Vec<String>) -> Option<Vec<String>> {
    list(texts, |text| text)
}

/// A list that JSON has if it is not empty.
fn list<A, B>(items: Vec<A>, read: impl Fn(A) -> B) -> Option<Vec<B>> {
    (!items.is_empty()).then(|| exact(items, read))
}

/// A list of just its length: collecting one would keep the room that decoding took.
fn exact<A, B>(items: Vec<A>, read: impl Fn(A) -> B) -> Vec<B> {
    let mut list = Vec::with_capacity(items.len());
    list.extend(items.into_iter().map(read));
    list
}

fn map<V>(entries: BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    (!entries.is_empty()).then_some(entries)
}

fn bytes(entries: BTreeMap<String, Vec<u8>>) -> Option<BTreeMap<String, ByteString>> {
    map(entries.into_iter().map(|(key, value)| (key, ByteString(value))).collect())
}

fn typed_local_object_reference(
    it: pb::TypedLocalObjectReference,
) -> k8s_openapi::api::core::v1::TypedLocalObjectReference {
    k8s_openapi::api::core::v1::TypedLocalObjectReference {
        api_group: it.api_group,
        kind: it.kind.unwrap_or_default(),
        name: it.name.unwrap_or_default(),
    }
}
