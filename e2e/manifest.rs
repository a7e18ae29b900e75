//! Manifests: one text, any number of objects, each keeping the text it was given.

use crate::yaml;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// One Kubernetes object, as text.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// The API group; empty for the core group.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    /// `default` where a namespaced object gives none.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// What goes to the control plane, unchanged, so that malformed values get there.
    pub(crate) text: String,
    /// The same as a value; null where the text is not YAML.
    pub(crate) value: Value,
}

/// Kinds that have no namespace, of those that cases hold.
const CLUSTER_SCOPED: [&str; 17] = [
    "APIService",
    "ClusterIssuer",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "GatewayClass",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
];

/// The API group of Istio's routing.
pub(crate) const ISTIO: &str = "networking.istio.io";

impl Object {
    /// An object that the runner makes.
    pub(crate) fn generated(value: Value) -> Object {
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        let field =
            |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind, namespace, name) =
            (field("/apiVersion"), field("/kind"), field("/metadata/namespace"), field("/metadata/name"));
        Object::new(&api_version, kind, namespace, name, text, value)
    }

    fn new(
        api_version: &str,
        kind: String,
        namespace: String,
        name: String,
        text: String,
        value: Value,
    ) -> Object {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let (group, version) = (group.to_owned(), version.to_owned());
        let namespace = match namespace.as_str() {
            _ if CLUSTER_SCOPED.contains(&kind.as_str()) => None,
            "" => Some("default".to_owned()),
            _ => Some(namespace),
        };
        Object { group, version, kind, namespace, name, text, value }
    }

    /// Whether both are the same object, in whatever version; what has no name is no other.
    pub(crate) fn is_same(&self, other: &Object) -> bool {
        !self.name.is_empty() && self.key() == other.key()
    }

    fn key(&self) -> (&str, &str, Option<&str>, &str) {
        (&self.group, &self.kind, self.namespace.as_deref(), &self.name)
    }

    /// Whether a case means this object by `Kind/namespace/name`.
    pub(crate) fn is_meant_by(&self, reference: &ObjectRef) -> bool {
        self.kind == reference.kind
            && self.namespace == reference.namespace
            && self.name == reference.name
            && (self.kind != "Gateway" || self.group == ISTIO)
    }

    pub(crate) fn is_service(&self, namespace: &str, name: &str) -> bool {
        self.kind == "Service"
            && self.group.is_empty()
            && self.namespace.as_deref() == Some(namespace)
            && self.name == name
    }

    /// The ports that this object opens on Envoy, if it is a Gateway.
    pub(crate) fn gateway_ports(&self) -> BTreeSet<u16> {
        let (list, port) = match (self.kind.as_str(), self.group.as_str()) {
            ("Gateway", ISTIO) => ("/spec/servers", "/port/number"),
            ("Gateway", "gateway.networking.k8s.io") => ("/spec/listeners", "/port"),
            _ => return BTreeSet::new(),
        };
        let servers = self.value.pointer(list).and_then(Value::as_array);
        let number =
            |server: &Value| server.pointer(port).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
        servers.into_iter().flatten().filter_map(number).collect()
    }
}

/// `Kind/namespace/name`, or `Kind/name` of a cluster-scoped object. A Gateway is Istio's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ObjectRef {
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl FromStr for ObjectRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, namespace, name) = match parts[..] {
            [kind, namespace, name] => (kind, Some(namespace.to_owned()), name),
            [kind, name] => (kind, None, name),
            _ => return Err(format!("`{text}` is not of the form Kind/namespace/name or Kind/name")),
        };
        Ok(ObjectRef { kind: kind.to_owned(), namespace, name: name.to_owned() })
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

/// Every object of a text of one or more documents; `List`s are opened.
pub(crate) fn objects(text: &str) -> Vec<Object> {
    documents(text).into_iter().flat_map(|document| read(&document)).collect()
}

fn read(text: &str) -> Vec<Object> {
    let value = match yaml::parse(text) {
        Ok(node) if node.is_null() => return Vec::new(),
        Ok(node) => node.to_json(),
        Err(_) => return vec![unreadable(text)],
    };
    let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match value["items"].as_array() {
        Some(items) if is_list => items.iter().cloned().map(Object::generated).collect(),
        _ => vec![Object { text: text.to_owned(), ..Object::generated(value) }],
    }
}

/// An object whose text is not YAML still has a kind and a name, if it is the broken form of a good one.
fn unreadable(text: &str) -> Object {
    static FIELD: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?m)(?:^|[\s{,])(apiVersion|kind|name|namespace):\s*["']?([^\s"',}]+)"#)
            .expect("a valid regex")
    });
    let field = |name: &str| {
        let found = FIELD.captures_iter(text).find(|found| &found[1] == name);
        found.map_or(String::new(), |found| found[2].to_owned())
    };
    let namespace = field("namespace");
    Object::new(&field("apiVersion"), field("kind"), namespace, field("name"), text.to_owned(), Value::Null)
}

/// The documents of a text, split at its `---` lines.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("---") {
            // What stands behind the mark belongs to the document.
            Some(rest) if rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']) => {
                documents.push(rest.trim_start().to_owned());
            }
            _ => documents.last_mut().expect("never empty").push_str(line),
        }
    }
    documents.retain(|document| !document.trim().is_empty());
    documents
}
