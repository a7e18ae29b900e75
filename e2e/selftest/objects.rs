//! The objects that the runner makes for a case.

use super::trial;
use crate::backends::start;
use crate::case::Case;
use crate::certs::{Authority, identity_of};
use crate::echo::Records;
use crate::manifest::Object;
use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;

pub(super) fn tests(runtime: &Handle) -> Vec<Trial> {
    macro_rules! tests {
        ($($name:ident)*) => {
            vec![$({
                let runtime = runtime.clone();
                trial(concat!("objects::", stringify!($name)), move || runtime.block_on($name()))
            }),*]
        };
    }
    tests![
        services_are_made_unless_they_are_held
        a_service_that_comes_later_is_not_made
        endpoints_follow_the_service
        conditions_and_pods
        a_rollout_drains
        secrets_of_certificates
    ]
}

async fn made(case: &str) -> Result<Vec<Object>> {
    let case = Case::parse(&format!("name: a\n{case}"), Path::new("."))?;
    Ok(start(&case, &Authority::new()?, &Arc::new(Records::default())).await?.1)
}

fn find<'a>(objects: &'a [Object], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object.kind == kind && object.name == name).map(|object| &object.value)
}

const STEP: &str = "steps: [{wait: 1s}]";

async fn services_are_made_unless_they_are_held() -> Result<()> {
    let objects = made(&format!(
        "manifests:\n  - inline: '{{apiVersion: v1, kind: Service, metadata: {{name: held, namespace: n}}, spec: {{ports: [{{port: 80}}]}}}}'\n\
         backends: {{n/held:80: {{}}, n/one:80: {{}}, n/two:80: {{}}, 'n/two:81,name=http': {{}}}}\n{STEP}"
    ))
    .await?;
    ensure!(find(&objects, "Service", "held").is_none());
    let one = find(&objects, "Service", "one").context("Service one")?;
    ensure!(one["spec"]["ports"] == json!([{"port": 80, "targetPort": 80, "protocol": "TCP"}]), "{one}");
    let two = find(&objects, "Service", "two").context("Service two")?;
    ensure!(
        two["spec"]["ports"][0]["name"] == "port-80" && two["spec"]["ports"][1]["name"] == "http",
        "{two}"
    );
    let named = find(&objects, "EndpointSlice", "two-80").context("EndpointSlice two-80")?;
    ensure!(named["ports"][0]["name"] == "port-80", "{named}");
    Ok(())
}

async fn a_service_that_comes_later_is_not_made() -> Result<()> {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: late, namespace: n}, spec: {ports: [{port: 80, name: web, targetPort: 8080}]}}";
    let late =
        |first: &str| format!("backends: {{n/late:80: {{}}}}\nsteps:\n  - {first}\n  - apply: '{service}'");
    let objects = made(&late("request: {}\n    expect: {status: 503}")).await?;
    ensure!(find(&objects, "Service", "late").is_none());
    let slice = find(&objects, "EndpointSlice", "late-80").context("EndpointSlice")?;
    ensure!(slice["ports"][0] == json!({"name": "web", "port": 8080, "protocol": "TCP"}), "{slice}");
    for needed in ["delete: Service/n/late", "request: {}\n    expect: {backend: n/late}"] {
        let objects = made(&late(needed)).await?;
        ensure!(find(&objects, "Service", "late").is_some(), "{needed}");
    }
    Ok(())
}

