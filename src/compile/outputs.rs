//! How each output is run, and what becomes of its value.

use std::sync::Arc;

use super::{Compiler, Output, Subject};
use crate::features::unsupported;
use crate::model::{Backend, EndpointSetKey, Endpoints, Host, SecretRef};
use crate::parallel;
use crate::resolve::{self, Resolved};
use crate::store::{Read, View};
use crate::translate;
use crate::values::certificate::Checked;
use crate::values::{Findings, HostName, Kind, ObjectKey};
use crate::xds::{Resource, TypeUrl};

/// How many hosts are run before what they came to is taken in.
const HOSTS_AT_ONCE: usize = 256;

/// What a host came to, from the store and its last form alone.
struct HostRun {
    resolved: Resolved,
    reads: Vec<Read>,
    /// The host as it was.
    old: Option<Arc<Host>>,
    /// Its route configurations; none if the host is as it was, or is gone.
    routes: Option<Vec<Arc<Resource>>>,
}

impl HostRun {
    fn new(compiler: &Compiler, name: &HostName) -> Self {
        let view = View::new(&compiler.store);
        let resolved = resolve::host(&view, &compiler.settings, name);
        let old = compiler.published.hosts.get(name).cloned();
        let changed = resolved.host.as_ref().filter(|host| old.as_deref() != Some(host));
        let routes = changed.map(translate::route::route_configurations);
        let routes = routes.map(|routes| routes.into_iter().map(Arc::new).collect());
        Self { reads: view.into_reads(), resolved, old, routes }
    }
}

impl Compiler {
    /// Runs hosts; what they newly refer to becomes dirty. What is pure of it is done on all cores.
    pub(super) fn run_hosts(&mut self, names: &[HostName]) {
        // In parts, so that never more is held than a part before equal pieces of it are shared.
        for part in names.chunks(HOSTS_AT_ONCE) {
            let runs = parallel::map(part, |_, name| HostRun::new(self, name));
            for (name, run) in part.iter().zip(runs) {
                self.take_host(name, run);
            }
        }
    }

    fn take_host(&mut self, name: &HostName, run: HostRun) {
        let HostRun { resolved, reads, old, routes } = run;
        let output = Output::Host(name.clone());
        self.ledger.set(&format!("host {name}"), resolved.findings.into_vec());
        let Some(mut host) = resolved.host else {
            // A host that nobody serves still has readers' dependencies, such as the class that could make it ours.
            if self.store.names_host(name) {
                self.dependencies.record(&output, reads);
            } else {
                self.dependencies.forget(&output);
            }
            if let Some(old) = old {
                self.remove_host(&old);
            }
            return;
        };
        self.dependencies.record(&output, reads);
        // The certificate is not part of the host's value: a rotation must not touch routes.
        self.set_secret(
            name,
            secret_of(&host).zip(resolved.certificate.as_ref()),
            old.as_deref().and_then(secret_of),
        );
        let Some(routes) = routes else { return };
        self.add_references(&mut host);
        if let Some(old) = &old {
            self.remove_references(old);
        }
        let host = Arc::new(host);
        self.published.hosts.insert(name.clone(), host.clone());
        self.hosts.insert(name, &host.age, old.as_ref().map(|old| &old.age));
        if old.as_ref().is_some_and(|old| old.listeners_differ() != host.listeners_differ()) {
            self.hosts.rescope(name);
        }
        self.set_routes(old.as_deref(), &host, routes);
    }

    fn remove_host(&mut self, host: &Host) {
        self.published.hosts.remove(&host.name);
        self.hosts.remove(&host.name, &host.age);
        for listener in translate::names::LISTENERS {
            let routes = translate::route::name(host, listener);
            self.update.remove.push((TypeUrl::RouteConfiguration, routes));
        }
        self.remove_references(host);
        self.set_secret(&host.name, None, secret_of(host));
        for listener in translate::names::LISTENERS {
            let scope = translate::scope::name(&host.name, listener);
            self.update.remove.push((TypeUrl::ScopedRouteConfiguration, scope.into()));
        }
    }

    fn set_routes(&mut self, old: Option<&Host>, host: &Host, routes: Vec<Arc<Resource>>) {
        if let Some(old) = old.filter(|old| old.listeners_differ() && !host.listeners_differ()) {
            let name = translate::route::name(old, translate::names::HTTPS);
            self.update.remove.push((TypeUrl::RouteConfiguration, name));
        }
        self.update.set.extend(routes);
    }

    /// The host's certificate under the host's name. Equal ones are sent to nobody.
    fn set_secret(
        &mut self,
        name: &HostName,
        secret: Option<(&SecretRef, &Arc<Checked>)>,
        old: Option<&SecretRef>,
    ) {
        let new = secret.map(|(secret, _)| secret);
        if let Some(new) = new.filter(|new| Some(*new) != old) {
            self.references.secrets.add(new.clone(), || None);
        }
        match secret {
            Some((secret, certificate)) => {
                let resource = self.references.secret(secret, certificate, name.as_str());
                self.update.set.extend(resource.map(Arc::new));
            }
            None if old.is_some() => self.update.remove.push((TypeUrl::Secret, name.as_str().into())),
            None => {}
        }
        if let Some(old) = old.filter(|old| Some(*old) != new) {
            self.references.secrets.remove(old);
        }
    }

