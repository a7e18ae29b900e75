//! What Envoys reject, told to whoever can mend it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Compiler, Output, Published};
use crate::model::{Action, Endpoints, Host, Route, SecretRef};
use crate::store::Read;
use crate::translate::{self, names};
use crate::values::{Findings, Kind, ObjectKey};
use crate::xds::{Audience, TypeUrl};

impl Compiler {
    /// Takes in which rejections there are that were not there before, as type, name and Envoy's message, and which are
    /// over, without a message: the objects behind them are told so. What no object is behind, such as a listener, is said
    /// of the ConfigMap with the global settings.
    pub fn reject<'a>(
        &mut self,
        changed: impl Iterator<Item = (TypeUrl, &'a str, Option<&'a str>)>,
    ) -> &Published {
        for (type_url, name, message) in changed {
            let mut findings = Findings::default();
            if let Some(message) = message {
                for object in self.origins(type_url, name) {
                    findings.error(&object, "", "RejectedByEnvoy", explain(type_url, name, message));
                }
            }
            self.compiled.ledger.set(&format!("rejected {type_url} {name}"), findings.into_vec());
        }
        self.publish_findings();
        &self.compiled.published
    }

    /// The objects behind a resource.
    fn origins(&self, type_url: TypeUrl, name: &str) -> BTreeSet<ObjectKey> {
        let mut objects = match type_url {
            TypeUrl::RouteConfiguration => self.objects_of(translate::route::host_of(name)),
            TypeUrl::ScopedRouteConfiguration => self.objects_of(translate::scope::host_of(name)),
            TypeUrl::Cluster => self.objects_with(name),
            TypeUrl::ClusterLoadAssignment => self.service_of(name).into_iter().collect(),
            TypeUrl::Secret => self.objects_of_secret(name),
            TypeUrl::LimitSet => self.objects_limited_by(name),
            TypeUrl::Listener | TypeUrl::TypedExtensionConfig | TypeUrl::RateLimitConfig => BTreeSet::new(),
        };
        if objects.is_empty() {
            let (namespace, name) = &self.settings.config_map;
            objects.insert(ObjectKey::new(Kind::ConfigMap, namespace.as_str(), name.as_str()));
        }
        objects
    }

    fn objects_of(&self, host: &str) -> BTreeSet<ObjectKey> {
        let host = self.compiled.published.hosts.get(host);
        host.into_iter().flat_map(|host| host.origins()).map(|origin| origin.object.clone()).collect()
    }

    /// The objects that say a limit.
    fn objects_limited_by(&self, id: &str) -> BTreeSet<ObjectKey> {
        let hosts = self.compiled.published.hosts.values();
        let hosts = hosts.filter(|host| host.limits.iter().any(|limit| &*limit.id == id));
        let limits = hosts.flat_map(|host| &host.routes).flat_map(|route| &route.effects.rate_limits);
        limits.filter(|limit| &*limit.id == id).map(|limit| limit.origin.object.clone()).collect()
    }

    /// The objects with a route to a cluster: those of a Service's clusters are among whoever read the Service.
    fn objects_with(&self, cluster: &str) -> BTreeSet<ObjectKey> {
        let origins = |host: &Arc<Host>| -> Vec<_> {
            routes_to(host, cluster).map(|route| route.origin.object.clone()).collect()
        };
        let Some(service) = self.service_of(cluster) else {
            return self.compiled.published.hosts.values().flat_map(origins).collect();
        };
        let readers = self.compiled.dependencies.readers(&Read::Object(service));
        let hosts = readers.filter_map(|reader| match reader {
            Output::Host(host) => self.compiled.published.hosts.get(&host),
            _ => None,
        });
        hosts.flat_map(origins).collect()
    }

    fn service_of(&self, cluster: &str) -> Option<ObjectKey> {
        match &self.compiled.references.backends.get(cluster)?.endpoints {
            Endpoints::Service(key) => {
                Some(ObjectKey::new(Kind::Service, key.namespace.clone(), key.service.clone()))
            }
            Endpoints::Dns { .. } => None,
        }
    }

    /// The Secret whose certificate serves a server name, and the object that named it for the host.
    fn objects_of_secret(&self, asked: &str) -> BTreeSet<ObjectKey> {
        let key =
            |secret: &SecretRef| ObjectKey::new(Kind::Secret, secret.namespace.clone(), secret.name.clone());
        let Some((resource, _)) =
            self.compiled.published.snapshot.find(TypeUrl::Secret, asked, Some(names::DEFAULT_SECRET))
        else {
            return BTreeSet::new();
        };
        if &**resource.name() == names::DEFAULT_SECRET {
            let configured = self.settings.default_ssl_certificate.iter();
            return configured
                .map(|(namespace, name)| ObjectKey::new(Kind::Secret, namespace.as_str(), name.as_str()))
                .collect();
        }
        let host: Option<&Arc<Host>> = self.compiled.published.hosts.get(&**resource.name());
        let certificates = host.into_iter().flat_map(|host| &host.certificate);
        certificates.flat_map(|setting| [key(&setting.value), setting.origin.object.clone()]).collect()
    }
}

fn routes_to<'h>(host: &'h Host, cluster: &'h str) -> impl Iterator<Item = &'h Route> {
    let index = host.backends.iter().position(|backend| &*backend.name == cluster);
    host.routes.iter().filter(move |route| {
        let forwards = match &route.action {
            Action::Forward(destinations) => {
                destinations.iter().any(|destination| Some(destination.backend) == index)
            }
            Action::Answer(_) => false,
        };
        let asks = route.effects.external_auth.as_ref().is_some_and(|auth| &*auth.value.cluster == cluster);
        forwards || asks || route.mirrors.iter().any(|mirror| Some(mirror.backend) == index)
    })
}

fn explain(type_url: TypeUrl, name: &str, message: &str) -> String {
    if type_url.audience() == Audience::RateLimit {
        return format!(
            "the rate limit service rejected what this became ({type_url} {name}): {message}; it counts by the last form \
             that it accepted, if there is one"
        );
    }
    let instead = match type_url {
        TypeUrl::RouteConfiguration => "the last accepted form still serves, or 503 where there is none",
        _ => "the last accepted form still serves, if there is one",
    };
    format!("Envoy rejected what this became ({type_url} {name}): {message}; {instead}")
}
