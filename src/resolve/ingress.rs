//! Ingresses of a host to routes, as ingress-nginx assembles a server.
//!
//! The oldest Ingress wins a path. Without regular expressions: exact paths, then the longest prefix. If any Ingress
//! of the host asks for regular expressions, all paths of the host are such, the longest text first. Every host has a
//! `/`, which the oldest Ingress gives where nobody declares it.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend};
use thin_vec::ThinVec;

use super::backend::{self, PORT_FORM, Port, Upstream, port_number};
use super::canary::{self, Canaries};
use super::draft::Draft;
use super::{Group, class, limits, tls};
use crate::features::backend_protocol::Protocol;
use crate::features::canary::Canary;
use crate::features::effects::{Answer, Effects, Guard, Listeners, Phase, Redirect, RedirectPath, set};
use crate::features::retries::Retries;
use crate::features::timeouts::{DEFAULT_CONNECT, DEFAULT_GAP};
use crate::features::{Policies, Reader, body_size, unsupported};
use crate::model::route::{MirrorBackend, Variant};
use crate::model::{Action, Destination, Match, PathMatch, Route};
use crate::values::{Age, Kind, ObjectKey, Origin, pattern};

/// Where ingress-nginx's own defaults come from. One for all, so that Ingresses that ask for nothing have equal effects.
static DEFAULTS: LazyLock<Origin> =
    LazyLock::new(|| Origin::new(&ObjectKey::new(Kind::IngressClass, "", "nginx"), "default"));

/// One Ingress of the host, with what its annotations say.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) key: &'a ObjectKey,
    pub(crate) ingress: &'a Ingress,
    pub(crate) policies: Policies,
    /// What policies do to its routes.
    effects: Arc<Effects>,
    /// The same without `rewrite-target`, for paths that it leaves alone.
    effects_without_rewrite: Arc<Effects>,
    mirrors: ThinVec<MirrorBackend>,
}

impl Source<'_> {
    /// How it has upstreams spoken to, by what [`Protocol::AutoHttp`] comes to.
    fn upstream(&self, protocol: Option<Protocol>) -> Upstream {
        let connect_timeout = self.effects.connect_timeout.as_ref();
        Upstream {
            protocol,
            protocol_by_port_name: false,
            connect_timeout: connect_timeout.map_or(DEFAULT_CONNECT, |timeout| timeout.value),
        }
    }
}

/// One path of one Ingress.
#[derive(Debug)]
pub(crate) struct Location<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) origin: Origin,
    pub(crate) path: &'a str,
    exact: bool,
    backend: Option<&'a IngressBackend>,
}

impl<'a> Location<'a> {
    /// Path and pathType, which is what a canary goes by and what two Ingresses conflict in.
    pub(crate) fn place(&self) -> (&'a str, bool) {
        (self.path, self.exact)
    }

    /// The backend as an index into the host's; none, with a finding, if it cannot serve.
    pub(crate) fn backend(&self, draft: &mut Draft<'_>, upstream: Upstream) -> Option<usize> {
        let service = self.backend?.service.as_ref()?;
        let at = Origin::new(self.source.key, format!("{}.backend.service", self.origin.field));
        let port = match service.port.as_ref() {
            Some(port) => match (port.number, port.name.as_deref()) {
                (Some(number), _) => Port::Number(checked_number(draft, &at, number)?),
                (None, Some(name)) => Port::Name(name),
                (None, None) => Port::Only,
            },
            None => Port::Only,
        };
        backend::service(draft, &at, &self.source.key.namespace, &service.name, port, upstream)
    }
}