    /// The certificate for names without one of their own: the configured Secret's, else the generated one.
    pub(super) fn run_default_certificate(&mut self) {
        let view = View::new(&self.store);
        let configured = self.settings.default_ssl_certificate.as_ref().map(|(namespace, name)| {
            let secret = SecretRef { namespace: namespace.as_str().into(), name: name.as_str().into() };
            resolve::default_certificate(&view, &secret)
        });
        let reads = view.into_reads();
        self.dependencies.record(&Output::DefaultCertificate, reads);
        let (certificate, findings) = configured.unwrap_or_default();
        self.ledger.set("default certificate", findings.into_vec());
        let name = translate::names::DEFAULT_SECRET;
        let secret = match certificate {
            Some(certificate) => translate::secret::secret(name, &certificate.certificate),
            None => translate::secret::generated(name, &self.default_certificate),
        };
        self.update.set.push(Arc::new(secret));
    }

    /// Runs what is said of an object as a whole.
    pub(super) fn run_object(&mut self, key: &ObjectKey) {
        let view = View::new(&self.store);
        let (ours, findings) = resolve::object(&view, &self.settings, key);
        let reads = view.into_reads();
        self.ledger.set(&format!("whole {key}"), findings.into_vec());
        if let Some(stored) = self.store.get(key) {
            let subject = Subject { stored: stored.clone(), ours };
            self.published.subjects.insert(key.clone(), subject);
            self.dependencies.record(&Output::Object(key.clone()), reads);
        } else {
            self.published.subjects.remove(key);
            self.dependencies.forget(&Output::Object(key.clone()));
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
        self.dependencies.record(&Output::ConfigMap, reads);
        self.ledger.set("config map", findings.into_vec());
    }

    /// Makes clusters, endpoint sets, certificates and limits that nobody referred to before. Equal backends of
    /// different hosts become one in memory.
    fn add_references(&mut self, host: &mut Host) {
        for backend in &mut host.backends {
            let name = backend.name.clone();
            if self.references.backends.add(name.clone(), || backend.clone()) {
                self.update.set.push(Arc::new(translate::cluster::cluster(backend)));
                if let Endpoints::Service(key) = &backend.endpoints {
                    self.references.clusters.entry(key.clone()).or_default().insert(name);
                    self.dirty.insert(Output::Endpoints(key.clone()));
                }
            } else if let Some(shared) = self.references.backends.get(&name) {
                *backend = shared.clone();
            }
        }
        self.references.share(&mut host.routes);
        for limit in &host.limits {
            self.references.limits.add(limit.id.clone(), || limit.clone());
            self.published.limits.insert(limit.clone());
        }
    }

    /// Takes back what a host referred to.
    fn remove_references(&mut self, host: &Host) {
        for backend in &host.backends {
            if let Some(gone) = self.references.backends.remove(&backend.name) {
                self.remove_cluster(&gone);
            }
        }
        self.references.unshare(&host.routes);
        for limit in &host.limits {
            if self.references.limits.remove(&limit.id).is_some() {
                self.published.limits.remove(&limit.id);
            }
        }
    }

    fn remove_cluster(&mut self, backend: &Backend) {
        self.update.remove.push((TypeUrl::Cluster, backend.name.clone()));
        let Endpoints::Service(key) = &backend.endpoints else { return };
        self.update.remove.push((TypeUrl::ClusterLoadAssignment, backend.name.clone()));
        let Some(clusters) = self.references.clusters.get_mut(key) else { return };
        clusters.remove(&backend.name);
        if clusters.is_empty() {
            self.references.clusters.remove(key);
            self.ledger.set(&format!("endpoints {key}"), Vec::new());
            self.dependencies.forget(&Output::Endpoints(key.clone()));
        }
    }

    /// Runs an endpoint set, and tells it to each of its clusters.
    pub(super) fn run_endpoints(&mut self, key: &EndpointSetKey) {
        let Some(clusters) = self.references.clusters.get(key) else { return };
        let view = View::new(&self.store);
        let (set, findings) = resolve::endpoint_set(&view, key);
        self.dependencies.record(&Output::Endpoints(key.clone()), view.into_reads());
        self.ledger.set(&format!("endpoints {key}"), findings.into_vec());
        let assignments =
            clusters.iter().map(|name| translate::endpoint::cluster_load_assignment(name, &set));
        self.update.set.extend(assignments.map(Arc::new));
    }

    /// Scopes of hosts as they should be now.
    pub(super) fn scope(&mut self, names: &[HostName]) {
        let scopes = parallel::map(names, |_, name| {
            let Some(host) = self.published.hosts.get(name) else { return Vec::new() };
            let scopes = translate::scope::scoped_routes(host, self.hosts.is_on_demand(name, &host.age));
            scopes.into_iter().map(Arc::new).collect()
        });
        self.update.set.extend(scopes.into_iter().flatten());
    }

    pub(super) fn set_fallback(&mut self) {
        let wildcards = self.hosts.wildcards();
        let deep = wildcards.iter().filter(|host| host.shallow().is_some()).cloned().collect();
        let fallback: Resource = translate::fallback::extension_config(!wildcards.is_empty(), &deep);
        self.update.set.push(Arc::new(fallback));
    }
}

/// The Secret with a host's certificate.
fn secret_of(host: &Host) -> Option<&SecretRef> {
    host.certificate.as_ref().map(|setting| &setting.value)
}
