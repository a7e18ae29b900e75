//! From JSON values, and from messages, to objects: what is dropped, what is kept, and errors that name the field.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::kinds::Watched;
use crate::store::{Object, secret};

/// Why a value is no object of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    /// The field as a path, such as `spec.rules[0].host`; empty for the object as a whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// The paths of fields that the kind does not have.
pub type Unknown = Vec<String>;

/// Annotations that change without meaning anything: who applied what and when.
pub(super) const NOISE: &[&str] =
    &["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];

/// Metadata that nothing here reads, and that changes when nothing else does.
const BOOKKEEPING: &[&str] = &["managedFields", "resourceVersion", "selfLink"];

/// Fields of `endpoints[]` that nothing here reads; `targetRef` bears the Pod's resource version.
const ENDPOINT_DETAILS: &[&str] = &["targetRef", "nodeName", "deprecatedTopology"];

/// Makes a watched object of a value. `unknown`, where given, gets the paths of fields that the kind does not have.
///
/// # Errors
/// When a field is not of its type.
pub fn read(watched: &Watched, mut value: Value, unknown: Option<&mut Unknown>) -> Result<Object, ReadError> {
    if let Some(fields) = value.as_object_mut() {
        trim(watched, fields);
    }
    (watched.typed)(&value, unknown).map(kept)
}

/// Makes a watched object of its protobuf message: the same as of the value that an API server sends in its place.
///
/// # Errors
/// When it is no such message, or the kind has none.
pub fn read_message(watched: &Watched, message: &[u8]) -> Result<Object, ReadError> {
    let Some(read) = watched.protobuf else {
        let message = format!("a {} has no protobuf form", watched.kind);
        return Err(ReadError { field: String::new(), message });
    };
    read(message).map(kept)
}

fn kept(mut object: Object) -> Object {
    if let Object::Secret(secret) = &mut object {
        secret::trim(secret);
    }
    object
}

fn trim(watched: &Watched, fields: &mut Map<String, Value>) {
    for field in watched.dropped.iter().chain(&["apiVersion", "kind"]) {
        fields.remove(*field);
    }
    // A key whose lines are all comments has no value, which for a whole section is as good as no key.
    fields.retain(|_, value| !value.is_null());
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in BOOKKEEPING {
            metadata.remove(*field);
        }
        for texts in ["annotations", "labels"] {
            let Some(texts) = metadata.get_mut(texts).and_then(Value::as_object_mut) else { continue };
            for key in NOISE {
                texts.remove(*key);
            }
            // As an API server reads them.
            for text in texts.values_mut().filter(|text| text.is_null()) {
                *text = Value::String(String::new());
            }
        }
    }
    for endpoint in fields.get_mut("endpoints").and_then(Value::as_array_mut).into_iter().flatten() {
        for field in ENDPOINT_DETAILS {
            endpoint.as_object_mut().map(|endpoint| endpoint.remove(*field));
        }
    }
}

/// Reads a type.
pub(super) fn typed<T: DeserializeOwned>(
    value: &Value,
    unknown: Option<&mut Unknown>,
) -> Result<T, ReadError> {
    let result = match unknown {
        None => T::deserialize(value),
        Some(unknown) => serde_ignored::deserialize(value, |path| unknown.push(path_text(&path))),
    };
    result.or_else(|_| explain(value))
}

/// Reads a type that could not be read once more, to see why.
#[cold]
fn explain<T: DeserializeOwned>(value: &Value) -> Result<T, ReadError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut path: Vec<Step> = error.path().iter().map_while(Step::of).collect();
        let message = error.into_inner().to_string();
        // A type that collects the fields it does not know hides the rest of the path.
        refine::<T>(value, &mut path, &message);
        ReadError { field: text(&path), message: in_words(message) }
    })
}

/// A message that names a type of Rust's, with the values that it takes in place of that.
fn in_words(message: String) -> String {
    let Some((said, name)) = message.rsplit_once("expected ") else { return message };
    let (from, to) = match name {
        "u16" => (0, u16::MAX.into()),
        "u32" => (0, u32::MAX.into()),
        "i32" => (i32::MIN.into(), i32::MAX.into()),
        "i64" => (i64::MIN, i64::MAX),
        _ => return message,
    };
    format!("{said}expected a whole number from {from} to {to}")
}

/// One step of a path into a value.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl Step {
    fn of(segment: &serde_path_to_error::Segment) -> Option<Self> {
        use serde_path_to_error::Segment;
        match segment {
            Segment::Seq { index } => Some(Self::Index(*index)),
            Segment::Map { key } | Segment::Enum { variant: key } => Some(Self::Key(key.clone())),
            Segment::Unknown => None,
        }
    }

    fn into<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
        match self {
            Self::Key(key) => value.get_mut(key),
            Self::Index(index) => value.get_mut(index),
        }
    }
}

/// Follows an error further down: a part without which there is no such error holds its cause.
fn refine<T: DeserializeOwned>(value: &Value, path: &mut Vec<Step>, message: &str) {
    loop {
        let mut whole = value.clone();
        let Some(node) = at(&mut whole, path) else { return };
        let steps: Vec<Step> = match node {
            Value::Object(fields) => fields.keys().cloned().map(Step::Key).collect(),
            Value::Array(items) => (0..items.len()).map(Step::Index).collect(),
            _ => return,
        };
        let culprit = steps.into_iter().find(|step| {
            let mut without = value.clone();
            match (at(&mut without, path), step) {
                (Some(Value::Object(fields)), Step::Key(key)) => drop(fields.remove(key)),
                (Some(Value::Array(items)), Step::Index(index)) => drop(items.remove(*index)),
                _ => return false,
            }
            match T::deserialize(&without) {
                Ok(_) => true,
                Err(other) => {
                    let other = other.to_string();
                    other != message && !other.starts_with("missing field")
                }
            }
        });
        match culprit {
            Some(step) => path.push(step),
            None => return,
        }
    }
}

fn at<'a>(value: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, step| step.into(value))
}

fn text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => push_key(&mut text, key),
        }
    }
    text
}

fn path_text(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_text(parent)),
        Path::Map { parent, key } => {
            let mut text = path_text(parent);
            push_key(&mut text, key);
            text
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            path_text(parent)
        }
    }
}

fn push_key(text: &mut String, key: &str) {
    if !text.is_empty() {
        text.push('.');
    }
    text.push_str(key);
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
