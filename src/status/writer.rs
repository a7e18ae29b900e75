//! Reads and writes what the plans say, and no more.

use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{StreamExt as _, iter};
use k8s_openapi::api::core::v1::Event as CoreEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{ApiResource, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::address::Addresses;
use super::analysis::Analysis;
use super::events::Event;
use super::plan::{Known, KnownStatuses, Status, Write, has_status};
use crate::crd::rate_limit_policy::RateLimitPolicyStatus;
use crate::source::kinds::WATCHED;
use crate::values::{Kind, ObjectKey};

/// The field manager: what it wrote last is what it may take away.
pub(super) const MANAGER: &str = "chancery-status";
/// Requests that are under way at once.
const AT_ONCE: usize = 16;
/// How long one of them may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Why something was not written.
enum Trouble {
    /// The object is gone, or another one has its name; or the kind has no status.
    Absent,
    /// There is one of that name.
    Exists,
    /// The server will never take it.
    Invalid(String),
    /// It is worth trying again.
    Failed(String),
}

/// The client's side of status and Events.
pub(super) struct Writer {
    client: Client,
    identity: String,
    namespaces: Vec<String>,
}

impl Writer {
    /// With namespaces, only what is in them is read.
    pub(super) fn new(client: Client, identity: String, namespaces: Vec<String>) -> Self {
        Self { client, identity, namespaces }
    }

    /// What the statuses of all objects hold.
    pub(super) async fn known(&self) -> kube::Result<KnownStatuses> {
        let mut known = KnownStatuses::new();
        for watched in &WATCHED {
            if !has_status(watched.kind) {
                continue;
            }
            for resource in resources(watched.kind) {
                match self.list(watched.kind, &resource, &mut known).await {
                    // Another version may be served, or the kind is not: then there is none.
                    Err(kube::Error::Api(status)) if watched.optional && matches!(status.code, 403 | 404) => {
                    }
                    outcome => {
                        outcome?;
                        break;
                    }
                }
            }
        }
        Ok(known)
    }

    async fn list(&self, kind: Kind, resource: &ApiResource, known: &mut KnownStatuses) -> kube::Result<()> {
        for api in self.apis(resource) {
            let mut page = ListParams::default().limit(PAGE);
            loop {
                let list = api.list(&page).await?;
                known.extend(list.items.iter().filter_map(|object| read(kind, object)));
                match list.metadata.continue_.filter(|next| !next.is_empty()) {
                    Some(next) => page = page.continue_token(&next),
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// One for each namespace that is watched, or one for all.
    fn apis(&self, resource: &ApiResource) -> Vec<Api<DynamicObject>> {
        let within = |it: &String| Api::namespaced_with(self.client.clone(), it, resource);
        match self.namespaces.is_empty() {
            true => vec![Api::all_with(self.client.clone(), resource)],
            false => self.namespaces.iter().map(within).collect(),
        }
    }

    /// Writes statuses; answers those that are worth trying again.
    pub(super) async fn statuses(&self, writes: Vec<Write>) -> Vec<ObjectKey> {
        let failed = attempt(writes, |write| {
            Box::pin(async move { self.status(&write).await.map_err(|trouble| (write, trouble)) })
        });
        failed.await.into_iter().map(|write| write.key).collect()
    }

    async fn status(&self, write: &Write) -> Result<(), Trouble> {
        let key = &write.key;
        let parameters = PatchParams::apply(MANAGER).force();
        for resource in resources(key.kind) {
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
            let patch = Patch::Apply(json!({
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {"name": key.name, "uid": write.uid},
                "status": write.status.to_json(),
            }));
            match answer(api.patch_status(&key.name, &parameters, &patch)).await {
                Err(Trouble::Absent) => {}
                outcome => return outcome,
            }
        }
        Err(Trouble::Absent)
    }

    /// Writes Events; answers those that are worth trying again.
    pub(super) async fn events(&self, events: Vec<Event>) -> Vec<Event> {
        let failed = attempt(events, |event| {
            Box::pin(async move { self.event(&event).await.map_err(|trouble| (event, trouble)) })
        });
        failed.await
    }

    async fn event(&self, event: &Event) -> Result<(), Trouble> {
        let api: Api<CoreEvent> = Api::namespaced(self.client.clone(), event.namespace());
        if event.count > 1 {
            let patch = Patch::Merge(event.next_of_series());
            match answer(api.patch(&event.name(), &PatchParams::default(), &patch)).await {
                // Events do not last.
                Err(Trouble::Absent) => {}
                outcome => return outcome,
            }
        }
        let body = serde_json::from_value::<CoreEvent>(event.to_json(&self.identity))
            .map_err(|error| Trouble::Invalid(error.to_string()))?;
        let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match answer(api.create(&parameters, &body)).await {
            // It says the same: an earlier leader told it.
            Err(Trouble::Exists) => Ok(()),
            outcome => outcome,
        }
    }
}

/// Where objects of a kind are, by version. Which of them is served shows only when it is asked for.
fn resources(kind: Kind) -> Vec<ApiResource> {
    let watched = WATCHED.iter().filter(|watched| watched.kind == kind);
    watched.flat_map(|it| it.versions.iter().map(|version| it.resource(version))).collect()
}

/// Does all, some at once; answers what is worth trying again, and logs one line for all of it.
async fn attempt<'a, T>(
    all: Vec<T>,
    one: impl Fn(T) -> BoxFuture<'a, Result<(), (T, Trouble)>> + Send,
) -> Vec<T> {
    let mut failed = Vec::new();
    let mut why = None;
    let mut outcomes = iter(all).map(one).buffer_unordered(AT_ONCE);
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(()) | Err((_, Trouble::Absent | Trouble::Exists)) => {}
            Err((_, Trouble::Invalid(error))) => {
                tracing::error!("Kubernetes refuses what is written: {error}")
            }
            Err((thing, Trouble::Failed(error))) => {
                failed.push(thing);
                why = Some(error);
            }
        }
    }
    if let Some(error) = why {
        tracing::warn!(count = failed.len(), "cannot write to Kubernetes, tried again: {error}");
    }
    failed
}

async fn answer<T>(request: impl Future<Output = kube::Result<T>>) -> Result<(), Trouble> {
    match timeout(ANSWER_WITHIN, request).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            404 => Trouble::Absent,
            409 if status.reason == "AlreadyExists" => Trouble::Exists,
            // The uid is another one's.
            409 => Trouble::Absent,
            400 | 422 => Trouble::Invalid(status.message.clone()),
            _ => Trouble::Failed(status.message.clone()),
        }),
        Ok(Err(error)) => Err(Trouble::Failed(error.to_string())),
        Err(_) => Err(Trouble::Failed("no answer in time".to_owned())),
    }
}

