//! Objects to model. Pure: no IO, no clock, no randomness.
//!
//! One function for a host, one for a set of endpoints, one for a certificate. They answer `(value, findings)`, never
//! an error: one bad object never blocks the rest, and its owner sees why.

mod backend;
mod canary;
mod class;
mod conflict;
mod costs;
mod draft;
mod endpoints;
mod external_auth;
mod ingress;
mod jwt;
mod limits;
mod object;
mod paths;
mod policies;
mod policy_keys;
mod policy_terms;
mod source;
mod tls;
mod virtual_service;
mod wildcard;

pub use endpoints::endpoint_set;
pub use object::object;
pub use tls::default_certificate;

use std::sync::Arc;

use thin_vec::ThinVec;

use crate::features::effects::{Answer, Effects, Listeners};
use crate::model::route::Variant;
use crate::model::{Action, Host, Match, PathMatch, Route};
use crate::settings::Settings;
use crate::store::{Object, View};
use crate::values::certificate::Checked;
use crate::values::{Findings, HostName, ObjectKey, Origin};

use draft::Draft;

/// What a host came to.
#[derive(Debug)]
pub struct Resolved {
    /// Everything that is routed on it; none if nothing of ours names it.
    pub host: Option<Host>,
    /// Its certificate, if it has one of its own. Apart from the host, since a rotation changes no route.
    pub certificate: Option<Arc<Checked>>,
    /// What there is to say.
    pub findings: Findings,
}

/// Everything that is routed on a host.
pub fn host(view: &View<'_>, settings: &Settings, name: &HostName) -> Resolved {
    let mut draft = Draft::new(view, settings, name);
    let mut ingresses = Vec::new();
    let mut services = Vec::new();
    for key in view.routing(name) {
        let Some(stored) = view.object(key) else { continue };
        match &stored.object {
            Object::Ingress(ingress) if class::is_ours(&mut draft, key, ingress) => {
                ingresses.push((key, &stored.age, &**ingress));
            }
            Object::VirtualService(service) if virtual_service::names_host(&mut draft, key, service) => {
                services.push((key, &stored.age, &**service));
            }
            _ => {}
        }
    }
    let ages = ingresses.iter().map(|entry| entry.1).chain(services.iter().map(|entry| entry.1));
    let Some(age) = ages.min().cloned() else { return draft.nothing() };

    let mut groups = Vec::new();
    if let Some((_, oldest, _)) = ingresses.first() {
        groups.push((*oldest, ingress::routes(&mut draft, &ingresses)));
    }
    for (key, service_age, service) in &services {
        groups.push((*service_age, virtual_service::routes(&mut draft, key, service)));
    }
    // A VirtualService all of whose rules are left out still answers for its host: 404, as Istio has it.
    if services.is_empty() && groups.iter().all(|(_, group)| group.is_empty()) {
        return draft.nothing();
    }
    groups.sort_by_key(|(age, _)| *age);
    // Older objects first.
    let mut routes = in_order(&mut draft, groups.into_iter().map(|(_, group)| group));
    let last = routes.last().map(|route| &route.origin.object).or(services.first().map(|(key, ..)| *key));
    routes.extend(last.and_then(|object| not_found(&routes, object)));
    wildcard::adapt(&draft, &mut routes);
    // It is kept, once for every host.
    routes.shrink_to_fit();
    let (secret, certificate) = draft.tls.take().and_then(|tls| tls.secret).unzip();
    let host = Host {
        name: name.clone(),
        age,
        routes,
        backends: draft.backends.into_vec(),
        certificate: secret,
        limits: draft.limits,
        strict_transport_security: draft.strict_transport_security,
    };
    Resolved { host: Some(host), certificate, findings: draft.findings }
}

/// Whatever takes every path comes after what does not, and an Ingress's implicit `/` is last of all, so that a host can be
/// shared between kinds.
fn in_order(draft: &mut Draft<'_>, groups: impl Iterator<Item = Group>) -> Vec<Route> {
    let mut routes = Vec::new();
    let mut everything = Vec::new();
    let mut fallback = Vec::new();
    for group in groups {
        routes.extend(group.routes);
        everything.extend(group.everything);
        fallback.extend(group.fallback);
    }
    routes.extend(everything);
    conflict::report(&mut draft.findings, &routes);
    routes.extend(fallback);
    routes
}

/// The routes of one kind of object, in the parts that are put together with those of other kinds.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Routes that do not take every path.
    pub(crate) routes: Vec<Route>,
    /// Routes that were declared to take every path.
    pub(crate) everything: Vec<Route>,
    /// Routes for paths that nobody declared.
    pub(crate) fallback: Vec<Route>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.everything.is_empty() && self.fallback.is_empty()
    }
}

/// Every host ends in a route that takes every path, so that a host that is known never falls through to a wildcard.
fn not_found(routes: &[Route], object: &ObjectKey) -> Option<Route> {
    let takes_all = routes.last().is_some_and(|last| {
        last.matches.is_path_only()
            && last.listeners == Listeners::All
            && matches!(&last.matches.path, PathMatch::Prefix(path) if path == "/")
    });
    (!takes_all).then(|| Route {
        origin: Origin::new(object, ""),
        variant: Variant::NotFound,
        listeners: Listeners::All,
        matches: Match::path(PathMatch::Prefix("/".to_owned())),
        action: Action::Answer(Answer::Direct { status: 404, body: Vec::new() }),
        effects: Arc::new(Effects::default()),
        mirrors: ThinVec::new(),
    })
}
