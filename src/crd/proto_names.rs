//! Fields by their names in a .proto, which protobuf's JSON takes beside its own.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::virtual_service::json_name;

/// Reads an object, or a part of how serde does, with such names put into camel case.
#[derive(Debug)]
pub(super) struct ProtoNames<T> {
    inner: T,
    /// The object's fields, as the .proto names them.
    fields: &'static [&'static str],
}

impl<T> ProtoNames<T> {
    pub(super) fn new(inner: T, fields: &'static [&'static str]) -> Self {
        Self { inner, fields }
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ProtoNames<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.inner.deserialize_map(ProtoNames::new(visitor, self.fields))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for ProtoNames<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.inner.visit_map(ProtoNames::new(map, self.fields))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for ProtoNames<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(name) = self.inner.next_key::<String>()? else { return Ok(None) };
        let name = if self.fields.contains(&name.as_str()) { json_name(&name) } else { name };
        seed.deserialize(StringDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::crd::virtual_service::{HttpRoute, VirtualServiceSpec};

    #[test]
    fn fields_by_either_name() {
        let read = |value| serde_json::from_value::<HttpRoute>(value);
        let proto = read(json!({
            "mirror_percent": 5,
            "direct_response": {"status": 200},
            "cors_policy": {"allow_origins": [{"exact": "a"}], "max_age": "1s"},
            "match": [{"query_params": {"in_stock": {}}, "headers": {"x_id": {"exact": "query_params"}}}],
        }));
        let json = read(json!({
            "mirrorPercent": 5,
            "directResponse": {"status": 200},
            "corsPolicy": {"allowOrigins": [{"exact": "a"}], "maxAge": "1s"},
            "match": [{"queryParams": {"in_stock": {}}, "headers": {"x_id": {"exact": "query_params"}}}],
        }));
        let json = json.unwrap();
        assert_eq!(proto.unwrap(), json);
        assert!(json.unknown.is_empty());
        assert!(read(json!({"mirror_percent": 5, "mirrorPercent": 5})).is_err(), "given twice");
    }

    #[test]
    fn what_is_no_field_stays_as_it_is() {
        let spec: VirtualServiceSpec = serde_json::from_value(json!({"no_such_field": 1})).unwrap();
        assert!(spec.unknown.contains_key("no_such_field"));
        let written = serde_json::to_value(&spec).unwrap();
        assert_eq!(written["no_such_field"], 1);
    }
}
