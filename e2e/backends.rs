//! The backends of a case: echo servers, and the Services, EndpointSlices and Pods that publish them.

use crate::case::step::{Action, Expect};
use crate::case::values::{BackendKey, ServiceName};
use crate::case::{Backend, Case, Protocol};
use crate::certs::Authority;
use crate::echo::{EchoServer, Records, Shared};
use crate::manifest::{Object, objects};
use anyhow::{Context as _, Result};
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The port of an echo server whose Service names its target port instead of numbering it.
const CHOSEN_PORT: u16 = 7777;

/// The echo servers of one backend key.
pub(crate) struct Replicas {
    pub(crate) key: BackendKey,
    shared: Arc<Shared>,
    port_name: String,
    target_port: u16,
    app_protocol: Option<String>,
    running: Vec<Replica>,
    /// Counts up, so that a new replica is a new Pod.
    next: usize,
}

/// One echo server and its Pod.
pub(crate) struct Replica {
    server: EchoServer,
    number: usize,
    terminating: bool,
}

/// Starts the echo servers of a case and makes the objects for them, Services first.
pub(crate) async fn start(
    case: &Case,
    authority: &Authority,
    records: &Arc<Records>,
) -> Result<(Vec<Replicas>, Vec<Object>)> {
    let held: Vec<Object> = case.manifests.iter().flat_map(|text| objects(text)).collect();
    let later: Vec<Object> = applied_later(case).into_iter().flat_map(|(_, objects)| objects).collect();
    let mut made = services(case, &held);
    let mut all = Vec::new();
    for (key, options) in &case.backends {
        let ServiceName { namespace, name } = &key.service;
        let mut known = made.iter().chain(&held).chain(&later);
        let service =
            known.find(|object| object.is_service(namespace, name)).map(|object| object.value.clone());
        let mut replicas = Replicas::new(key, options, &service.unwrap_or_default(), authority, records)?;
        let count = if options.none { 0 } else { options.replicas as usize };
        for _ in 0..count {
            replicas.add().await?;
        }
        all.push(replicas);
    }
    made.extend(all.iter().flat_map(Replicas::objects));
    Ok((all, made))
}

/// The Services that the runner makes: those that the manifests do not hold.
fn services(case: &Case, held: &[Object]) -> Vec<Object> {
    let mut ports: BTreeMap<&ServiceName, Vec<&BackendKey>> = BTreeMap::new();
    for key in case.backends.keys() {
        ports.entry(&key.service).or_default().push(key);
    }
    let missing = ports.into_iter().filter(|(name, _)| {
        !held.iter().any(|object| object.is_service(&name.namespace, &name.name)) && !comes_later(case, name)
    });
    missing.map(|(name, keys)| service(name, &keys)).collect()
}

fn service(name: &ServiceName, keys: &[&BackendKey]) -> Object {
    let port = |key: &&BackendKey| {
        let mut port = json!({"port": key.port, "targetPort": key.port, "protocol": "TCP"});
        // Several ports need names.
        let fallback = || (keys.len() > 1).then(|| format!("port-{}", key.port));
        if let Some(name) = key.port_name.clone().or_else(fallback) {
            port["name"] = json!(name);
        }
        port
    };
    Object::generated(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": name.namespace, "name": name.name},
        "spec": {"ports": keys.iter().map(port).collect::<Vec<_>>()},
    }))
}

/// Whether a later step brings the Service itself: an apply step holds it, and no step before that one deletes it or
/// expects an answer of it.
fn comes_later(case: &Case, name: &ServiceName) -> bool {
    let brings =
        |objects: &[Object]| objects.iter().any(|object| object.is_service(&name.namespace, &name.name));
    let Some((index, _)) = applied_later(case).into_iter().find(|(_, objects)| brings(objects)) else {
        return false;
    };
    !case.steps[..index].iter().any(|step| {
        let deletes = match &step.action {
            Action::Delete(object) => {
                object.kind == "Service"
                    && object.namespace.as_ref() == Some(&name.namespace)
                    && object.name == name.name
            }
            _ => false,
        };
        let expects = step.expect.iter().chain(step.during.as_ref().map(|during| &during.expect));
        deletes || expects.into_iter().any(|expect| needs(expect, name))
    })
}

fn needs(expect: &Expect, name: &ServiceName) -> bool {
    let share = |shares: &Option<BTreeMap<ServiceName, f64>>| {
        shares.as_ref().and_then(|shares| shares.get(name)).is_some_and(|share| *share > 0.0)
    };
    expect.backend.as_ref().is_some_and(|backends| backends.0.contains(name))
        || share(&expect.share)
        || share(&expect.mirrored)
}

/// What the apply steps hold, with the steps' indexes.
fn applied_later(case: &Case) -> Vec<(usize, Vec<Object>)> {
    let applied = |(index, step): (usize, &crate::case::step::Step)| match &step.action {
        Action::Apply(text) => Some((index, objects(text))),
        _ => None,
    };
    case.steps.iter().enumerate().filter_map(applied).collect()
}

