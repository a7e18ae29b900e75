//! A Kubernetes API server on this machine, with a folder of manifests applied: what `make cluster` runs Chancery against.
//!
//! `cluster --assets DIR --work DIR --port PORT --models IP MANIFESTS` starts etcd and kube-apiserver (of `--assets`) on
//! loopback, PORT and the two after it, and writes `kubeconfig` and its logs into `--work`. There is no controller and no
//! kubelet. An API server refuses EndpointSlices with loopback addresses, so an endpoint `127.0.0.N:P` is moved to
//! `IP:P+N`. It stays until a signal ends it.

#![allow(dead_code, reason = "the behaviour cases use the rest of these modules")]

#[path = "../e2e/cluster/api.rs"]
mod api;
#[path = "../e2e/cluster/api_server.rs"]
mod api_server;
#[path = "../e2e/cluster/definitions.rs"]
mod definitions;
#[path = "../e2e/manifest.rs"]
mod manifest;
#[path = "../e2e/process.rs"]
mod process;
#[path = "../e2e/yaml.rs"]
mod yaml;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use api_server::ApiServer;
use clap::Parser;
use manifest::{Object, objects};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    assets: PathBuf,
    #[arg(long)]
    work: PathBuf,
    #[arg(long)]
    port: u16,
    #[arg(long)]
    models: Ipv4Addr,
    manifests: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let ended = tokio::select! {
        ended = serve(&args) => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    process::kill_all();
    ended
}

async fn serve(args: &Args) -> Result<()> {
    let mut server = ApiServer::start(&args.assets, &args.work, args.port).await?;
    for object in manifests(&args.manifests)? {
        let object = moved(object, args.models)?;
        let named = || format!("{} {}", object.kind, object.name);
        if let Some(namespace) = &object.namespace {
            server.make_namespace(namespace).await.with_context(named)?;
        }
        let path = server.locate(&object).await.with_context(named)?;
        server.apply(&path, &object).await.with_context(named)?;
    }
    println!("{} is applied", args.manifests.display());
    loop {
        if let Some(end) = server.unexpected_end() {
            bail!("{end}");
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

fn manifests(folder: &Path) -> Result<Vec<Object>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json"));
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        all.extend(objects(&text));
    }
    Ok(all)
}

/// The object with its loopback endpoints moved to an address that an API server takes.
fn moved(object: Object, to: Ipv4Addr) -> Result<Object> {
    let first = object.value.pointer("/endpoints/0/addresses/0").and_then(Value::as_str);
    let address = first.and_then(|text| text.parse::<Ipv4Addr>().ok()).filter(Ipv4Addr::is_loopback);
    let Some(address) = address.filter(|_| object.kind == "EndpointSlice") else { return Ok(object) };
    let mut value = object.value;
    if value["endpoints"].as_array().is_some_and(|all| all.len() > 1) {
        bail!("EndpointSlice {}: one loopback endpoint can be moved, not several", object.name);
    }
    value["endpoints"][0]["addresses"] = json!([to.to_string()]);
    for port in value["ports"].as_array_mut().into_iter().flatten() {
        port["port"] = json!(port["port"].as_u64().unwrap_or_default() + u64::from(address.octets()[3]));
    }
    Ok(Object::generated(value))
}
