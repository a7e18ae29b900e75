//! What follows from the store, and how a host's run is taken into it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::dependencies::Dependencies;
use super::findings::Ledger;
use super::hosts::Hosts;
use super::references::References;
use super::{Output, Published};
use crate::model::{Backend, Endpoints, Host, SecretRef};
use crate::parallel;
use crate::resolve::{self, Resolved};
use crate::settings::Settings;
use crate::store::{Read, Store, View};
use crate::translate;
use crate::values::HostName;
use crate::values::certificate::Checked;
use crate::xds::{Resource, TypeUrl, Update};

/// What a host came to, from the store and its last form alone.
pub(super) struct HostRun {
    resolved: Resolved,
    reads: Vec<Read>,
    /// Whether an object names the host, served or not.
    is_named: bool,
    /// The host as it was.
    old: Option<Arc<Host>>,
    /// Its route configurations; none if the host is as it was, or is gone.
    routes: Option<Vec<Arc<Resource>>>,
}

impl HostRun {
    pub(super) fn new(store: &Store, settings: &Settings, name: &HostName, old: Option<&Arc<Host>>) -> Self {
        let view = View::new(store);
        let mut resolved = resolve::host(&view, settings, name);
        if let Some(host) = resolved.host.as_ref().filter(|_| settings.ratelimit_config) {
            resolved.findings.extend(translate::rate_limit_config::findings(host));
        }
        let changed = resolved.host.as_ref().filter(|host| old.map(|old| &**old) != Some(host));
        let routes = changed.map(translate::route::route_configurations);
        let routes = routes.map(|routes| routes.into_iter().map(Arc::new).collect());
        let reads = view.into_reads();
        Self { reads, resolved, is_named: store.names_host(name), old: old.cloned(), routes }
    }
}

/// What follows from the store.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub(super) dependencies: Dependencies,
    pub(super) hosts: Hosts,
    pub(super) references: References,
    pub(super) ledger: Ledger,
    /// What is to be run.
    pub(super) dirty: BTreeSet<Output>,
    /// What is to be sent.
    pub(super) update: Update,
    pub(super) published: Published,
}

impl Compiled {
    /// Takes a host's run in; what it newly refers to becomes dirty.
    pub(super) fn take_host(&mut self, name: &HostName, run: HostRun) {
        let HostRun { resolved, reads, is_named, old, routes } = run;
        let output = Output::Host(name.clone());
        self.ledger.set(&format!("host {name}"), resolved.findings.into_vec());
        let Some(mut host) = resolved.host else {
            // A host that nobody serves still has readers' dependencies, such as the class that could make it ours.
            if is_named {
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
            if self.published.limits.get(&limit.id) != Some(limit) {
                self.update.set.push(Arc::new(translate::limit_set::limit_set(limit)));
                self.published.limits.insert(limit.clone());
            }
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
                self.update.remove.push((TypeUrl::LimitSet, limit.id.clone()));
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