/// The number of a backend's port. None, with a finding, if it is not one.
fn checked_number(draft: &mut Draft<'_>, at: &Origin, number: i32) -> Option<u16> {
    let checked = port_number(number);
    if checked.is_none() {
        let message = format!("{number} is not {PORT_FORM}; requests are answered 503");
        draft.findings.error(&at.object, format!("{}.port.number", at.field), "InvalidPort", message);
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
    let canaries = Canaries::new(draft, &locations, &canaries);
    let fallback = fallback(draft, &mains, &locations);

    let regex = locations.iter().any(|location| {
        location.source.policies.rewrite.as_ref().is_some_and(|rewrite| rewrite.makes_regex(location.path))
    });
    if regex {
        locations.sort_by(|a, b| b.path.len().cmp(&a.path.len()).then_with(|| b.path.cmp(a.path)));
    } else {
        locations.sort_by_key(|location| {
            (Reverse(location.exact), Reverse(location.path.trim_end_matches('/').len()))
        });
    }
    let mut group = Group::default();
    for location in locations.iter().chain(&fallback) {
        let Some(matches) = path_match(draft, location, regex) else { continue };
        let routes = location_routes(draft, location, &matches, &canaries);
        if location.backend.is_none() || location.origin.field.starts_with("spec.defaultBackend") {
            group.fallback.extend(routes);
        } else if location.path == "/" && !location.exact {
            group.everything.extend(routes);
        } else {
            group.routes.extend(routes);
        }
    }
    if !regex {
        group.routes.extend(slash_redirects(&locations));
    }
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

/// `certificate` is what [`certificate_origin`] says of the host.
fn source<'a>(
    draft: &mut Draft<'_>,
    key: &'a ObjectKey,
    ingress: &'a Ingress,
    certificate: Option<&Origin>,
) -> Source<'a> {
    let annotations = ingress.metadata.annotations.as_ref();
    let (namespace, name) = &draft.settings.config_map;
    let config_map_key = ObjectKey::new(Kind::ConfigMap, namespace.as_str(), name.as_str());
    let config_map = draft.view.config_map(namespace, name).and_then(|config_map| config_map.data.as_ref());
    let defaults = config_map.map(|data| (&config_map_key, data));
    let mut reader = Reader::new(key, annotations, defaults, &mut draft.findings);
    let policies = Policies::read(&mut reader);
    let ipv6 = draft.settings.envoy_address.is_ipv6();
    let refused = unsupported::check(key, annotations, ipv6, &mut draft.findings);

    let mut effects = policies.effects();
    let default = || DEFAULTS.clone();
    set(&mut effects.per_try_idle_timeout, DEFAULT_GAP, default());
    set(&mut effects.idle_timeout, DEFAULT_GAP, default());
    set(&mut effects.retries, Retries::ingress_nginx(), default());
    set(&mut effects.max_request_bytes, body_size::DEFAULT_BYTES, default());
    if let Some(redirect) = &policies.ssl_redirect {
        effects.guards.extend(redirect.guards(draft.host, certificate));
    }
    if let Some(annotation) = refused {
        effects.guards.push(Guard {
            phase: Phase::Unavailable,
            listeners: Listeners::All,
            when: Vec::new(),
            answer: Answer::Direct { status: 503, body: Vec::new() },
            origin: Origin::new(key, annotation),
        });
    }
    if let Some(request_limits) = &policies.request_limits {
        limits::of_annotations(draft, key, request_limits, &mut effects);
    }
    limits::of_policies(draft, key, &mut effects);
    let mirrors = resolve_mirrors(draft, &effects);
    let effects = Arc::new(effects);
    let effects_without_rewrite = if effects.path_rewrite.is_some() {
        Arc::new(Effects { path_rewrite: None, ..(*effects).clone() })
    } else {
        effects.clone()
    };
    Source { key, ingress, policies, effects, effects_without_rewrite, mirrors }
}

