//! Envoy's messages as JSON, and JSON as Envoy's messages, by their descriptors.
//!
//! JSON is Envoy's own form of it (protobuf JSON, an `Any` unpacked beside its `@type`). Listeners and the bootstrap
//! are written in it, since they are few and deeply nested; the debug endpoint prints it.

use std::sync::{Mutex, OnceLock, PoisonError};

use envoy_types::pb::google::protobuf::Any;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

/// Read when first needed: some 10 MiB, and 65 ms.
static POOL: Mutex<Option<DescriptorPool>> = Mutex::new(None);

fn pool() -> DescriptorPool {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let read = || {
        let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.descriptors"));
        DescriptorPool::decode(bytes).expect("build.rs wrote a descriptor set")
    };
    pool.get_or_insert_with(read).clone()
}

/// The descriptor set of the rate limit service alone, for those who ask a server what it speaks.
pub const RATE_LIMIT_SERVICE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ratelimit.descriptors"));

/// The messages of the rate limit service; few, so they stay.
fn ratelimit_pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(RATE_LIMIT_SERVICE).expect("build.rs wrote a descriptor set"))
}

/// A message of the rate limit service in protobuf JSON, with the field names that protobuf JSON prefers.
///
/// # Errors
/// As for [`to_json`].
pub fn ratelimit_to_json(type_name: &str, bytes: &[u8]) -> Result<Value, Error> {
    print(ratelimit_pool(), type_name, bytes, &SerializeOptions::new().skip_default_fields(true))
}

/// The bytes of a message of the rate limit service that is written in protobuf JSON.
///
/// # Errors
/// As for [`from_json`].
pub fn ratelimit_from_json(type_name: &str, json: &Value) -> Result<Vec<u8>, Error> {
    read(ratelimit_pool(), type_name, json)
}

/// Gives the memory back that the descriptors take, until they are needed again.
pub fn release() {
    *POOL.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The type is not among the descriptors: add its file to `proto/roots.txt`.
    #[error("{0} is not a known message type")]
    UnknownType(String),
    /// The bytes are not a message of the type.
    #[error("not a {0}: {1}")]
    Decode(String, #[source] prost_reflect::prost::DecodeError),
    /// The JSON is not that of the type.
    #[error("not a {0}: {1}")]
    Json(String, #[source] serde_json::Error),
}

/// The message in protobuf JSON with the field names of the `.proto` files, as Envoy's own dumps have them.
///
/// # Errors
/// When the type, or that of an `Any` inside, is unknown or the bytes are not of it.
pub fn to_json(type_name: &str, bytes: &[u8]) -> Result<Value, Error> {
    print(
        &pool(),
        type_name,
        bytes,
        &SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true),
    )
}

fn print(
    pool: &DescriptorPool,
    type_name: &str,
    bytes: &[u8],
    options: &SerializeOptions,
) -> Result<Value, Error> {
    let name = short(type_name);
    let descriptor = pool.get_message_by_name(name).ok_or_else(|| Error::UnknownType(name.to_owned()))?;
    let message =
        DynamicMessage::decode(descriptor, bytes).map_err(|error| Error::Decode(name.to_owned(), error))?;
    message
        .serialize_with_options(serde_json::value::Serializer, options)
        .map_err(|error| Error::Json(name.to_owned(), error))
}

/// The bytes of a message written in protobuf JSON.
///
/// # Errors
/// When the type is unknown, or the JSON has a field that it lacks or a value of another type.
pub fn from_json(type_name: &str, json: &Value) -> Result<Vec<u8>, Error> {
    read(&pool(), type_name, json)
}

fn read(pool: &DescriptorPool, type_name: &str, json: &Value) -> Result<Vec<u8>, Error> {
    let name = short(type_name);
    let descriptor = pool.get_message_by_name(name).ok_or_else(|| Error::UnknownType(name.to_owned()))?;
    let message =
        DynamicMessage::deserialize(descriptor, json).map_err(|error| Error::Json(name.to_owned(), error))?;
    Ok(message.encode_to_vec())
}

/// A message packed into an `Any`.
pub fn pack<M: prost::Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn short(type_name: &str) -> &str {
    type_name.rsplit('/').next().unwrap_or(type_name)
}

/// The fields in a message, and in what is packed into it, that Envoy warns of when it is sent them.
#[cfg(test)]
pub(crate) fn deprecated_fields(type_name: &str, bytes: &[u8]) -> std::collections::BTreeSet<String> {
    let descriptor = pool().get_message_by_name(short(type_name)).unwrap();
    let mut found = std::collections::BTreeSet::new();
    tests::deprecated_in(&DynamicMessage::decode(descriptor, bytes).unwrap(), &mut found);
    found
}

#[cfg(test)]
mod tests {
    use prost_reflect::{ReflectMessage as _, Value as Field};
    use std::collections::BTreeSet;

    use super::*;
    use serde_json::json;

    pub(super) fn deprecated_in(message: &DynamicMessage, found: &mut BTreeSet<String>) {
        if let Ok(any) = message.transcode_to::<Any>()
            && message.descriptor().full_name() == "google.protobuf.Any"
        {
            return found.append(&mut deprecated_fields(&any.type_url, &any.value));
        }
        for (field, value) in message.fields() {
            let options = field.field_descriptor_proto().options.as_ref();
            if options.is_some_and(|options| options.deprecated()) {
                found.insert(field.full_name().to_owned());
            }
            deprecated_below(value, found);
        }
    }

    fn deprecated_below(value: &Field, found: &mut BTreeSet<String>) {
        match value {
            Field::Message(message) => deprecated_in(message, found),
            Field::List(items) => items.iter().for_each(|item| deprecated_below(item, found)),
            Field::Map(items) => items.values().for_each(|item| deprecated_below(item, found)),
            _ => {}
        }
    }

    #[test]
    fn deprecated_fields_are_found_in_what_is_packed() {
        let listener = json!({"filter_chains": [{"filters": [{"typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "route_config": {"virtual_hosts": [{"routes": [{"route": {"max_grpc_timeout": "1s"}}]}]},
        }}]}]});
        let bytes = from_json("envoy.config.listener.v3.Listener", &listener).unwrap();
        let found = deprecated_fields("envoy.config.listener.v3.Listener", &bytes);
        assert_eq!(found, ["envoy.config.route.v3.RouteAction.max_grpc_timeout".to_owned()].into());
    }

    #[test]
    fn nested_any_is_unpacked() {
        let listener = json!({
            "name": "http",
            "filter_chains": [{"filters": [{
                "name": "hcm",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "x",
                },
            }]}],
        });
        let bytes = from_json("envoy.config.listener.v3.Listener", &listener).unwrap();
        assert_eq!(to_json("envoy.config.listener.v3.Listener", &bytes).unwrap(), listener);
    }

    #[test]
    fn what_a_type_lacks_is_named() {
        let error = from_json("envoy.config.listener.v3.Listener", &json!({"nmae": "x"})).unwrap_err();
        assert!(error.to_string().contains("nmae"), "{error}");
    }
}
