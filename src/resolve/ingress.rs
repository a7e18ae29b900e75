//! Ingresses of a host to routes, as ingress-nginx assembles a server.
//!
//! The oldest Ingress wins a path. Without regular expressions: exact paths, then the longest prefix. If any Ingress
//! of the host asks for regular expressions, all paths of the host are such, the longest text first. Every host has a
//! `/`, which the oldest Ingress gives where nobody declares it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressServiceBackend};
use thin_vec::ThinVec;

use super::backend::{self, At, PORT_FORM, Port, Upstream, port_number};
use super::canary::{self, Canaries};
use super::draft::Draft;
use super::source::{Source, source};
use super::{Group, class, limits, paths, policies, tls};
use crate::features::backend_protocol::Protocol;
use crate::features::canary::Canary;
use crate::features::effects::{Answer, Effects, Guard, Listeners, Phase, Redirect, set};
use crate::features::rewrite::Rewrite;
use crate::features::snippets::Branch;
use crate::features::upstream_vhost::Variable;
use crate::model::route::Variant;
use crate::model::{Action, Destination, Match, Route};
use crate::values::{Age, ObjectKey, Origin};

/// One path of one Ingress.
#[derive(Debug)]
pub(crate) struct Location<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) origin: Origin,
    pub(crate) path: &'a str,
    pub(super) exact: bool,
    /// Whether it takes what no rule without a host does. ingress-nginx lets neither rewrites nor redirects act there.
    catch_all: bool,
    backend: Option<&'a IngressBackend>,
}

impl<'a> Location<'a> {
    /// Path and pathType, which is what a canary goes by and what two Ingresses conflict in.
    pub(crate) fn place(&self) -> (&'a str, bool) {
        (self.path, self.exact)
    }

    /// The rewrite that acts on the path.
    fn rewrite(&self) -> Option<&'a Rewrite> {
        if self.catch_all { None } else { self.source.policies.rewrite.as_ref() }
    }

    /// What policies do to the routes of the path: shared with the Ingress's other paths where nothing is its own.
    fn effects(&self) -> Arc<Effects> {
        let shared = &self.source.effects;
        let rewritten = self.rewrite().is_some_and(|rewrite| rewrite.changes(self.path));
        let keeps_path = shared.path_rewrite.is_some() && !rewritten;
        let redirects = |guard: &Guard| guard.phase == Phase::Redirect;
        let stays = self.catch_all && shared.guards.iter().any(redirects);
        let vhost = self.source.policies.upstream_vhost.as_ref().filter(|vhost| vhost.has_variables());
        if !keeps_path && !stays && vhost.is_none() {
            return shared.clone();
        }
        let mut own = Effects::clone(shared);
        if keeps_path {
            own.path_rewrite = None;
        }
        if stays {
            own.guards.retain(|guard| !redirects(guard));
        }
        if let Some(vhost) = vhost {
            let host = vhost.expand(|variable| self.variable(variable));
            set(&mut own.host_rewrite, host, vhost.origin.clone());
        }
        Arc::new(own)
    }

    /// What ingress-nginx's template sets for the path.
    fn variable(&self, variable: Variable) -> String {
        let service = self.service();
        let port = || {
            let port = service?.port.as_ref()?;
            port.number.map(|number| number.to_string()).or_else(|| port.name.clone())
        };
        match variable {
            Variable::Namespace => self.source.key.namespace.to_string(),
            Variable::IngressName => self.source.key.name.to_string(),
            Variable::ServiceName => service.map(|service| service.name.clone()).unwrap_or_default(),
            Variable::ServicePort => port().unwrap_or_default(),
        }
    }

    /// The Service that it asks for.
    pub(super) fn service(&self) -> Option<&'a IngressServiceBackend> {
        self.backend?.service.as_ref()
    }

    /// The backend as an index into the host's; none, with a finding, if it cannot serve. The finding says what
    /// happens `otherwise`.
    pub(crate) fn backend(
        &self,
        draft: &mut Draft<'_>,
        upstream: Upstream,
        otherwise: &'static str,
    ) -> Option<usize> {
        let service = self.service()?;
        let at = At { origin: &self.origin, below: ".backend.service", otherwise };
        let port = match service.port.as_ref() {
            Some(port) => match (port.number, port.name.as_deref()) {
                (Some(number), _) => Port::Number(checked_number(draft, at, number)?),
                (None, Some(name)) => Port::Name(name),
                (None, None) => Port::Only,
            },
            None => Port::Only,
        };
        backend::service(draft, at, &self.source.key.namespace, &service.name, port, upstream)
    }
}