/// What an object's status holds, unless that is nothing.
fn read(kind: Kind, object: &DynamicObject) -> Option<(ObjectKey, Known)> {
    let ours = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(MANAGER);
    let written = object.metadata.managed_fields.iter().flatten().find(ours).is_some();
    let status = read_status(kind, &object.data["status"]);
    if !written && status == Some(Status::Nothing) {
        return None;
    }
    let metadata = &object.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let key = ObjectKey::new(kind, metadata.namespace.as_deref().unwrap_or_default(), name);
    Some((key, Known { uid: metadata.uid.clone().unwrap_or_default(), status, written }))
}

/// None if it is nothing that we would write.
fn read_status(kind: Kind, status: &Value) -> Option<Status> {
    let empty = || status.as_object().is_none_or(serde_json::Map::is_empty);
    match kind {
        Kind::VirtualService | Kind::RateLimitPolicy if empty() => return Some(Status::Nothing),
        Kind::VirtualService => {
            return Analysis::deserialize(status).ok().map(Box::new).map(Status::Analysis);
        }
        Kind::RateLimitPolicy => {
            return RateLimitPolicyStatus::deserialize(status).ok().map(Box::new).map(Status::Policy);
        }
        _ => {}
    }
    match &status["loadBalancer"]["ingress"] {
        Value::Null => Some(Status::Nothing),
        addresses => Addresses::deserialize(addresses).ok().map(Status::Addresses),
    }
}