/// The backends behind mirrors. One that cannot be found is a finding and is left out.
pub(crate) fn resolve_mirrors(draft: &mut Draft<'_>, effects: &Effects) -> ThinVec<MirrorBackend> {
    let mut mirrors = ThinVec::new();
    for (index, mirror) in effects.mirrors.iter().enumerate() {
        let protocol = if mirror.value.tls { Protocol::Https } else { Protocol::Http };
        let upstream = Upstream { protocol: mirror.value.tls.then_some(protocol), ..Upstream::default() };
        let found = backend::host(draft, &mirror.origin, &mirror.value.host, mirror.value.port, upstream);
        mirrors.extend(found.map(|backend| MirrorBackend { mirror: index, backend }));
    }
    mirrors
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

/// `/`, if nobody declares it: the oldest Ingress's default backend, else 404, with that Ingress's policies.
fn fallback<'a>(
    draft: &mut Draft<'_>,
    mains: &[&'a Source<'a>],
    locations: &[Location<'_>],
) -> Option<Location<'a>> {
    if locations.iter().any(|location| location.path == "/" && !location.exact) {
        return None;
    }
    let oldest = mains.first()?;
    let spec = oldest.ingress.spec.as_ref()?;
    let backend = spec.default_backend.as_ref();
    if draft.host.is_any() && backend.is_none() && locations.is_empty() {
        return None;
    }
    let field = if backend.is_some() { "spec.defaultBackend" } else { "" };
    // A canary may stand on the `/` that the main Ingress has only by default.
    Some(Location {
        source: oldest,
        origin: Origin::new(oldest.key, field),
        path: "/",
        exact: false,
        backend,
    })
}

fn path_match(draft: &mut Draft<'_>, location: &Location<'_>, regex: bool) -> Option<Match> {
    if !regex {
        if location.path.contains(['?', '#']) {
            let message = format!(
                "{:?} has a ? or #, which no request's path has; the path is left out (a regular expression needs \
                 the annotation use-regex)",
                location.path
            );
            let field = format!("{}.path", location.origin.field);
            draft.findings.error(location.source.key, field, "InvalidPath", message);
            return None;
        }
        let path = percent_encoded(location.path);
        return Some(Match::path(if location.exact {
            PathMatch::Exact(path)
        } else if path.len() > 1 && path.ends_with('/') {
            PathMatch::Prefix(path)
        } else {
            PathMatch::segments(&path)
        }));
    }
    if let Err(error) = pattern::check(location.path) {
        let message = format!(
            "{:?} is not a regular expression that RE2 accepts: {error}; the path is left out",
            location.path
        );
        let field = format!("{}.path", location.origin.field);
        draft.findings.error(location.source.key, field, "InvalidRegex", message);
        return None;
    }
    Some(Match::path(PathMatch::NginxRegex(location.path.to_owned())))
}

/// nginx compares decoded paths, Envoy those on the wire, where only ASCII stands as it is.
fn percent_encoded(path: &str) -> String {
    let encode = |byte: u8| match byte {
        b' ' | 0x80.. => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    };
    path.bytes().map(encode).collect()
}

/// The routes of one location: one, or several where a canary takes part or the listeners differ.
fn location_routes(
    draft: &mut Draft<'_>,
    location: &Location<'_>,
    matches: &Match,
    canaries: &Canaries<'_>,
) -> Vec<Route> {
    let source = location.source;
    let rewrites = source.policies.rewrite.as_ref().and_then(|rewrite| rewrite.target.as_ref());
    let effects = match rewrites {
        Some((target, _)) if target != location.path => &source.effects,
        _ => &source.effects_without_rewrite,
    };
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
    if location.backend.and_then(|backend| backend.service.as_ref()).is_none() {
        return vec![route(Listeners::All, Variant::Main, matches.clone(), answer(404))];
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
        let Some(main) = location.backend(draft, upstream) else {
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
    routes
}

/// nginx answers 301 for the path without the slash that a declared path ends in, unless that is declared too.
fn slash_redirects(locations: &[Location<'_>]) -> Vec<Route> {
    let mut taken: HashSet<&str> = locations.iter().map(|location| location.path).collect();
    let mut redirects = Vec::new();
    for location in locations {
        let Some(bare) = location.path.strip_suffix('/').filter(|bare| !bare.is_empty()) else { continue };
        if !taken.insert(bare) {
            continue;
        }
        redirects.push(Route {
            origin: location.origin.clone(),
            variant: Variant::ToSlash,
            listeners: Listeners::All,
            matches: Match::path(PathMatch::Exact(bare.to_owned())),
            action: Action::Answer(Answer::Redirect(Box::new(Redirect {
                path: RedirectPath::Whole(location.path.to_owned()),
                status: 301,
                ..Redirect::default()
            }))),
            effects: Arc::default(),
            mirrors: ThinVec::new(),
        });
    }
    redirects
}
