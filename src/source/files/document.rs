//! The documents of a file, and the objects of a document. Pure: bytes in, objects and findings out.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::source::kinds::{Meaning, Watched, meaning};
use crate::source::read::read;
use crate::source::yaml;
use crate::store::Stored;
use crate::values::{Age, Finding, Findings, Kind, ObjectKey};

/// The namespace of namespaced objects that name none.
const DEFAULT_NAMESPACE: &str = "default";

/// How deep lists of lists may be nested.
const MAX_LISTS: usize = 4;

/// What was read of a file.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Its documents in order, empty ones left out.
    pub documents: Vec<Document>,
}

/// What was read of a document.
#[derive(Debug)]
pub struct Document {
    /// Of its text.
    pub hash: u64,
    /// Its objects.
    pub content: Content,
}

/// The content of a document.
#[derive(Debug)]
pub enum Content {
    /// The text is what it was before: so are the objects.
    Unchanged,
    /// It cannot be told which objects it holds.
    Unreadable(Vec<Finding>),
    /// The objects, and findings about what is none.
    Read(Vec<Item>, Vec<Finding>),
}

/// An object of a document.
#[derive(Debug)]
pub enum Item {
    /// It was read.
    Applied(Arc<Stored>),
    /// Something in it is wrong: its last good form stays.
    Broken(ObjectKey),
}

impl Parsed {
    /// Whether it cannot be told which objects the file holds.
    pub fn is_broken(&self) -> bool {
        self.documents.iter().any(|document| matches!(document.content, Content::Unreadable(_)))
    }

    /// A file that could not be read.
    pub fn unreadable(file: &str, message: String) -> Self {
        let mut findings = Findings::default();
        findings.error(&document_key(file, 0), "", "Unreadable", message);
        let content = Content::Unreadable(findings.into_vec());
        Self { documents: vec![Document { hash: 0, content }] }
    }
}

/// The name of a document where it is not known to be any object. Numbers start at 1; 0 is the file as a whole.
fn document_key(file: &str, number: usize) -> ObjectKey {
    let name = if number == 0 { file.to_owned() } else { format!("{file}#{number}") };
    ObjectKey::new(Kind::Manifest, "", name)
}

/// Reads a file. `known` are the hashes of its documents as they were read last; those that are the same in the same
/// place are not read again.
pub fn parse(file: &str, bytes: &[u8], known: &[u64]) -> Parsed {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let message = format!("is not UTF-8 text, from byte {} on", error.valid_up_to());
            return Parsed::unreadable(file, message);
        }
    };
    let unchanged = |index: usize, hash: u64| known.get(index) == Some(&hash);
    if file.ends_with(".json") {
        return parse_json(file, text, unchanged);
    }
    let chunks = split(text);
    let documents = crate::parallel::map(&chunks, |index, chunk| {
        let hash = xxh3_64(chunk.text.as_bytes());
        let content = match unchanged(index, hash) {
            true => Content::Unchanged,
            false => parse_yaml(file, index + 1, chunk, text),
        };
        Document { hash, content }
    });
    Parsed { documents }
}

fn parse_yaml(file: &str, number: usize, chunk: &Chunk<'_>, text: &str) -> Content {
    match yaml::parse(chunk.text) {
        Ok(values) => {
            let mut reader = Reader::new(file, number);
            values.into_iter().for_each(|value| reader.object(value, 0));
            Content::Read(reader.items, reader.findings.into_vec())
        }
        Err(error) => {
            let (line, column) = (chunk.line(text) + error.line - 1, error.column);
            unreadable(file, number, format!("is not YAML: line {line}, column {column}: {error}"))
        }
    }
}

