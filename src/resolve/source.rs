//! One Ingress of a host: its annotations, the ConfigMap's values, snippets and RateLimitPolicies to effects.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::networking::v1::Ingress;
use thin_vec::ThinVec;

use super::backend::{self, At, Upstream};
use super::draft::Draft;
use super::{external_auth, limits, policies};
use crate::features::backend_protocol::Protocol;
use crate::features::canary::Canary;
use crate::features::effects::{Effects, Guard, set_default};
use crate::features::retries::Retries;
use crate::features::snippets::{Branch, Snippets};
use crate::features::timeouts::{DEFAULT_CONNECT, DEFAULT_GAP};
use crate::features::{
    Feature, Policies, Reader, body_size, protective, request_limits, snippets, unsupported,
};
use crate::model::route::MirrorBackend;
use crate::values::{Kind, ObjectKey, Origin};

/// Where ingress-nginx's own defaults come from. One for all, so that Ingresses that ask for nothing have equal effects.
static DEFAULTS: LazyLock<Origin> =
    LazyLock::new(|| Origin::new(&ObjectKey::new(Kind::IngressClass, "", "nginx"), "default"));

type Texts = BTreeMap<String, String>;

/// One Ingress of the host, with what its annotations say.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) key: &'a ObjectKey,
    pub(crate) ingress: &'a Ingress,
    pub(crate) policies: Policies,
    /// What policies do to its routes.
    pub(super) effects: Arc<Effects>,
    /// What snippets do beside that to each kind of request, of which there are several: the first that matches counts.
    pub(super) branches: Vec<Branch>,
    /// The status of the limits in snippets.
    pub(super) limit_status: u16,
    pub(super) mirrors: ThinVec<MirrorBackend>,
    /// Whether a RateLimitPolicy targets it or a part of it, which is asked once for all of its paths.
    pub(super) is_limited: bool,
}

impl<'a> Source<'a> {
    /// One that does nothing but what these policies say by themselves.
    fn new(key: &'a ObjectKey, ingress: &'a Ingress, policies: Policies) -> Self {
        Self {
            key,
            ingress,
            policies,
            effects: Arc::default(),
            branches: Vec::new(),
            limit_status: 0,
            mirrors: ThinVec::new(),
            is_limited: false,
        }
    }

    /// How it has upstreams spoken to, by what [`Protocol::AutoHttp`] comes to.
    pub(super) fn upstream(&self, protocol: Option<Protocol>) -> Upstream {
        let connect_timeout = self.effects.connect_timeout.as_ref();
        Upstream {
            protocol,
            istio: false,
            connect_timeout: connect_timeout.map_or(DEFAULT_CONNECT, |timeout| timeout.value),
        }
    }

    /// Whether it has a default backend and no rules, and so is for what no rule takes.
    pub(super) fn is_catch_all(&self) -> bool {
        self.ingress.spec.as_ref().is_some_and(|spec| {
            let service = spec.default_backend.as_ref().and_then(|backend| backend.service.as_ref());
            service.is_some() && spec.rules.as_ref().is_none_or(Vec::is_empty)
        })
    }
}

/// What the annotations of an Ingress say. `certificate` is what gave the host its certificate.
pub(super) fn source<'a>(
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
    if Canary::is_canary(annotations) {
        let policies = Policies { canary: Canary::read(&mut reader), ..Policies::default() };
        unsupported::check_canary(key, annotations, &mut draft.findings);
        return Source::new(key, ingress, policies);
    }
    let policies = Policies::read(&mut reader);
    let limit_status = request_limits::request_status(&mut reader);
    let unread = reader.refused();
    let answered = policies.auth_url.as_ref().map_or(&[][..], |auth| &auth.question.response_headers);
    let snippets = snippets::read(key, annotations, defaults, answered);
    let refused = refused(draft, key, annotations, defaults, &snippets);

    let mut effects = with_defaults(policies.effects());
    if let Some(redirect) = &policies.ssl_redirect {
        effects.guards.extend(redirect.guards(draft.host, certificate));
    }
    effects.guards.extend(unread.or(refused).map(Guard::unavailable));
    if let Some(auth_url) = &policies.auth_url {
        external_auth::apply(draft, auth_url, &mut effects);
    }
    let mut source =
        Source { branches: snippets.branches, limit_status, ..Source::new(key, ingress, policies) };
    add_limits(draft, &mut source, &mut effects);
    if let (Some(mirror), Some(_)) = (&source.policies.mirror, &effects.path_rewrite) {
        let message = "copies have the path that rewrite-target makes; nginx copies the request's own";
        draft.findings.warning(key, &*mirror.origin.field, "MirrorRewritten", message);
    }
    source.mirrors = resolve_mirrors(draft, &effects);
    source.effects = Arc::new(effects);
    source
}