impl Replicas {
    fn new(
        key: &BackendKey,
        options: &Backend,
        service: &Value,
        authority: &Authority,
        records: &Arc<Records>,
    ) -> Result<Replicas> {
        let ports = service.pointer("/spec/ports").and_then(Value::as_array);
        let port = ports.into_iter().flatten().find(|port| port["port"].as_u64() == Some(key.port.into()));
        let text = |field: &str| port.and_then(|port| port[field].as_str()).map(str::to_owned);
        let target = port.map_or(&Value::Null, |port| &port["targetPort"]);
        let tls = match options.protocol {
            Protocol::Https => Some(Arc::new(server_tls(key, authority)?)),
            _ => None,
        };
        Ok(Replicas {
            key: key.clone(),
            shared: Arc::new(Shared {
                key: key.clone(),
                options: options.clone(),
                records: records.clone(),
                requests: Default::default(),
                tls,
            }),
            port_name: text("name").or_else(|| key.port_name.clone()).unwrap_or_default(),
            target_port: match target {
                Value::Number(number) => {
                    number.as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(key.port)
                }
                Value::String(text) => text.parse().unwrap_or(CHOSEN_PORT),
                _ => key.port,
            },
            app_protocol: text("appProtocol"),
            running: Vec::new(),
            next: 0,
        })
    }

    /// How many replicas run, those that terminate not counted.
    pub(crate) fn count(&self) -> usize {
        self.running.iter().filter(|replica| !replica.terminating).count()
    }

    /// Starts one more echo server; it listens when this returns.
    pub(crate) async fn add(&mut self) -> Result<()> {
        let server = EchoServer::start(self.shared.clone(), self.target_port)
            .await
            .with_context(|| format!("echo server of {}", self.key))?;
        self.running.push(Replica { server, number: self.next, terminating: false });
        self.next += 1;
        Ok(())
    }

    /// Marks the youngest replicas as terminating until `count` others are left.
    pub(crate) fn terminate_down_to(&mut self, count: usize) {
        self.running
            .iter_mut()
            .filter(|replica| !replica.terminating)
            .skip(count)
            .for_each(|r| r.terminating = true);
    }

    /// Takes the terminating replicas out, and their Pods' objects with them.
    pub(crate) fn withdraw(&mut self) -> (Vec<Replica>, Vec<Object>) {
        let (gone, left) =
            std::mem::take(&mut self.running).into_iter().partition(|replica| replica.terminating);
        self.running = left;
        let gone: Vec<Replica> = gone;
        let pods = gone.iter().filter_map(|replica| self.pod(replica)).collect();
        (gone, pods)
    }

    /// The Pods, then the EndpointSlice.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<Object> = self.running.iter().filter_map(|replica| self.pod(replica)).collect();
        objects.push(self.slice());
        objects
    }

    /// The EndpointSlice, as the endpoints are now.
    fn slice(&self) -> Object {
        let ServiceName { namespace, name } = &self.key.service;
        let mut port = json!({"name": self.port_name, "port": self.target_port, "protocol": "TCP"});
        if let Some(app_protocol) = &self.app_protocol {
            port["appProtocol"] = json!(app_protocol);
        }
        Object::generated(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": namespace,
                "name": format!("{name}-{}", self.key.port),
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [port],
            "endpoints": self.running.iter().map(|replica| self.endpoint(replica)).collect::<Vec<_>>(),
        }))
    }

    fn endpoint(&self, replica: &Replica) -> Value {
        let ready = self.shared.options.ready;
        let mut endpoint = json!({
            "addresses": [replica.server.address.ip().to_string()],
            "conditions": match replica.terminating {
                true => json!({"ready": false, "serving": ready, "terminating": true}),
                false => json!({"ready": ready, "serving": ready, "terminating": false}),
            },
        });
        if self.shared.options.labels.is_some() {
            endpoint["targetRef"] = json!({"kind": "Pod", "namespace": self.key.service.namespace, "name": self.pod_name(replica)});
        }
        endpoint
    }

    fn pod_name(&self, replica: &Replica) -> String {
        format!("{}-{}-{}", self.key.service.name, self.key.port, replica.number)
    }

    /// The replica's Pod, if the case gives labels for one.
    fn pod(&self, replica: &Replica) -> Option<Object> {
        let maps = &self.shared.options.labels.as_ref()?.0;
        let labels = maps.get(replica.number % maps.len().max(1));
        Some(Object::generated(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": self.key.service.namespace,
                "name": self.pod_name(replica),
                "labels": labels,
            },
            "spec": {"containers": [{"name": "echo", "image": "echo"}]},
            "status": {"phase": "Running", "podIP": replica.server.address.ip().to_string()},
        })))
    }
}

impl Replica {
    /// Finishes what is in flight and closes, in the background.
    pub(crate) fn finish(self) {
        self.server.finish();
    }
}

/// A certificate for every name that a client may know the Service by.
fn server_tls(key: &BackendKey, authority: &Authority) -> Result<ServerConfig> {
    let ServiceName { namespace, name } = &key.service;
    let short = format!("{name}.{namespace}");
    let names = vec![
        format!("{short}.svc.cluster.local"),
        format!("{short}.svc"),
        short,
        name.clone(),
        "localhost".to_owned(),
    ];
    let (chain, private_key) = authority.server(names)?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private_key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