/// JSON texts may follow each other; the file is one whole as far as changes are concerned.
fn parse_json(file: &str, text: &str, unchanged: impl Fn(usize, u64) -> bool) -> Parsed {
    let hash = xxh3_64(text.as_bytes());
    let mut documents = Vec::new();
    if text.trim_ascii().is_empty() {
        return Parsed::default();
    }
    if unchanged(0, hash) {
        documents.push(Document { hash, content: Content::Unchanged });
        return Parsed { documents };
    }
    let mut reader = Reader::new(file, 1);
    let mut content = None;
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        match value {
            Ok(value) => reader.object(value, 0),
            Err(error) => content = Some(unreadable(file, reader.number, format!("is not JSON: {error}"))),
        }
        reader.number += 1;
    }
    let content = content.unwrap_or_else(|| Content::Read(reader.items, reader.findings.into_vec()));
    documents.push(Document { hash, content });
    Parsed { documents }
}

fn unreadable(file: &str, number: usize, message: String) -> Content {
    let mut findings = Findings::default();
    findings.error(&document_key(file, number), "", "Unreadable", message);
    Content::Unreadable(findings.into_vec())
}

/// A document's text, and where in the file it begins, in bytes.
#[derive(Debug, PartialEq, Eq)]
struct Chunk<'a> {
    text: &'a str,
    at: usize,
}

/// Splits YAML before every line that begins with `---`, which means a new document wherever it stands. What holds
/// nothing but comments is left out.
fn split(text: &str) -> Vec<Chunk<'_>> {
    let marks = text.match_indices("\n---").map(|(at, _)| at + 1);
    let marks = marks.filter(|at| text[at + 3..].chars().next().is_none_or(is_blank));
    let mut chunks = Vec::new();
    let mut from = 0;
    for until in marks.chain([text.len()]) {
        let chunk = Chunk { text: &text[from..until], at: from };
        if !chunk.is_empty() {
            chunks.push(chunk);
        } else if chunk.text.starts_with('%') || chunk.text.contains("\n%") {
            // Directives belong to the document behind them.
            continue;
        }
        from = until;
    }
    chunks
}

impl Chunk<'_> {
    fn is_empty(&self) -> bool {
        let mark = self.text.strip_prefix("---").filter(|rest| rest.starts_with(is_blank) || rest.is_empty());
        mark.unwrap_or(self.text).lines().all(|line| {
            let content = line.trim_start_matches(is_blank);
            content.is_empty() || content.starts_with(['#', '%'])
        })
    }

    /// The line, from 1, in which the document begins.
    fn line(&self, file: &str) -> usize {
        1 + file[..self.at].matches('\n').count()
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

/// Reads the objects of one document.
struct Reader<'a> {
    file: &'a str,
    /// Of the document, from 1.
    number: usize,
    /// Of the next object in it.
    item: usize,
    items: Vec<Item>,
    findings: Findings,
}

impl<'a> Reader<'a> {
    fn new(file: &'a str, number: usize) -> Self {
        Self { file, number, item: 0, items: Vec::new(), findings: Findings::default() }
    }

    /// Where in the folder the document is, for messages.
    fn place(&self) -> String {
        format!("{}, document {}", self.file, self.number)
    }

    fn object(&mut self, value: Value, depth: usize) {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version.is_empty() || kind.is_empty() {
            let message = "is no Kubernetes object: it has no apiVersion and kind";
            self.findings.warning(&document_key(self.file, self.number), "", "NotAnObject", message);
            return;
        }
        if kind.ends_with("List") && value.get("items").is_some() {
            return self.list(value, depth);
        }
        match meaning(api_version, kind) {
            Meaning::Watched(watched) => self.watched(watched, value),
            Meaning::Version(watched) => {
                let key = key_of(watched, &value).unwrap_or_else(|_| document_key(self.file, self.number));
                let message =
                    format!("{api_version} is not read, write {} ({})", watched.api_version(), self.place());
                self.findings.error(&key, "apiVersion", "UnknownVersion", message);
            }
            Meaning::WellKnown => {
                tracing::debug!(kind, api_version, place = self.place(), "not routed by Chancery");
            }
            Meaning::Unknown => {
                let name = value["metadata"]["name"].as_str().unwrap_or_default();
                let message = format!("{kind} {name} ({api_version}) is not routed by Chancery");
                tracing::info!(place = self.place(), "{message}");
                self.findings.info(&document_key(self.file, self.number), "kind", "NotRouted", message);
            }
        }
    }

