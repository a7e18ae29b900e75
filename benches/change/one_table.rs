//! The layout that Chancery does not have: one RouteConfiguration for all hosts, on one listener with plain RDS.
//!
//! It is made of the same snapshots, by the same compiler, and sent by the same xDS server, so that nothing but the
//! layout differs. It is as cheap as it can be: an edit decodes and encodes the one host that changed, all the others
//! are copied as bytes. Scopes, the filters that find them, certificates and https are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use chancery::compile::Compiler;
use chancery::descriptors;
use chancery::source::files;
use chancery::store::Change;
use chancery::translate::names;
use chancery::xds::{self, Resource, Snapshot, TypeUrl, Update, Version};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use prost::Message as _;
use prost::bytes::BufMut as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::bare::{self, Listen};

/// The one RouteConfiguration.
const TABLE: &str = "all";
/// The filters that find scopes.
const SCOPE_FILTERS: [&str; 3] = ["scope", "envoy.filters.http.on_demand", names::FALLBACK];

/// Serves until killed.
pub(crate) fn serve(folder: PathBuf, listen: &Listen) -> anyhow::Result<()> {
    bare::serve(listen, |sender| async move { Ok(files::follow(folder, sender).await?) }, compile)
}

/// As the control plane does: at once when idle, together what came meanwhile.
async fn compile(
    mut compiler: Compiler,
    mut batches: mpsc::Receiver<Vec<Change>>,
    snapshots: xds::snapshot::Sender,
) -> anyhow::Result<()> {
    let mut table = Table::default();
    while let Some(mut changes) = batches.recv().await {
        while let Ok(more) = batches.try_recv() {
            changes.extend(more);
        }
        let published = compiler.apply(changes);
        if published.ready {
            let merged = table.follow(&published.snapshot)?;
            snapshots.send_replace(Some(merged));
        }
    }
    Ok(())
}

/// Snapshots with one RouteConfiguration.
#[derive(Default)]
struct Table {
    /// The snapshot of the usual layout that this is made of.
    seen: Arc<Snapshot>,
    merged: Snapshot,
    /// Each host's `VirtualHost`, encoded.
    hosts: BTreeMap<Arc<str>, EncodedHost>,
    versions: u64,
}

impl Table {
    fn follow(&mut self, snapshot: &Arc<Snapshot>) -> anyhow::Result<Arc<Snapshot>> {
        // No log remembers a first build.
        let changes: Vec<_> = if self.hosts.is_empty() {
            let all = TypeUrl::ALL.iter().flat_map(|type_url| snapshot.iter(*type_url));
            all.map(|resource| (resource.type_url(), resource.name())).collect()
        } else {
            let changes = snapshot.changes_since(self.seen.sequence()).context("too many changes at once")?;
            changes.map(|(_, type_url, name)| (type_url, name)).collect()
        };
        let mut update = Update::default();
        let mut rerouted = false;
        for (type_url, name) in changes {
            let resource = snapshot.get(type_url, name);
            match (type_url, resource) {
                (TypeUrl::RouteConfiguration, resource) => {
                    rerouted = true;
                    match resource {
                        Some(resource) => drop(self.hosts.insert(name.clone(), virtual_host(resource)?)),
                        None => drop(self.hosts.remove(name)),
                    }
                }
                (TypeUrl::Listener, Some(listener)) if &**name == names::HTTP => {
                    update.set.push(Arc::new(plain_listener(listener)?));
                }
                (TypeUrl::Cluster | TypeUrl::ClusterLoadAssignment, Some(resource)) => {
                    update.set.push(resource.clone());
                }
                (TypeUrl::Cluster | TypeUrl::ClusterLoadAssignment, None) => {
                    update.remove.push((type_url, name.clone()));
                }
                _ => {}
            }
        }
        if rerouted {
            self.versions += 1;
            update.set.push(Arc::new(self.route_configuration()));
        }
        self.seen = snapshot.clone();
        self.merged = self.merged.apply(update);
        Ok(Arc::new(self.merged.clone()))
    }

    fn route_configuration(&self) -> Resource {
        let head = RouteConfiguration {
            name: TABLE.to_owned(),
            request_headers_to_remove: vec![
                names::LISTENER_HEADER.to_owned(),
                names::SCOPE_HEADER.to_owned(),
            ],
            ..RouteConfiguration::default()
        };
        let mut body = head.encode_to_vec();
        let mut clusters = BTreeSet::new();
        for (host, requires) in self.hosts.values() {
            encode_key(2, WireType::LengthDelimited, &mut body);
            encode_varint(host.len() as u64, &mut body);
            body.put_slice(host);
            clusters.extend(requires.iter().cloned());
        }
        Resource::from_bytes(TypeUrl::RouteConfiguration, TABLE, Version(self.versions), &body)
            .requiring(clusters)
    }
}

/// An encoded virtual host, and the clusters that it refers to.
type EncodedHost = (Vec<u8>, Box<[Arc<str>]>);

/// The virtual host of a host's own RouteConfiguration, found by its name instead of by scope.
fn virtual_host(resource: &Resource) -> anyhow::Result<EncodedHost> {
    let routes = RouteConfiguration::decode(resource.body())?;
    let mut host = routes.virtual_hosts.into_iter().next().context("a RouteConfiguration without a host")?;
    host.domains = vec![resource.name().to_string()];
    Ok((host.encode_to_vec(), resource.requires().into()))
}

/// The http listener with plain RDS, without what finds scopes.
fn plain_listener(listener: &Resource) -> anyhow::Result<Resource> {
    let mut json = descriptors::to_json(TypeUrl::Listener.as_str(), listener.body())?;
    let manager = &mut json["filter_chains"][0]["filters"][0]["typed_config"];
    let fields = manager.as_object_mut().context("no connection manager")?;
    fields.remove("scoped_routes");
    fields.remove("upgrade_configs");
    fields.insert(
        "rds".to_owned(),
        json!({"route_config_name": TABLE, "config_source": {"ads": {}, "resource_api_version": "V3"}}),
    );
    let filters = fields.get_mut("http_filters").and_then(Value::as_array_mut).context("no filters")?;
    filters.retain(|filter| filter["name"].as_str().is_none_or(|name| !SCOPE_FILTERS.contains(&name)));
    let body = descriptors::from_json(TypeUrl::Listener.as_str(), &json)?;
    Ok(Resource::from_bytes(TypeUrl::Listener, names::HTTP, Version(1), &body))
}