async fn endpoints_follow_the_service() -> Result<()> {
    let objects = made(&format!(
        "manifests:\n  - inline: |\n      apiVersion: v1\n      kind: Service\n      metadata: {{name: s, namespace: n}}\n      spec:\n        ports:\n          \
         - {{name: numbered, port: 80, targetPort: 9000, appProtocol: kubernetes.io/h2c}}\n          - {{name: named, port: 81, targetPort: web}}\n          - {{name: same, port: 82}}\n\
         backends: {{n/s:80: {{}}, n/s:81: {{}}, n/s:82: {{}}}}\n{STEP}"
    ))
    .await?;
    let port = |name: &str| find(&objects, "EndpointSlice", name).map(|slice| slice["ports"][0].clone());
    let numbered =
        json!({"name": "numbered", "port": 9000, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"});
    ensure!(port("s-80") == Some(numbered), "{:?}", port("s-80"));
    ensure!(
        port("s-81") == Some(json!({"name": "named", "port": 7777, "protocol": "TCP"})),
        "{:?}",
        port("s-81")
    );
    ensure!(
        port("s-82") == Some(json!({"name": "same", "port": 82, "protocol": "TCP"})),
        "{:?}",
        port("s-82")
    );
    Ok(())
}

async fn conditions_and_pods() -> Result<()> {
    let objects = made(&format!(
        "backends: {{n/none:80: {{none: true}}, n/cold:80: {{ready: false}}, n/pods:80: {{replicas: 2, labels: [{{v: a}}, {{v: b}}]}}}}\n{STEP}"
    ))
    .await?;
    let none = find(&objects, "EndpointSlice", "none-80").context("none")?;
    ensure!(none["endpoints"] == json!([]) && find(&objects, "Service", "none").is_some(), "{none}");
    let cold = find(&objects, "EndpointSlice", "cold-80").context("cold")?;
    let conditions = json!({"ready": false, "serving": false, "terminating": false});
    ensure!(cold["endpoints"][0]["conditions"] == conditions, "{cold}");
    ensure!(cold["endpoints"][0]["targetRef"].is_null(), "{cold}");
    let pods = find(&objects, "EndpointSlice", "pods-80").context("pods")?;
    for (index, label) in ["a", "b"].iter().enumerate() {
        let name = pods["endpoints"][index]["targetRef"]["name"].as_str().context("a targetRef")?;
        let pod = find(&objects, "Pod", name).context("its Pod")?;
        ensure!(pod["metadata"]["labels"]["v"] == *label, "{pod}");
        ensure!(pod["status"]["podIP"] == pods["endpoints"][index]["addresses"][0], "{pod}");
    }
    Ok(())
}

async fn a_rollout_drains() -> Result<()> {
    let case =
        Case::parse(&format!("name: a\nbackends: {{n/a:80: {{replicas: 3}}}}\n{STEP}"), Path::new("."))?;
    let (mut all, _) = start(&case, &Authority::new()?, &Arc::new(Records::default())).await?;
    let replicas = all.first_mut().context("replicas")?;
    replicas.terminate_down_to(1);
    let conditions = |objects: &[Object]| -> Vec<Value> {
        let slice = find(objects, "EndpointSlice", "a-80");
        let endpoints = slice.and_then(|slice| slice["endpoints"].as_array());
        endpoints.into_iter().flatten().map(|endpoint| endpoint["conditions"].clone()).collect()
    };
    let ready = json!({"ready": true, "serving": true, "terminating": false});
    let draining = json!({"ready": false, "serving": true, "terminating": true});
    let seen = conditions(&replicas.objects());
    ensure!(seen == [ready.clone(), draining.clone(), draining], "{seen:?}");
    ensure!(replicas.count() == 1 && replicas.withdraw().0.len() == 2);
    let seen = conditions(&replicas.objects());
    ensure!(seen == [ready], "{seen:?}");
    Ok(())
}

async fn secrets_of_certificates() -> Result<()> {
    let case = "name: a\ncerts: {n/a: {dns: [a.example]}, n/b: {ca: true}, n/c: {client: true, cn: c, with_ca: true}}\n";
    let case = Case::parse(&format!("{case}{STEP}"), Path::new("."))?;
    let authority = Authority::new()?;
    let mut secrets = case.certs.iter().map(|(name, cert)| authority.secret(name, cert));
    let mut next = || secrets.next().context("a Secret")?;
    let (server, ca, client) = (next()?, next()?, next()?);
    ensure!(server["type"] == "kubernetes.io/tls" && server["data"]["ca.crt"].is_null(), "{server}");
    ensure!(identity_of(&server)?.0.len() == 1 && identity_of(&client)?.0.len() == 1);
    ensure!(ca["type"] == "Opaque" && ca["data"].as_object().is_some_and(|data| data.len() == 1), "{ca}");
    ensure!(client["data"]["ca.crt"] == ca["data"]["ca.crt"], "{client}");
    Ok(())
}