    /// The items of a list, which take the list's kind and version where they have none.
    fn list(&mut self, mut value: Value, depth: usize) {
        if depth == MAX_LISTS {
            let key = document_key(self.file, self.number);
            return self.findings.error(&key, "items", "Malformed", "lists are nested too deep");
        }
        let items = match value["items"].take() {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            _ => {
                let key = document_key(self.file, self.number);
                return self.findings.error(&key, "items", "Malformed", "is not a list");
            }
        };
        let kind = value["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).unwrap_or_default();
        for mut item in items {
            if let Some(fields) = item.as_object_mut().filter(|_| !kind.is_empty()) {
                fields.entry("kind").or_insert_with(|| kind.into());
                fields.entry("apiVersion").or_insert_with(|| value["apiVersion"].clone());
            }
            self.object(item, depth + 1);
        }
    }

    fn watched(&mut self, watched: &'static Watched, mut value: Value) {
        self.item += 1;
        let key = match key_of(watched, &value) {
            Ok(key) => key,
            Err((field, message)) => {
                let message = format!("{message}: the {} is left out", watched.kind);
                let key = document_key(self.file, self.number);
                return self.findings.error(&key, field, "InvalidName", message);
            }
        };
        if key.namespace.is_empty() {
            value["metadata"].as_object_mut().map(|metadata| metadata.remove("namespace"));
        } else {
            value["metadata"]["namespace"] = (*key.namespace).into();
        }
        let mut unknown = Vec::new();
        match read(watched, value, Some(&mut unknown)) {
            Ok(object) => {
                let created = object.metadata().creation_timestamp.as_ref();
                let created = created.map(|time| Timestamp::as_second(time.0));
                let age = Age { created, position: position(self.file, self.number, self.item) };
                let mut findings = Findings::default();
                for field in unknown {
                    let message = format!("is not known and has no effect ({})", self.place());
                    findings.warning(&key, field, "UnknownField", message);
                }
                let findings = findings.into_vec();
                self.items.push(Item::Applied(Arc::new(Stored::new(object, age, findings))));
            }
            Err(error) => {
                let message = format!("{} ({})", error.message, self.place());
                self.findings.error(&key, error.field, "Malformed", message);
                self.items.push(Item::Broken(key));
            }
        }
    }
}

/// A place in a folder such that their order is that of file names in byte order, then of documents and objects.
fn position(file: &str, number: usize, item: usize) -> Arc<str> {
    format!("{file}\0{number:07}.{item:07}").into()
}

/// The file, and the number of the document in it, from which an object of a folder was read.
pub fn place(age: &Age) -> Option<(&str, usize)> {
    let (file, position) = age.position.split_once('\0')?;
    let (document, _) = position.split_once('.')?;
    Some((file, document.parse().ok()?))
}

/// The key of an object; or which field of its name is wrong, and how.
fn key_of(watched: &Watched, value: &Value) -> Result<ObjectKey, (&'static str, String)> {
    let metadata = &value["metadata"];
    let name = match &metadata["name"] {
        Value::String(name) if is_name(name) => name.as_str(),
        Value::Null => return Err(("metadata.name", "is missing".into())),
        other => return Err(("metadata.name", format!("{other} is not a name"))),
    };
    let namespace = match &metadata["namespace"] {
        _ if !watched.kind.is_namespaced() => "",
        Value::Null => DEFAULT_NAMESPACE,
        Value::String(namespace) if namespace.is_empty() => DEFAULT_NAMESPACE,
        Value::String(namespace) if is_name(namespace) && !namespace.contains('.') => namespace,
        other => return Err(("metadata.namespace", format!("{other} is not a name"))),
    };
    Ok(ObjectKey::new(watched.kind, namespace, name))
}

/// An RFC 1123 subdomain, which the names of all watched kinds are.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
