//! serde over [`Node`]: the asked type decides how a scalar reads; asked for any type, it is text.

use crate::yaml::Node;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, Unexpected, Visitor};
use std::fmt;

/// Reads a `T` out of a document; an error names the path to the offending key or value.
pub(crate) fn from_node<T: de::DeserializeOwned>(node: &Node) -> anyhow::Result<T> {
    serde_path_to_error::deserialize(NodeDeserializer(node)).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => anyhow::anyhow!("{}", error.inner()),
            _ => anyhow::anyhow!("{path}: {}", error.inner()),
        }
    })
}

/// Why a document is not what was asked for.
#[derive(Debug)]
pub(crate) struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error(message.to_string())
    }
}

#[derive(Clone, Copy)]
pub(crate) struct NodeDeserializer<'a>(&'a Node);

impl<'de> IntoDeserializer<'de, Error> for NodeDeserializer<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'a> NodeDeserializer<'a> {
    fn unexpected(self) -> Unexpected<'a> {
        match self.0 {
            node if node.is_null() => Unexpected::Unit,
            Node::Scalar { text, .. } => Unexpected::Str(text),
            Node::Seq(_) => Unexpected::Seq,
            Node::Map(_) => Unexpected::Map,
        }
    }

    fn parsed<T: std::str::FromStr>(self, expected: &str) -> Result<T, Error> {
        if let Node::Scalar { text, .. } = self.0
            && let Ok(value) = text.parse()
        {
            return Ok(value);
        }
        Err(de::Error::invalid_value(self.unexpected(), &expected))
    }
}

macro_rules! parse_as {
    ($($method:ident $visit:ident $expected:literal)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.parsed($expected)?)
        })*
    };
}

impl<'de> Deserializer<'de> for NodeDeserializer<'de> {
    type Error = Error;

    parse_as! {
        deserialize_bool visit_bool "true or false"
        deserialize_u8 visit_u8 "a number"
        deserialize_u16 visit_u16 "a number up to 65535"
        deserialize_u32 visit_u32 "a whole number"
        deserialize_u64 visit_u64 "a whole number"
        deserialize_i32 visit_i32 "a whole number"
        deserialize_i64 visit_i64 "a whole number"
        deserialize_f64 visit_f64 "a number"
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            node if node.is_null() => visitor.visit_unit(),
            Node::Scalar { text, .. } => visitor.visit_borrowed_str(text),
            Node::Seq(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(NodeDeserializer))),
            Node::Map(entries) => {
                let pairs =
                    entries.iter().map(|(key, value)| (NodeDeserializer(key), NodeDeserializer(value)));
                visitor.visit_map(MapDeserializer::new(pairs))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == Json::NAME {
            visitor.visit_string(self.0.to_json().to_string())
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    /// A key without a value (`ml/model:8080:`) is an empty map.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_map(EmptyMap) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Node::Scalar { text, .. } => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(de::Error::invalid_type(self.unexpected(), &"one of the known words")),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct identifier
        ignored_any
    }
}

/// A value that keeps its YAML type, unlike everything else that is read here.
pub(crate) struct Json(pub(crate) serde_json::Value);

impl Json {
    /// Tells the deserializer what is wanted; serde has no other channel for it.
    const NAME: &'static str = "$json";
}

impl<'de> de::Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(Json::NAME, JsonVisitor)
    }
}

struct JsonVisitor;

impl Visitor<'_> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Json, E> {
        serde_json::from_str(text).map(Json).map_err(E::custom)
    }
}

struct EmptyMap;

impl<'de> de::MapAccess<'de> for EmptyMap {
    type Error = Error;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, _: K) -> Result<Option<K::Value>, Error> {
        Ok(None)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("a value without its key"))
    }
}
