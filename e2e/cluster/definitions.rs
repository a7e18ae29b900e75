//! CustomResourceDefinitions: the project's own, Istio's, and permissive ones for whatever else a manifest names.

use super::api::Api;
use crate::manifest::{ISTIO, Object, objects};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::path::Path;

/// Istio's kinds of networking, all in three versions.
const ISTIO_KINDS: [&str; 8] = [
    "DestinationRule",
    "Gateway",
    "ProxyConfig",
    "ServiceEntry",
    "Sidecar",
    "VirtualService",
    "WorkloadEntry",
    "WorkloadGroup",
];
const ISTIO_VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha3"];

/// Those that every API server has from its start.
pub(super) fn standard() -> Result<Vec<Object>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/crds");
    let mut all: Vec<Object> = ISTIO_KINDS.iter().map(|kind| istio(kind)).collect();
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        all.extend(objects(&std::fs::read_to_string(entry?.path())?));
    }
    Ok(all)
}

fn istio(kind: &str) -> Object {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": any, "status": any}});
    definition(ISTIO, kind, &ISTIO_VERSIONS, "Namespaced", &schema)
}

/// Has the API server serve a kind that it lacks, with whatever its objects hold.
pub(super) async fn permit(api: &mut Api, object: &Object, permitted: &mut Vec<Object>) -> Result<()> {
    let name = name(&object.group, &object.kind);
    let known = permitted.iter().position(|definition| definition.name == name);
    let mut versions = api.versions(&object.group, &object.kind);
    if object.group.is_empty() || (!versions.is_empty() && known.is_none()) {
        bail!("no matches for kind {:?} in version {:?}", object.kind, object.value["apiVersion"]);
    }
    versions.push(object.version.clone());
    let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
    let scope = if object.namespace.is_some() { "Namespaced" } else { "Cluster" };
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = definition(&object.group, &object.kind, &versions, scope, &any);
    install(api, &definition).await.with_context(|| format!("CustomResourceDefinition {name}"))?;
    if let Some(known) = known {
        permitted.remove(known);
    }
    permitted.push(definition);
    Ok(())
}

/// Applies a definition and waits until its kinds are served.
pub(super) async fn install(api: &mut Api, definition: &Object) -> Result<()> {
    let resource = api.resource(definition).context("the API server knows no CustomResourceDefinition")?;
    api.apply(&resource.path(None, &definition.name), &definition.text).await?;
    api.define(&definition.value).await
}

fn definition(group: &str, kind: &str, versions: &[&str], scope: &str, schema: &Value) -> Object {
    let version = |(index, name): (usize, &&str)| {
        json!({
            "name": name, "served": true, "storage": index == 0, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": schema},
        })
    };
    Object::generated(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": name(group, kind),
            // Groups below k8s.io are refused without it.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural(kind), "singular": kind.to_lowercase()},
            "versions": versions.iter().enumerate().map(version).collect::<Vec<_>>(),
        },
    }))
}

fn name(group: &str, kind: &str) -> String {
    format!("{}.{group}", plural(kind))
}

/// The plural that a kind usually has.
fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if kind.ends_with(['s', 'x']) || kind.ends_with("ch") => format!("{kind}es"),
        _ => format!("{kind}s"),
    }
}
