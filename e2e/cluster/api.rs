//! A small client of the API server: server-side apply, get and delete of objects of any kind.

use crate::manifest::Object;
use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Whose fields those are that the runner applies.
const MANAGER: &str = "chancery-e2e";

/// How long a definition may take to be served, and what was deleted to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the objects of a kind and version are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// `/api/v1`, `/apis/GROUP/VERSION`.
    root: String,
    plural: String,
    is_namespaced: bool,
}

impl Resource {
    pub(super) fn new(group: &str, version: &str, plural: &str, is_namespaced: bool) -> Resource {
        let root = match group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        Resource { root, plural: plural.to_owned(), is_namespaced }
    }

    /// The path of an object.
    pub(super) fn path(&self, namespace: Option<&str>, name: &str) -> String {
        let namespace = match namespace.filter(|_| self.is_namespaced) {
            Some(namespace) => format!("/namespaces/{}", encoded(namespace)),
            None => String::new(),
        };
        format!("{}{namespace}/{}/{}", self.root, self.plural, encoded(name))
    }

    fn collection(&self) -> String {
        format!("{}/{}", self.root, self.plural)
    }
}

/// Group, version, kind.
type KindKey = (String, String, String);

/// A connection, and the kinds that are known to be served.
pub(super) struct Api {
    client: Client,
    kinds: BTreeMap<KindKey, Resource>,
}

impl Api {
    pub(super) fn new(client: Client) -> Api {
        Api { client, kinds: BTreeMap::new() }
    }

    /// Another connection to the same server.
    pub(super) fn reconnect(&mut self, client: Client) {
        self.client = client;
    }

    /// Learns which kinds the server has.
    pub(super) async fn discover(&mut self) -> Result<()> {
        for path in ["/api", "/apis"] {
            let groups = self.send(discovery(path)?).await?;
            for group in items(&groups, "items") {
                let name = group["metadata"]["name"].as_str().unwrap_or_default();
                items(group, "versions").for_each(|version| self.learn(name, version));
            }
        }
        Ok(())
    }

    fn learn(&mut self, group: &str, version: &Value) {
        let number = text(&version["version"]);
        for resource in items(version, "resources") {
            let kind = text(&resource["responseKind"]["kind"]);
            let is_namespaced = resource["scope"] == "Namespaced";
            let known = Resource::new(group, &number, &text(&resource["resource"]), is_namespaced);
            self.kinds.insert((group.to_owned(), number.clone(), kind), known);
        }
    }

