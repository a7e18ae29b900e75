//! Resources as Envoy's own JSON, without secrets.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::State;
use super::error::{Error, Query};
use crate::descriptors;
use crate::fleet::NodeReport;
use crate::translate::names;
use crate::values::header::{REDACTED, is_secret};
use crate::xds::{Resource, Snapshot, TypeUrl};

/// Fields of Envoy's messages that hold secrets, wherever they stand: private keys and their passwords, session ticket
/// keys, generic secrets, the users of basic authentication.
const SECRET_FIELDS: [&str; 7] = [
    "private_key",
    "private_key_provider",
    "pkcs12",
    "password",
    "session_ticket_keys",
    "generic_secret",
    "users",
];

/// Fields of Envoy's messages about a header, beside its `key`, that hold its value.
const HEADER_VALUES: [&str; 2] = ["value", "raw_value"];

/// Fields of Envoy's messages about a header, cookie or query parameter, beside its `name`, that hold what it is compared
/// with.
const COMPARISONS: [&str; 1] = ["string_match"];

/// A resource as Envoy's JSON, every `Any` in it unpacked, secrets replaced.
///
/// # Errors
/// When the resource, or an `Any` in it, is of a type that has no descriptor.
pub fn resource(resource: &Resource) -> Result<Value, descriptors::Error> {
    let mut json = descriptors::to_json(resource.type_url().as_str(), resource.body())?;
    if resource.type_url() == TypeUrl::Secret {
        json["name"] = json!(&**resource.name());
    }
    redact(&mut json);
    Ok(json)
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let header = [("key", &HEADER_VALUES[..]), ("name", &COMPARISONS[..])].into_iter();
            let mut secrets =
                header.filter(|(name, _)| fields.get(*name).and_then(Value::as_str).is_some_and(is_secret));
            let secret = secrets.next().map_or(&[][..], |(_, secret)| secret);
            for (name, field) in fields {
                if SECRET_FIELDS.contains(&name.as_str()) || secret.contains(&name.as_str()) {
                    *field = json!(REDACTED);
                } else {
                    redact(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        // Wherever it came from, no key leaves in readable form.
        Value::String(text) if text.contains("PRIVATE KEY-----") => *text = REDACTED.to_owned(),
        _ => {}
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    r#type: Option<String>,
    name: Option<String>,
    node: Option<String>,
}

/// The resources of the current snapshot, of one type and name if asked. With a node, what that Envoy rejects is
/// marked. The answer is written piece by piece, since there may be very many.
pub(super) async fn config_dump(
    Extract(state): Extract<State>,
    Query(asked): Query<Asked>,
) -> Result<Response, Error> {
    let Some(snapshot) = state.snapshots.borrow().clone() else {
        return Err(Error::unavailable("no snapshot yet: not every source has been read in full once"));
    };
    let types = match asked.r#type.as_deref().unwrap_or_default() {
        "" => TypeUrl::ALL.to_vec(),
        name => vec![type_named(name)?],
    };
    let node = match asked.node.as_deref().unwrap_or_default() {
        "" => None,
        id => Some(node_named(&state, id)?),
    };
    let resources: VecDeque<Arc<Resource>> = match asked.name.as_deref().unwrap_or_default() {
        "" => types.iter().flat_map(|type_url| snapshot.iter(*type_url).cloned()).collect(),
        name => types
            .iter()
            .filter_map(|type_url| snapshot.find(*type_url, name, Some(names::DEFAULT_SECRET)))
            .map(|(r, _)| r.clone())
            .collect(),
    };
    let body = Body::from_stream(futures::stream::iter(pieces(&snapshot, resources, node)));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn pieces(
    snapshot: &Snapshot,
    resources: VecDeque<Arc<Resource>>,
    node: Option<NodeReport>,
) -> impl Iterator<Item = Result<Bytes, std::convert::Infallible>> + use<> {
    let head = match &node {
        Some(node) => {
            json!({"sequence": snapshot.sequence(), "node": node.id, "progress": node.progress}).to_string()
        }
        None => json!({"sequence": snapshot.sequence()}).to_string(),
    };
    let head = format!("{},\"resources\":[", head.strip_suffix('}').unwrap_or(&head));
    let entries = resources.into_iter().enumerate().map(move |(index, resource)| {
        let comma = if index == 0 { "" } else { ",\n" };
        format!("{comma}{}", entry(&resource, node.as_ref()))
    });
    [head].into_iter().chain(entries).chain(["]}\n".to_owned()]).map(|text| Ok(Bytes::from(text)))
}

fn entry(resource: &Resource, node: Option<&NodeReport>) -> Value {
    let mut entry = json!({
        "type": resource.type_url().short(),
        "name": &**resource.name(),
        "version": resource.version(),
    });
    match self::resource(resource) {
        Ok(json) => entry["resource"] = json,
        Err(error) => entry["error"] = json!(error.to_string()),
    }
    let rejected = node
        .into_iter()
        .flat_map(|node| &node.rejected)
        .find(|rejected| rejected.type_url == resource.type_url() && rejected.name == *resource.name());
    if let Some(rejected) = rejected {
        entry["rejected"] = json!({"version": rejected.version, "message": rejected.message});
    }
    entry
}

/// The type of this name: `Cluster`, in any letter case, its full name or its URL.
fn type_named(name: &str) -> Result<TypeUrl, Error> {
    let full = |type_url: TypeUrl| type_url.as_str().rsplit('/').next().unwrap_or_default();
    let is = |type_url: &TypeUrl| {
        type_url.short().eq_ignore_ascii_case(name) || full(*type_url) == name || type_url.as_str() == name
    };
    TypeUrl::ALL.into_iter().find(is).ok_or_else(|| {
        let known = TypeUrl::ALL.map(TypeUrl::short);
        Error::bad_request(format!("there are no resources of type {name}")).with("types", json!(known))
    })
}

/// The stream of an Envoy: the latest, if it has several for a moment.
fn node_named(state: &State, id: &str) -> Result<NodeReport, Error> {
    let nodes = state.fleet.nodes();
    let known: Vec<String> = nodes.iter().map(|node| node.id.clone()).collect();
    nodes.into_iter().rev().find(|node| node.id == id).ok_or_else(|| {
        Error::not_found(format!("no Envoy with the id {id} is connected")).with("nodes", json!(known))
    })
}