/// The number of a backend's port. None, with a finding, if it is not one.
fn checked_number(draft: &mut Draft<'_>, at: At<'_>, number: i32) -> Option<u16> {
    let checked = port_number(number);
    if checked.is_none() {
        let At { origin, below, otherwise } = at;
        let message = format!("{number} is not {PORT_FORM}; {otherwise}");
        let field = format!("{}{below}.port.number", origin.field);
        draft.findings.error(&origin.object, field, "InvalidPort", message);
    }
    checked
}

/// The routes that a host's Ingresses make.
pub(crate) fn routes(draft: &mut Draft<'_>, ingresses: &[(&ObjectKey, &Age, &Ingress)]) -> Group {
    let mut sorted: Vec<_> = ingresses.iter().collect();
    // ingress-nginx breaks a tie of age by namespace/name, the last first.
    sorted.sort_by(|a, b| {
        a.1.cmp(b.1).then_with(|| (&b.0.namespace, &b.0.name).cmp(&(&a.0.namespace, &a.0.name)))
    });
    find_tls(draft, &sorted);
    let certificate = certificate_origin(draft);
    draft.strict_transport_security = certificate.is_some();
    let sources: Vec<_> =
        sorted.iter().map(|(key, _, ingress)| source(draft, key, ingress, certificate.as_ref())).collect();
    let (canaries, mains): (Vec<_>, Vec<_>) =
        sources.iter().partition(|source| source.policies.canary.is_some());
    let canaries = locations(draft, &canaries);
    let mut locations = locations(draft, &mains);
    drop_conflicts(draft, &mut locations);
    let fallback = fallback(draft, &mains, &locations);
    // A canary may stand on the `/` that the main Ingress has only by default.
    let canaries = Canaries::new(draft, locations.iter().chain(&fallback), &canaries);

    let regex = locations
        .iter()
        .chain(&fallback)
        .any(|location| location.rewrite().is_some_and(|rewrite| rewrite.makes_regex(location.path)));
    let exact = paths::sort(&mut locations, regex);
    let (exact, others) = locations.split_at(exact);
    let mut group = Group::default();
    let mut add = |group: &mut Group, location: &Location<'_>| {
        let Some(matches) = paths::path_match(draft, location, regex) else { return };
        let routes = location_routes(draft, location, &matches, &canaries);
        if location.backend.is_none() || location.origin.field.starts_with("spec.defaultBackend") {
            group.fallback.extend(routes);
        } else if location.path == "/" && !location.exact {
            group.everything.extend(routes);
        } else {
            group.routes.extend(routes);
        }
    };
    exact.iter().for_each(|location| add(&mut group, location));
    if !regex {
        group.routes.extend(paths::slash_redirects(&locations));
    }
    others.iter().chain(&fallback).for_each(|location| add(&mut group, location));
    group
}

/// The oldest Ingress with a `tls` section gives the host its certificate.
fn find_tls(draft: &mut Draft<'_>, sorted: &[&(&ObjectKey, &Age, &Ingress)]) {
    if draft.host.is_any() {
        return;
    }
    // A canary is no more than a share of another's routes.
    let mut mains =
        sorted.iter().filter(|(.., ingress)| !Canary::is_canary(ingress.metadata.annotations.as_ref()));
    draft.tls = mains.find_map(|(key, _, ingress)| tls::of_ingress(draft, key, ingress));
}

/// What gave the host its certificate: its own `tls` section, or that of the wildcard that covers it.
fn certificate_origin(draft: &mut Draft<'_>) -> Option<Origin> {
    if let Some(tls) = &draft.tls {
        return Some(tls.origin.clone());
    }
    let parent = draft.host.wildcard_parent()?;
    let keys: Vec<_> = draft.view.routing(&parent).collect();
    keys.into_iter().find_map(|key| {
        let ingress = draft.view.ingress(key)?;
        let has_tls = ingress.spec.as_ref()?.tls.as_ref().is_some_and(|tls| !tls.is_empty());
        let serves =
            !Canary::is_canary(ingress.metadata.annotations.as_ref()) && class::is_ours(draft, key, ingress);
        (has_tls && serves).then(|| Origin::new(key, "spec.tls"))
    })
}

