//! What an API server is to a case: of the ages that it says, and with nothing of an earlier one.

use super::trial;
use crate::cluster::Kubernetes;
use crate::manifest::objects;
use crate::settings::Settings;
use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;

pub(super) fn tests(settings: &Arc<Settings>, runtime: &Handle) -> Vec<Trial> {
    macro_rules! tests {
        ($($name:ident)*) => {
            vec![$({
                let (settings, runtime) = (settings.clone(), runtime.clone());
                trial(concat!("kubernetes::", stringify!($name)), move || runtime.block_on($name(&settings)))
            }),*]
        };
    }
    tests![
        without_an_api_server
        each_routing_object_is_younger
        many_routing_objects_do_not_wait
        nothing_is_left
    ]
}

/// An API server for a test, and the folder that a case would have.
async fn open(name: &str, settings: &Settings) -> Result<(Kubernetes, PathBuf)> {
    let folder = settings.work.join(format!("runner__kubernetes__{name}"));
    // What a former run left.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    Ok((Kubernetes::open(&folder, settings).await?, folder))
}

async fn without_an_api_server(settings: &Settings) -> Result<()> {
    for kube_assets in [None, Some(PathBuf::from("/nowhere"))] {
        let settings = Settings { kube_assets, ..settings.clone() };
        let opened = open("without_an_api_server", &settings).await;
        let told = opened.err().context("there is one")?.to_string();
        ensure!(told.lines().count() == 1 && told.contains("scripts/install-kube-apiserver"), "{told}");
    }
    Ok(())
}

fn ingress(name: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: ages}}\n\
         spec: {{defaultBackend: {{service: {{name: app, port: {{number: 80}}}}}}}}\n"
    )
}

async fn creation_times(names: &[String], settings: &Settings, test: &str) -> Result<Vec<String>> {
    let (mut cluster, folder) = open(test, settings).await?;
    let manifests: Vec<String> = names.iter().map(|name| ingress(name)).collect();
    cluster.apply(&objects(&manifests.join("---\n"))).await?;
    let mut times = Vec::new();
    for name in names {
        let object =
            cluster.read(&format!("Ingress/ages/{name}").parse().map_err(anyhow::Error::msg)?).await?;
        let created = object.as_ref().and_then(|object| object.pointer("/metadata/creationTimestamp"));
        times.push(created.and_then(Value::as_str).context("a creationTimestamp")?.to_owned());
    }
    cluster.close().await?;
    std::fs::remove_dir_all(folder)?;
    Ok(times)
}

async fn each_routing_object_is_younger(settings: &Settings) -> Result<()> {
    let names = ["c", "a", "b"].map(str::to_owned);
    let times = creation_times(&names, settings, "each_routing_object_is_younger").await?;
    ensure!(times.is_sorted_by(|one, next| one < next), "{times:?}");
    Ok(())
}

async fn many_routing_objects_do_not_wait(settings: &Settings) -> Result<()> {
    let names: Vec<String> = (0..21).map(|number| format!("i{number}")).collect();
    let times = creation_times(&names, settings, "many_routing_objects_do_not_wait").await?;
    ensure!(times.iter().collect::<BTreeSet<_>>().len() < times.len(), "{times:?}");
    Ok(())
}

/// One object for each way in which something could stay.
const LASTING: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: named}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: held, namespace: unnamed, finalizers: [example.com/nobody]}
---
apiVersion: v1
kind: Secret
metadata: {name: held, namespace: default}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lasts.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {kind: Last, plural: lasts}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
---
apiVersion: example.com/v1
kind: Last
metadata: {name: held, finalizers: [example.com/nobody]}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: held, namespace: unnamed}
";

async fn nothing_is_left(settings: &Settings) -> Result<()> {
    let (mut cluster, folder) = open("nothing_is_left", settings).await?;
    let all = objects(LASTING);
    cluster.apply(&all).await?;
    let references =
        ["Namespace/named", "Namespace/unnamed", "ConfigMap/unnamed/held", "Secret/default/held"]
            .into_iter()
            .chain(["CustomResourceDefinition/lasts.example.com", "Lease/unnamed/held"]);
    let references = references.map(|text| text.parse().map_err(anyhow::Error::msg));
    let references = references.collect::<Result<Vec<_>>>()?;
    for reference in &references {
        ensure!(cluster.read(reference).await?.is_some(), "{reference} was not made");
    }
    cluster.clear().await?;
    for reference in &references {
        ensure!(cluster.read(reference).await?.is_none(), "{reference} is left");
    }
    cluster.close().await?;
    Ok(std::fs::remove_dir_all(folder)?)
}
