//! Store to model to resources, only where something changed.
//!
//! Two cached layers. The first is made of pure functions of the store: hosts with their certificates, endpoint sets. What each
//! read through its [`View`](crate::store::View) in its last run is what makes it dirty. The second turns their values into resources. An
//! equal value dirties nothing below it, so the cost of a change is that of what it changes.
//!
//! Endpoint sets, clusters and limits exist while a host refers to them, counted by old list against new.

mod compiled;
mod dependencies;
mod findings;
mod hosts;
mod outputs;
mod references;
mod rejections;
mod subjects;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::descriptors;
use crate::model::limit::LimitSet;
use crate::model::{Certificate, EndpointSetKey, Host};
use crate::settings::Settings;
use crate::store::{Change, Read, Store};
use crate::translate;
use crate::values::{Finding, HostName, ObjectKey};
use crate::xds::{Resource, Snapshot, TypeUrl, Update};

use compiled::Compiled;
use hosts::Hosts;

pub use subjects::Subject;

/// Something of the first layer: made of the store alone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Output {
    /// Everything that is routed on a host. First: what hosts refer to decides which others there are.
    Host(HostName),
    /// The endpoints of a Service port.
    Endpoints(EndpointSetKey),
    /// The certificate for names that have none of their own.
    DefaultCertificate,
    /// What is said of a routing object or policy as a whole, whatever host it is for.
    Object(ObjectKey),
    /// What is said of the ConfigMap with ingress-nginx's global settings.
    ConfigMap,
}

/// What readers see: immutable, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// What Envoys are sent.
    pub snapshot: Arc<Snapshot>,
    /// The model behind it, by host.
    pub hosts: imbl::OrdMap<HostName, Arc<Host>>,
    /// Everything there is to say, by object.
    pub findings: imbl::OrdMap<ObjectKey, Arc<[Finding]>>,
    /// Every routing object and policy, and whatever else there is something to say of.
    pub subjects: imbl::OrdMap<ObjectKey, Subject>,
    /// The limits that routes refer to.
    pub limits: LimitSet,
    /// Whether every source has been read in full, so that the snapshot is whole.
    pub ready: bool,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// It was created or changed.
    Applied,
    /// It is gone.
    Deleted,
}

/// The one writer: takes changes, keeps everything that follows from them up to date.
#[derive(Debug)]
pub struct Compiler {
    settings: Settings,
    store: Store,
    compiled: Compiled,
    default_certificate: Certificate,
    /// Whether the snapshot is still that of an earlier process.
    resumed: bool,
    /// The limits that are sent as envoyproxy/ratelimit has them, if they are.
    exported: Option<LimitSet>,
    /// What the last changes did to objects.
    events: Vec<(ObjectKey, Event)>,
}

impl Compiler {
    /// A compiler that has seen nothing. `default_certificate` is served where no other is configured.
    ///
    /// # Errors
    /// When the listeners cannot be made of these settings.
    pub fn new(settings: Settings, default_certificate: Certificate) -> Result<Self, descriptors::Error> {
        let listeners = translate::listener::listeners(&settings)?.into_iter().map(Arc::new).collect();
        Ok(Self::with_listeners(settings, default_certificate, listeners))
    }

    /// The same with the listeners that these settings make, which are dear to make.
    fn with_listeners(
        settings: Settings,
        default_certificate: Certificate,
        listeners: Vec<Arc<Resource>>,
    ) -> Self {
        let mut update = Update { set: listeners, ..Update::default() };
        update.set.push(Arc::new(translate::fallback::extension_config(false, &BTreeSet::new())));
        if let Some(service) = &settings.ratelimit {
            let cluster = translate::cluster::rate_limit(service);
            update.set.push(Arc::new(cluster));
        }
        let hosts = Hosts::new(settings.on_demand_threshold);
        let mut compiler = Self {
            store: Store::new(&settings.cluster_domain),
            settings,
            compiled: Compiled { hosts, update, ..Compiled::default() },
            default_certificate,
            resumed: false,
            exported: None,
            events: Vec::new(),
        };
        compiler.run_default_certificate();
        compiler.run_config_map();
        compiler
    }

    /// Goes on from a snapshot of an earlier process: what the sources bear out is no change, the rest goes when they
    /// have been read.
    pub fn resume(&mut self, snapshot: Arc<Snapshot>) {
        self.compiled.published.snapshot = snapshot;
        self.resumed = true;
    }