/// What policies do to the routes of a path, those of the path alone too.
fn effects(draft: &mut Draft<'_>, location: &Location<'_>) -> Arc<Effects> {
    let shared = location.effects();
    let key = location.source.key;
    if !location.source.is_limited || !policies::any(draft, key, location.path) {
        return shared;
    }
    let mut own = Effects::clone(&shared);
    policies::apply(draft, key, Some(location.path), &mut own);
    Arc::new(own)
}

/// Every path of these Ingresses for the draft's host.
fn locations<'a>(draft: &mut Draft<'_>, sources: &[&'a Source<'a>]) -> Vec<Location<'a>> {
    let mut locations = Vec::new();
    for source in sources {
        let Some(spec) = &source.ingress.spec else { continue };
        for (index, rule) in spec.rules.iter().flatten().enumerate() {
            let host = rule.host.as_deref().unwrap_or_default();
            match crate::values::HostName::parse(host) {
                Ok(host) if host == *draft.host => {}
                _ => continue,
            }
            for (position, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                let field = format!("spec.rules[{index}].http.paths[{position}]");
                locations.extend(location(draft, source, field, path));
            }
        }
    }
    locations
}

fn location<'a>(
    draft: &mut Draft<'_>,
    source: &'a Source<'a>,
    field: String,
    path: &'a HTTPIngressPath,
) -> Option<Location<'a>> {
    let text = path.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let exact = match path.path_type.as_str() {
        "Exact" => true,
        "Prefix" | "ImplementationSpecific" | "" => false,
        other => {
            let message =
                format!("{other:?} is not Exact, Prefix or ImplementationSpecific; the path is left out");
            draft.findings.error(source.key, format!("{field}.pathType"), "InvalidPathType", message);
            return None;
        }
    };
    if !text.starts_with('/') || text.chars().any(char::is_control) {
        let message = format!("{text:?} is not a path that begins with a slash; the path is left out");
        draft.findings.error(source.key, format!("{field}.path"), "InvalidPath", message);
        return None;
    }
    if path.backend.service.is_none() {
        let message = "only Services can be backends; requests are answered 404";
        draft.findings.warning(source.key, format!("{field}.backend"), "UnsupportedBackend", message);
    }
    Some(Location {
        source,
        origin: Origin::new(source.key, field),
        path: text,
        exact,
        catch_all: false,
        backend: Some(&path.backend),
    })
}

/// Keeps the first of several locations with the same path; the losers get a finding.
fn drop_conflicts(draft: &mut Draft<'_>, locations: &mut Vec<Location<'_>>) {
    let mut winners = HashMap::with_capacity(locations.len());
    locations.retain(|location| match winners.entry(location.place()) {
        Entry::Vacant(free) => {
            free.insert(location.source.key);
            true
        }
        Entry::Occupied(winner) => {
            let message = format!(
                "{}{} is served by {}, which is older; this path has no effect",
                draft.host,
                location.path,
                winner.get()
            );
            draft.findings.warning(location.source.key, &*location.origin.field, "PathConflict", message);
            false
        }
    });
}

/// `/`, if nobody declares it: the oldest Ingress's default backend, else 404, with that Ingress's policies. Of those
/// without a host it is the oldest that has nothing but a default backend, if there is one.
fn fallback<'a>(
    draft: &mut Draft<'_>,
    mains: &[&'a Source<'a>],
    locations: &[Location<'_>],
) -> Option<Location<'a>> {
    if locations.iter().any(|location| location.path == "/" && !location.exact) {
        return None;
    }
    let catch_all = draft.host.is_any();
    let oldest = mains.iter().find(|source| catch_all && source.is_catch_all()).or(mains.first())?;
    let spec = oldest.ingress.spec.as_ref()?;
    let backend = spec.default_backend.as_ref();
    if catch_all && backend.is_none() && locations.is_empty() {
        return None;
    }
    let field = if backend.is_some() { "spec.defaultBackend" } else { "" };
    Some(Location {
        source: oldest,
        origin: Origin::new(oldest.key, field),
        path: "/",
        exact: false,
        catch_all,
        backend,
    })
}

