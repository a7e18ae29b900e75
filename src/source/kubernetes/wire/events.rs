//! The events of a watch, and the statuses, that an API server says in protobuf, as kube reads them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as pb;
use k8s_pb::apimachinery::pkg::runtime::Unknown;
use kube::api::TypeMeta;
use kube::core::watch::{Bookmark, BookmarkMeta};
use kube::core::{Status, WatchEvent};
use prost::Message;

use super::Unreadable;
use crate::source::kinds::Watched;
use crate::source::kubernetes::raw::Head;

/// What stands before every message that says of what type it is.
const MARK: &[u8] = b"k8s\0";

/// An event. Objects stay as they are: base64 of their messages, which [`Raw`](super::super::raw::Raw) reads.
pub(super) fn event(frame: &[u8], watched: &Watched) -> Result<WatchEvent<String>, Unreadable> {
    let event = pb::WatchEvent::decode(frame)?;
    let said = event.object.and_then(|object| object.raw).unwrap_or_default();
    match event.r#type.as_deref() {
        Some("ADDED") => object(&said, watched).map(WatchEvent::Added),
        Some("MODIFIED") => object(&said, watched).map(WatchEvent::Modified),
        Some("DELETED") => object(&said, watched).map(WatchEvent::Deleted),
        Some("BOOKMARK") => bookmark(&said, watched).map(WatchEvent::Bookmark),
        Some("ERROR") => status(&said).map(|status| WatchEvent::Error(Box::new(status))),
        _ => Err(Unreadable::Type),
    }
}

fn object(said: &[u8], watched: &Watched) -> Result<String, Unreadable> {
    let (_, message) = envelope(said, watched.kind.as_str())?;
    // kube passes over a line that it cannot read, and with it the object.
    Head::decode(message.as_slice())?;
    Ok(BASE64_STANDARD.encode(message))
}

fn bookmark(said: &[u8], watched: &Watched) -> Result<Bookmark, Unreadable> {
    let (types, message) = envelope(said, watched.kind.as_str())?;
    let metadata = pb::PartialObjectMetadata::decode(message.as_slice())?.metadata.unwrap_or_default();
    let metadata = BookmarkMeta {
        resource_version: metadata.resource_version.unwrap_or_default(),
        annotations: metadata.annotations,
    };
    Ok(Bookmark { types, metadata })
}

/// Why a request, or a watch that had begun, failed.
pub(super) fn status(said: &[u8]) -> Result<Status, Unreadable> {
    let (_, message) = envelope(said, "Status")?;
    let status = pb::Status::decode(message.as_slice())?;
    let text = |text: Option<String>| text.unwrap_or_default();
    let code = status.code.and_then(|code| code.try_into().ok()).unwrap_or_default();
    Ok(Status::failure(&text(status.message), &text(status.reason)).with_code(code))
}

/// The message of an object of a kind.
fn envelope(said: &[u8], kind: &str) -> Result<(TypeMeta, Vec<u8>), Unreadable> {
    let unknown = Unknown::decode(said.strip_prefix(MARK).ok_or(Unreadable::Mark)?)?;
    let types = unknown.type_meta.unwrap_or_default();
    let types =
        TypeMeta { api_version: types.api_version.unwrap_or_default(), kind: types.kind.unwrap_or_default() };
    match types.kind == kind {
        true => Ok((types, unknown.raw.unwrap_or_default())),
        false => Err(Unreadable::Kind),
    }
}
