//! An object as the API server says it, of whatever kind. What it says of itself is read later, where that may fail.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject};
use kube::core::DynamicResourceScope;
use prost::{DecodeError, Message};
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::source::kinds::Watched;
use crate::source::read::{ReadError, read, read_message};
use crate::store::Object;

/// An object.
#[derive(Clone)]
pub(super) struct Raw {
    /// Name, namespace and resource version only, for the client.
    metadata: ObjectMeta,
    /// All of it.
    content: Content,
}

#[derive(Clone)]
enum Content {
    Json(Value),
    Protobuf(Vec<u8>),
}

/// What the client has to know of an object, of any kind's message.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Head {
    #[prost(message, optional, tag = "1")]
    metadata: Option<HeadOfMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct HeadOfMetadata {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "3")]
    namespace: Option<String>,
    #[prost(string, optional, tag = "6")]
    resource_version: Option<String>,
}

impl Raw {
    fn of_json(value: Value) -> Self {
        let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        let metadata = metadata(text("name"), text("namespace"), text("resourceVersion"));
        Self { metadata, content: Content::Json(value) }
    }

    fn of_message(message: Vec<u8>) -> Result<Self, DecodeError> {
        let head = Head::decode(message.as_slice())?.metadata.unwrap_or_default();
        let metadata = metadata(head.name, head.namespace, head.resource_version);
        Ok(Self { metadata, content: Content::Protobuf(message) })
    }

    /// In which of its forms it came.
    #[cfg(test)]
    pub(super) fn is_protobuf(&self) -> bool {
        matches!(self.content, Content::Protobuf(_))
    }

    /// Makes it an object of its kind.
    pub(super) fn read(self, watched: &Watched) -> Result<Object, ReadError> {
        match self.content {
            Content::Json(value) => read(watched, value, None),
            Content::Protobuf(message) => read_message(watched, &message),
        }
    }

    /// `metadata.name`
    pub(super) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// `metadata.namespace`, empty for objects of none.
    pub(super) fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }
}

fn metadata(name: Option<String>, namespace: Option<String>, resource_version: Option<String>) -> ObjectMeta {
    ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

/// An object, or the text in which its message comes from [`wire`](super::wire).
struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Raw, A::Error> {
        Fields::OfObject.visit_map(map).map(Raw::of_json)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Raw, E> {
        let message = BASE64_STANDARD.decode(text).map_err(E::custom)?;
        Raw::of_message(message).map_err(E::custom)
    }
}

/// The fields of an object without who set them: `metadata.managedFields` is often more than all the rest, so it is
/// passed over and never built.
#[derive(Clone, Copy)]
enum Fields {
    OfObject,
    OfMetadata,
}

impl<'de> Visitor<'de> for Fields {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            match (self, key.as_str()) {
                (Self::OfObject, "metadata") => {
                    fields.insert(key, map.next_value_seed(Self::OfMetadata)?);
                }
                (Self::OfMetadata, "managedFields") => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    fields.insert(key, map.next_value()?);
                }
            }
        }
        Ok(Value::Object(fields))
    }
}

impl<'de> DeserializeSeed<'de> for Fields {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Never the content: it may be a Secret's.
impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.name())
    }
}

impl kube::Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(resource)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(resource)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(resource)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(resource)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_set_fields_is_passed_over_and_nothing_else() {
        for (said, kept) in [
            (
                json!({"kind": "Ingress", "metadata": {"name": "a", "managedFields": [{"f:spec": {}}], "uid": "1"},
                    "managedFields": 1, "spec": {"metadata": {"managedFields": 2}}}),
                json!({"kind": "Ingress", "metadata": {"name": "a", "uid": "1"},
                    "managedFields": 1, "spec": {"metadata": {"managedFields": 2}}}),
            ),
            (json!({"metadata": null}), json!({"metadata": null})),
            (json!({}), json!({})),
        ] {
            let raw: Raw = serde_json::from_value(said).unwrap();
            let Content::Json(value) = raw.content else { panic!() };
            assert_eq!(value, kept);
        }
        let raw: Raw = serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "b"}})).unwrap();
        assert_eq!((raw.name(), raw.namespace()), ("a", "b"));
    }
}