/// What asks for protection that nothing here gives, with the findings of what else is read otherwise.
fn refused(
    draft: &mut Draft<'_>,
    key: &ObjectKey,
    annotations: Option<&Texts>,
    defaults: Option<(&ObjectKey, &Texts)>,
    snippets: &Snippets,
) -> Option<Origin> {
    for (origin, note) in &snippets.notes {
        draft.findings.info(&origin.object, &*origin.field, "ReadOtherwise", note.as_str());
    }
    let ipv6 = draft.settings.envoy_address.is_ipv6();
    let refused = unsupported::check(key, annotations, ipv6, snippets, &mut draft.findings);
    let inherited = defaults
        .and_then(|config_map| protective::inherit(key, annotations, config_map, ipv6, &mut draft.findings));
    refused.or(inherited)
}

/// The limits of annotations, of snippets that tell no kinds of requests apart, and of RateLimitPolicies.
fn add_limits(draft: &mut Draft<'_>, source: &mut Source<'_>, effects: &mut Effects) {
    if let Some(request_limits) = &source.policies.request_limits {
        limits::of_annotations(draft, source.key, request_limits, effects);
    }
    if let [only] = &source.branches[..] {
        limits::of_branch(draft, only, source.limit_status, effects);
        source.branches.clear();
    }
    source.is_limited = policies::target(draft, source.key);
    if source.is_limited {
        policies::check(draft, source.key, &hosts(source.ingress), &paths(source.ingress));
        policies::apply(draft, source.key, None, effects);
    }
}

/// What ingress-nginx does where nobody says otherwise.
fn with_defaults(mut effects: Effects) -> Effects {
    let default = || DEFAULTS.clone();
    set_default(&mut effects.per_try_idle_timeout, DEFAULT_GAP, default());
    set_default(&mut effects.idle_timeout, DEFAULT_GAP, default());
    set_default(&mut effects.retries, Retries::ingress_nginx(), default());
    set_default(&mut effects.max_request_bytes, body_size::DEFAULT_BYTES, default());
    effects
}

/// The hosts of its rules, as they are written.
fn hosts(ingress: &Ingress) -> Vec<&str> {
    let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    rules.filter_map(|rule| rule.host.as_deref()).collect()
}

/// The paths of its rules, as they are written, and the `/` that it may have without a word.
fn paths(ingress: &Ingress) -> Vec<&str> {
    let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    let paths = rules.flat_map(|rule| rule.http.iter().flat_map(|http| &http.paths));
    paths.filter_map(|path| path.path.as_deref()).chain(["/"]).collect()
}

/// The backends behind mirrors. One that cannot be found is a finding and is left out.
fn resolve_mirrors(draft: &mut Draft<'_>, effects: &Effects) -> ThinVec<MirrorBackend> {
    let mut mirrors = ThinVec::new();
    for (index, mirror) in effects.mirrors.iter().enumerate() {
        let protocol = if mirror.value.tls { Protocol::Https } else { Protocol::Http };
        let upstream = Upstream { protocol: mirror.value.tls.then_some(protocol), ..Upstream::default() };
        let found =
            backend::host(draft, At::mirror(&mirror.origin), &mirror.value.host, mirror.value.port, upstream);
        mirrors.extend(found.map(|backend| MirrorBackend { mirror: index, backend }));
    }
    mirrors
}
