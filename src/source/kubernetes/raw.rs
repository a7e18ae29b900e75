//! An object as the API server says it, of whatever kind: reading it never fails here.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject};
use kube::core::DynamicResourceScope;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// An object.
#[derive(Clone)]
pub(super) struct Raw {
    /// Name, namespace and resource version only, for the client.
    metadata: ObjectMeta,
    /// All of it.
    pub(super) value: Value,
}

impl Raw {
    fn new(value: Value) -> Self {
        let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Self { metadata, value }
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

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields::OfObject).map(Self::new)
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
            assert_eq!(raw.value, kept);
        }
        let raw: Raw = serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "b"}})).unwrap();
        assert_eq!((raw.name(), raw.namespace()), ("a", "b"));
    }
}