    /// Takes the kinds of a CustomResourceDefinition in, once they are served.
    pub(super) async fn define(&mut self, definition: &Value) -> Result<()> {
        for (key, resource) in defined(definition) {
            let path = resource.collection() + "?limit=1";
            let started = Instant::now();
            while let Err(error) = self.request(Method::GET, &path, None).await {
                if started.elapsed() > PATIENCE {
                    return Err(error).context("what was defined is not served");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.kinds.insert(key, resource);
        }
        Ok(())
    }

    /// Forgets the kinds of a CustomResourceDefinition that is gone.
    pub(super) fn forget(&mut self, definition: &Value) {
        for (key, _) in defined(definition) {
            self.kinds.remove(&key);
        }
    }

    /// Where an object of this kind is, if the kind is served in its version.
    pub(super) fn resource(&self, object: &Object) -> Option<&Resource> {
        self.kinds.get(&(object.group.clone(), object.version.clone(), object.kind.clone()))
    }

    /// The versions of a kind that are served.
    pub(super) fn versions(&self, group: &str, kind: &str) -> Vec<String> {
        let same = self.kinds.keys().filter(|key| key.0 == group && key.2 == kind);
        same.map(|(_, version, _)| version.clone()).collect()
    }

    /// Where objects of a kind are that is known by its name alone.
    pub(super) fn resource_of(&self, kind: &str, is_meant: impl Fn(&str) -> bool) -> Option<&Resource> {
        self.kinds.iter().find(|((group, _, own), _)| own == kind && is_meant(group)).map(|it| it.1)
    }

    /// Creates or updates by server-side apply; `body` is JSON or YAML. Says what the object is then.
    pub(super) async fn apply(&self, path: &str, body: &str) -> Result<Value> {
        let path = format!("{path}?fieldManager={MANAGER}&force=true");
        self.request(Method::PATCH, &path, Some(("application/apply-patch+yaml", body))).await
    }

    /// Whether the server says that it is ready.
    pub(super) async fn is_ready(&self) -> bool {
        let request = http::Request::get("/readyz").body(Vec::new());
        match request {
            Ok(request) => self.client.request_text(request).await.is_ok(),
            Err(_) => false,
        }
    }

    pub(super) async fn create(&self, path: &str, value: &Value) -> Result<Value> {
        self.request(Method::POST, path, Some(("application/json", &value.to_string()))).await
    }

    pub(super) async fn replace(&self, path: &str, value: &Value) -> Result<Value> {
        self.request(Method::PUT, path, Some(("application/json", &value.to_string()))).await
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        self.request(Method::GET, path, None).await
    }

    /// Deletes at once, as the case's end does not wait for a kubelet.
    pub(super) async fn delete(&self, path: &str) -> Result<Value> {
        let options = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"}).to_string();
        self.request(Method::DELETE, path, Some(("application/json", &options))).await
    }

    /// Deletes what may be gone already, and does without finalizers, for which there is no controller.
    pub(super) async fn purge(&self, path: &str) -> Result<()> {
        let left = absent(self.delete(path).await)?;
        if left.is_some_and(|left| left.pointer("/metadata/finalizers").is_some()) {
            let free = json!({"metadata": {"finalizers": null}}).to_string();
            let content = Some(("application/merge-patch+json", free.as_str()));
            absent(self.request(Method::PATCH, path, content).await)?;
        }
        Ok(())
    }

    /// Deletes a namespace and finalizes it, since no controller does; its objects are the caller's to delete.
    pub(super) async fn end_namespace(&self, name: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}", encoded(name));
        absent(self.delete(&path).await)?;
        if let Some(mut namespace) = absent(self.get(&path).await)? {
            namespace["spec"]["finalizers"] = json!([]);
            absent(self.replace(&format!("{path}/finalize"), &namespace).await)?;
        }
        self.gone(&path).await
    }

    /// Waits until there is no such object any more.
    pub(super) async fn gone(&self, path: &str) -> Result<()> {
        let started = Instant::now();
        while absent(self.get(path).await)?.is_some() {
            ensure!(started.elapsed() < PATIENCE, "{path} does not go");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn request(&self, method: Method, path: &str, content: Option<(&str, &str)>) -> Result<Value> {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some((content_type, _)) = content {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        self.send(request.body(content.map_or(Vec::new(), |(_, body)| body.as_bytes().to_vec()))?).await
    }

    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<Value> {
        match self.client.request(request).await {
            Ok(value) => Ok(value),
            Err(kube::Error::Api(status)) => {
                Err(Refused { code: status.code, message: status.message }.into())
            }
            Err(error) => bail!("the API server does not answer: {error}"),
        }
    }
}

/// What the API server said no to.
#[derive(Debug, thiserror::Error)]
#[error("the API server refuses it ({code}): {message}")]
struct Refused {
    code: u16,
    message: String,
}

/// None where the API server knows no such object.
pub(super) fn absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if refused_with(&error, 404) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn refused_with(error: &anyhow::Error, code: u16) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.code == code)
}

/// The kinds that a CustomResourceDefinition serves.
fn defined(definition: &Value) -> Vec<(KindKey, Resource)> {
    let spec = &definition["spec"];
    let (group, kind, plural) =
        (text(&spec["group"]), text(&spec["names"]["kind"]), text(&spec["names"]["plural"]));
    let served = items(spec, "versions").filter(|version| version["served"] == true);
    let kind = |version: &Value| {
        let version = text(&version["name"]);
        let resource = Resource::new(&group, &version, &plural, spec["scope"] == "Namespaced");
        ((group.clone(), version, kind.clone()), resource)
    };
    served.map(kind).collect()
}

fn discovery(path: &str) -> Result<http::Request<Vec<u8>>> {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    Ok(http::Request::get(path).header(http::header::ACCEPT, accept).body(Vec::new())?)
}

fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A segment of a path; a malformed name reaches the API server as it is.
fn encoded(segment: &str) -> String {
    let mut encoded = String::new();
    for byte in segment.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            // Writing to a String cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}