/// The routes of one location: one, or several where a canary takes part or the listeners differ.
fn location_routes(
    draft: &mut Draft<'_>,
    location: &Location<'_>,
    matches: &Match,
    canaries: &Canaries<'_>,
) -> Vec<Route> {
    let source = location.source;
    if let Some(redirect) = location.rewrite().and_then(|rewrite| rewrite.redirect(location.path)) {
        return vec![redirect_route(location, matches, redirect)];
    }
    let effects = effects(draft, location);
    let route = |listeners, variant, matches, action| Route {
        origin: location.origin.clone(),
        variant,
        listeners,
        matches,
        action,
        effects: effects.clone(),
        mirrors: source.mirrors.clone(),
    };
    let answer = |status| Action::Answer(Answer::Direct { status, body: Vec::new() });
    if location.service().is_none() {
        let route = route(Listeners::All, Variant::Main, matches.clone(), answer(404));
        return split(draft, source, vec![route]);
    }
    let protocol = source.effects.protocol.as_ref().map(|protocol| protocol.value);
    let sides: &[_] = match protocol {
        Some(Protocol::AutoHttp) => {
            &[(Listeners::Http, Some(Protocol::Http)), (Listeners::Https, Some(Protocol::Https))]
        }
        other => &[(Listeners::All, other)],
    };
    let mut routes = Vec::new();
    for (listeners, protocol) in sides {
        let upstream = source.upstream(*protocol);
        let Some(main) = location.backend(draft, upstream, backend::UNAVAILABLE) else {
            routes.push(route(*listeners, Variant::Unavailable, matches.clone(), answer(503)));
            continue;
        };
        match canaries.find(draft, location, main, upstream) {
            Some(alternative) => {
                routes.extend(canary::routes(
                    source,
                    main,
                    &alternative,
                    matches,
                    |variant, matches, action| route(*listeners, variant, matches, action),
                ));
            }
            None => {
                let action = Action::Forward(vec![Destination::only(main)]);
                routes.push(route(*listeners, Variant::Main, matches.clone(), action));
            }
        }
    }
    let mut routes = split(draft, source, routes);
    for route in routes.iter_mut().filter(|route| route.variant == Variant::Unavailable) {
        route.effects = without_auth(&route.effects);
    }
    routes
}

/// Where no backend can serve, nobody is asked whether to let a request in: nginx answers in an earlier phase. So nothing
/// is counted by what nobody said either.
fn without_auth(effects: &Arc<Effects>) -> Arc<Effects> {
    let of_auth = |guard: &Guard| guard.phase == Phase::Auth;
    if effects.external_auth.is_none() && !effects.guards.iter().any(of_auth) {
        return effects.clone();
    }
    let mut own = Effects::clone(effects);
    own.external_auth = None;
    own.guards.retain(|guard| !of_auth(guard));
    own.rate_limits.retain(|limit| !limit.after_auth);
    Arc::new(own)
}

/// A route for each kind of request that the snippets tell, in place of each of these, whose effects are the same.
fn split(draft: &mut Draft<'_>, source: &Source<'_>, routes: Vec<Route>) -> Vec<Route> {
    let (false, Some(first)) = (source.branches.is_empty(), routes.first()) else { return routes };
    let shared = first.effects.clone();
    let effects = source.branches.iter().map(|branch| {
        let mut effects = Effects::clone(&shared);
        limits::of_branch(draft, branch, source.limit_status, &mut effects);
        Arc::new(effects)
    });
    let effects: Vec<_> = effects.collect();
    let kinds = |route: Route| {
        let of_kind = |(branch, effects): (&Branch, &Arc<Effects>)| {
            let mut route = Route { effects: effects.clone(), ..route.clone() };
            route.matches.headers.extend(branch.when.iter().cloned());
            route
        };
        source.branches.iter().zip(&effects).map(of_kind).collect::<Vec<_>>()
    };
    routes.into_iter().flat_map(kinds).collect()
}

/// The answer of a `rewrite-target` that is a URL. nginx gives it before it does anything else but refuse.
fn redirect_route(location: &Location<'_>, matches: &Match, redirect: Redirect) -> Route {
    let guards = &location.source.effects.guards;
    let guards = guards.iter().filter(|guard| guard.phase == Phase::Unavailable).cloned().collect();
    Route {
        origin: location.origin.clone(),
        variant: Variant::Main,
        listeners: Listeners::All,
        matches: matches.clone(),
        action: Action::Answer(Answer::Redirect(Box::new(redirect))),
        effects: Arc::new(Effects { guards, ..Effects::default() }),
        mirrors: ThinVec::new(),
    }
}
