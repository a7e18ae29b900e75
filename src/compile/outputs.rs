//! How each output is run.

use std::sync::Arc;

use super::compiled::HostRun;
use super::{Compiler, Output, Subject};
use crate::features::unsupported;
use crate::model::{EndpointSetKey, SecretRef};
use crate::parallel;
use crate::resolve;
use crate::store::View;
use crate::translate;
use crate::values::{Findings, HostName, Kind, ObjectKey};

impl Compiler {
    /// Runs hosts; what they newly refer to becomes dirty. What is pure of it is done on all cores, while what came of
    /// the hosts before is taken in.
    pub(super) fn run_hosts(&mut self, names: &[HostName]) {
        let Self { settings, store, compiled, .. } = self;
        let before = compiled.published.hosts.clone();
        parallel::map_then(
            names,
            |_, name| HostRun::new(store, settings, name, before.get(name)),
            |name, run| compiled.take_host(name, run),
        );
    }

    /// The certificate for names without one of their own: the configured Secret's, else the generated one.
    pub(super) fn run_default_certificate(&mut self) {
        let view = View::new(&self.store);
        let configured = self.settings.default_ssl_certificate.as_ref().map(|(namespace, name)| {
            let secret = SecretRef { namespace: namespace.as_str().into(), name: name.as_str().into() };
            resolve::default_certificate(&view, &secret)
        });
        let reads = view.into_reads();
        self.compiled.dependencies.record(&Output::DefaultCertificate, reads);
        let (certificate, findings) = configured.unwrap_or_default();
        self.compiled.ledger.set("default certificate", findings.into_vec());
        let name = translate::names::DEFAULT_SECRET;
        let secret = match certificate {
            Some(certificate) => translate::secret::secret(name, &certificate.certificate),
            None => translate::secret::generated(name, &self.default_certificate),
        };
        self.compiled.update.set.push(Arc::new(secret));
    }

    /// Runs what is said of an object as a whole.
    pub(super) fn run_object(&mut self, key: &ObjectKey) {
        let view = View::new(&self.store);
        let (ours, findings) = resolve::object(&view, &self.settings, key);
        let reads = view.into_reads();
        self.compiled.ledger.set(&format!("whole {key}"), findings.into_vec());
        if let Some(stored) = self.store.get(key) {
            let subject = Subject { stored: stored.clone(), ours };
            self.compiled.published.subjects.insert(key.clone(), subject);
            self.compiled.dependencies.record(&Output::Object(key.clone()), reads);
        } else {
            self.compiled.published.subjects.remove(key);
            self.compiled.dependencies.forget(&Output::Object(key.clone()));
        }
    }

    /// The ConfigMap's values are read by the hosts; what no host asks for is said here.
    pub(super) fn run_config_map(&mut self) {
        let (namespace, name) = &self.settings.config_map;
        let view = View::new(&self.store);
        let mut findings = Findings::default();
        if let Some(config_map) = view.config_map(namespace, name) {
            let key = ObjectKey::new(Kind::ConfigMap, namespace.as_str(), name.as_str());
            let ipv6 = self.settings.envoy_address.is_ipv6();
            unsupported::check_config_map(&key, config_map.data.as_ref(), ipv6, &mut findings);
        }
        let reads = view.into_reads();
        self.compiled.dependencies.record(&Output::ConfigMap, reads);
        self.compiled.ledger.set("config map", findings.into_vec());
    }

    /// Runs an endpoint set, and tells it to each of its clusters.
    pub(super) fn run_endpoints(&mut self, key: &EndpointSetKey) {
        let Some(clusters) = self.compiled.references.clusters.get(key) else { return };
        let view = View::new(&self.store);
        let (set, findings) = resolve::endpoint_set(&view, key);
        self.compiled.dependencies.record(&Output::Endpoints(key.clone()), view.into_reads());
        self.compiled.ledger.set(&format!("endpoints {key}"), findings.into_vec());
        let assignments =
            clusters.iter().map(|name| translate::endpoint::cluster_load_assignment(name, &set));
        self.compiled.update.set.extend(assignments.map(Arc::new));
    }
}