    /// What an earlier process knew of and the sources do not.
    fn forget_resumed(&mut self) {
        if !std::mem::take(&mut self.resumed) {
            return;
        }
        let set: BTreeSet<_> = self
            .compiled
            .update
            .set
            .iter()
            .map(|resource| (resource.type_url(), resource.name().clone()))
            .collect();
        let kept = TypeUrl::ALL.iter().flat_map(|type_url| self.compiled.published.snapshot.iter(*type_url));
        let keys = kept.map(|resource| (resource.type_url(), resource.name().clone()));
        self.compiled.update.remove.extend(keys.filter(|key| !set.contains(key)));
    }

    /// Takes changes in, and brings everything up to date that follows from them.
    pub fn apply(&mut self, changes: Vec<Change>) -> &Published {
        self.take(changes);
        self.settle()
    }

    /// Takes changes in; what follows from them is [`due`](Self::due).
    pub fn take(&mut self, changes: Vec<Change>) {
        self.events.clear();
        for change in changes {
            self.store_change(change);
        }
    }

    /// How much is to be computed, as far as can be told before.
    pub fn due(&self) -> usize {
        self.compiled.dirty.len()
    }

    /// Brings everything up to date. Until every source has been read in full nothing is computed, since most of it would
    /// be computed again.
    pub fn settle(&mut self) -> &Published {
        if self.compiled.published.ready {
            self.run();
            self.export_limits();
            self.forget_resumed();
            let update = std::mem::take(&mut self.compiled.update);
            self.compiled.published.snapshot = Arc::new(self.compiled.published.snapshot.apply(update));
        }
        self.publish_findings();
        &self.compiled.published
    }

    /// There, a domain is one resource: whoever asks for it pays for all limits with each change.
    fn export_limits(&mut self) {
        let limits = &self.compiled.published.limits;
        let is_sent = self.exported.as_ref().is_some_and(|sent| sent.is_same(limits));
        if self.settings.ratelimit_config && !is_sent {
            let resource = translate::rate_limit_config::rate_limit_config(limits);
            self.compiled.update.set.push(Arc::new(resource));
            self.exported = Some(limits.clone());
        }
    }

    /// What the last [`take`](Self::take) did to objects. A listing says all again that there is; only what is different
    /// from before has happened.
    pub fn take_events(&mut self) -> Vec<(ObjectKey, Event)> {
        std::mem::take(&mut self.events)
    }

    /// What readers see now.
    pub fn published(&self) -> &Published {
        &self.compiled.published
    }

    fn store_change(&mut self, change: Change) {
        match change {
            Change::Applied(applied) => {
                let key = applied.key.clone();
                let findings = applied.findings.clone();
                let touched = self.store.apply(applied);
                if touched.is_empty() {
                    return;
                }
                self.compiled.ledger.set(&format!("object {key}"), findings);
                if subjects::is_always(key.kind) {
                    self.compiled.dirty.insert(Output::Object(key.clone()));
                }
                self.touch(&touched);
                self.events.push((key, Event::Applied));
            }
            Change::Deleted(key) => self.delete(&key),
            Change::Listed(kind, keys) => {
                for key in self.store.missing_from(kind, &keys) {
                    self.delete(&key);
                }
            }
            Change::Findings { place, findings } => {
                self.compiled.ledger.set(&format!("place {place}"), findings)
            }
            Change::Ready => self.compiled.published.ready = true,
        }
    }

    fn delete(&mut self, key: &ObjectKey) {
        self.compiled.ledger.set(&format!("object {key}"), Vec::new());
        let touched = self.store.delete(key);
        if !touched.is_empty() {
            self.touch(&touched);
            self.events.push((key.clone(), Event::Deleted));
        }
    }

    /// What read something of this is dirty. A host that somebody names for the first time has no reader yet.
    fn touch(&mut self, touched: &[Read]) {
        for read in touched {
            if let Read::Routing(host) = read {
                self.compiled.dirty.insert(Output::Host(host.clone()));
            }
            self.compiled.dirty.extend(self.compiled.dependencies.readers(read));
        }
    }

    /// Hosts first: they decide which endpoint sets there are.
    fn run(&mut self) {
        let mut hosts = Vec::new();
        while let Some(Output::Host(name)) = self.compiled.dirty.first() {
            hosts.push(name.clone());
            self.compiled.dirty.pop_first();
        }
        self.run_hosts(&hosts);
        while let Some(output) = self.compiled.dirty.pop_first() {
            match &output {
                Output::Host(name) => self.run_hosts(std::slice::from_ref(name)),
                Output::Endpoints(key) => self.run_endpoints(key),
                Output::DefaultCertificate => self.run_default_certificate(),
                Output::ConfigMap => self.run_config_map(),
                Output::Object(key) => self.run_object(key),
            }
        }
        let rescoped = Vec::from_iter(self.compiled.hosts.take_rescoped());
        self.compiled.scope(&rescoped);
        if self.compiled.hosts.take_wildcards_changed() {
            self.compiled.set_fallback();
        }
    }
}
