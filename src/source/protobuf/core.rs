//! The core group, v1: Secret and ConfigMap, and Service in a file of its own.

mod service;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_pb::api::core::v1 as pb;

pub(in crate::source) use self::service::service;
use super::metadata::metadata;
use super::{bytes, decoded, map, nonempty};
use crate::source::read::ReadError;
use crate::store::Object;

/// Reads a Secret, all of it.
pub(in crate::source) fn secret(message: &[u8]) -> Result<Object, ReadError> {
    let it: pb::Secret = decoded(message)?;
    Ok(Object::Secret(Box::new(Secret {
        data: bytes(it.data),
        immutable: it.immutable,
        metadata: metadata(it.metadata)?,
        string_data: map(it.string_data),
        type_: nonempty(it.r#type),
    })))
}

/// Reads a ConfigMap.
pub(in crate::source) fn config_map(message: &[u8]) -> Result<Object, ReadError> {
    let it: pb::ConfigMap = decoded(message)?;
    Ok(Object::ConfigMap(Box::new(ConfigMap {
        binary_data: bytes(it.binary_data),
        data: map(it.data),
        immutable: it.immutable,
        metadata: metadata(it.metadata)?,
    })))
}
