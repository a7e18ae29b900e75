//! `route` and `mirror`: destinations to backends.

use thin_vec::ThinVec;

use crate::crd::virtual_service::{Destination as Wanted, HttpRoute, HttpRouteDestination};
use crate::features::effects::{Effects, HeaderOperation, Listeners, MirrorTarget, Setting, set};
use crate::features::headers::{self, Changes};
use crate::features::mirror::Copies;
use crate::features::{Field, timeouts};
use crate::model::route::MirrorBackend;
use crate::model::{Destination, Endpoints};
use crate::resolve::backend::{self, At, PORT_FORM, Port, Upstream, port_number};
use crate::resolve::draft::Draft;
use crate::values::{ObjectKey, Origin, host};

/// How Istio makes upstream connections.
const UPSTREAM: Upstream = Upstream { protocol: None, istio: true, connect_timeout: timeouts::ISTIO_CONNECT };

/// The shares of a rule. None, with a finding, if no request of it can be served.
///
/// One destination takes all, whatever its weight, and its headers come after the rule's. Of several, those of weight
/// 0 are left out; a share whose Service does not exist is answered 503.
pub(super) fn destinations(
    draft: &mut Draft<'_>,
    key: &ObjectKey,
    path: &str,
    rule: &HttpRoute,
    listeners: Listeners,
    effects: &mut Effects,
) -> Option<Vec<Destination>> {
    if let [only] = &rule.route[..] {
        return single(draft, key, path, only, listeners, effects).map(|only| vec![only]);
    }
    let weights = weights(&rule.route, &mut Field::new(key, path, &mut draft.findings))?;
    let mut shares = Vec::with_capacity(rule.route.len());
    let mut serving = false;
    for (index, (wanted, weight)) in rule.route.iter().zip(weights).enumerate() {
        if weight == 0 {
            continue;
        }
        let path = format!("{path}.route[{index}]");
        let at = Origin::new(key, format!("{path}.destination"));
        let found = find(draft, At::route(&at), &wanted.destination, listeners);
        serving |= found.is_some();
        let backend = found.unwrap_or_else(|| unavailable(draft, key, &wanted.destination));
        let mut share = Destination::weighted(backend, weight);
        let changes = changes(draft, key, &path, wanted, effects);
        share.request_headers = changes.request.into();
        share.response_headers = changes.response.into();
        let host = changes.authority.map(|host| HeaderOperation::Set(":authority".to_owned(), host.value));
        share.request_headers.extend(host);
        shares.push(share);
    }
    serving.then_some(shares)
}

fn single(
    draft: &mut Draft<'_>,
    key: &ObjectKey,
    path: &str,
    only: &HttpRouteDestination,
    listeners: Listeners,
    effects: &mut Effects,
) -> Option<Destination> {
    let path = format!("{path}.route[0]");
    if only.weight.is_some_and(|weight| weight < 0) {
        let message = "is negative; it has no effect, since one destination takes all requests";
        draft.findings.warning(key, format!("{path}.weight"), "InvalidWeight", message);
    }
    let changes = changes(draft, key, &path, only, effects);
    effects.request_headers.extend(changes.request);
    effects.response_headers.extend(changes.response);
    if let Some(host) = changes.authority {
        set(&mut effects.host_rewrite, host.value, host.origin);
    }
    let at = Origin::new(key, format!("{path}.destination"));
    find(draft, At::route(&at), &only.destination, listeners).map(Destination::only)
}

/// What a destination's headers change, beside what the rule does.
fn changes(
    draft: &mut Draft<'_>,
    key: &ObjectKey,
    path: &str,
    of: &HttpRouteDestination,
    rule: &Effects,
) -> Changes {
    let mut field = Field::new(key, format!("{path}.headers"), &mut draft.findings);
    let Some(headers) = &of.headers else { return Changes::default() };
    let mut changes = headers::changes(headers, &mut field);
    changes.authority = headers::authority_unless(changes.authority, &rule.host_rewrite, &mut field);
    changes
}

/// The weights of several destinations. None, with a finding, if they make no shares.
fn weights(route: &[HttpRouteDestination], field: &mut Field<'_>) -> Option<Vec<u32>> {
    let mut weights = Vec::with_capacity(route.len());
    for (index, destination) in route.iter().enumerate() {
        let weight = destination.weight.unwrap_or_default();
        // Envoy bounds the sum, Istio each weight.
        match u32::try_from(weight).ok().filter(|weight| i32::try_from(*weight).is_ok()) {
            Some(weight) => weights.push(weight),
            None => {
                let message =
                    format!("{weight} is not a weight from 0; requests of the rule are answered 503");
                field.child("route").item(index).child("weight").error("InvalidWeight", message);
                return None;
            }
        }
    }
    match weights.iter().map(|weight| u64::from(*weight)).sum::<u64>() {
        0 => {
            let message = "several destinations need weights above 0; requests of the rule are answered 503";
            field.child("route").error("InvalidWeight", message);
            None
        }
        sum if sum > u64::from(u32::MAX) => {
            field.child("route").error(
                "InvalidWeight",
                "the sum of weights is too large; requests of the rule are answered 503",
            );
            None
        }
        _ => Some(weights),
    }
}

/// The backends of mirrors, and what the effects say of them. One that cannot be found is a finding and is left out.
pub(super) fn mirrors(
    draft: &mut Draft<'_>,
    key: &ObjectKey,
    copies: &[Copies<'_>],
    listeners: Listeners,
    effects: &mut Effects,
) -> ThinVec<MirrorBackend> {
    let mut mirrors = ThinVec::new();
    for copy in copies {
        let Some(backend) = find(draft, At::mirror(&copy.origin), copy.destination, listeners) else {
            continue;
        };
        let port = match &draft.backends.get(backend).endpoints {
            Endpoints::Service(key) => key.port,
            Endpoints::Dns { port, .. } => *port,
        };
        let value = MirrorTarget {
            host: full_name(draft, key, &copy.destination.host),
            port,
            tls: false,
            host_rewrite: None,
            millionths: copy.millionths,
        };
        let mirror = Setting { value, origin: copy.origin.clone() };
        // Another listener's routes may have it already.
        let index = effects.mirrors.iter().position(|other| *other == mirror).unwrap_or_else(|| {
            effects.mirrors.push(mirror);
            effects.mirrors.len() - 1
        });
        mirrors.push(MirrorBackend { mirror: index, backend });
    }
    mirrors
}

fn full_name(draft: &Draft<'_>, key: &ObjectKey, host: &str) -> String {
    host::full_name(host, &key.namespace, &draft.settings.cluster_domain).into_owned()
}

/// Whether a destination's backend depends on the listener by which a request comes.
pub(super) fn by_listener(rule: &HttpRoute) -> bool {
    let routes = rule.route.iter().map(|route| &route.destination);
    let mirrors = rule.mirrors.iter().flatten().map(|mirror| &mirror.destination);
    routes.chain(mirrors).chain(&rule.mirror).any(|destination| destination.port.is_none())
}

/// The port that a destination means without naming one: that of the Gateway's server, which is not read, so the one
/// for the listener's scheme, or the listener's own.
fn listener_port(draft: &Draft<'_>, listeners: Listeners) -> Port<'static> {
    match listeners {
        Listeners::All => Port::Only,
        Listeners::Http => Port::Listener([80, draft.settings.http_port]),
        Listeners::Https => Port::Listener([443, draft.settings.https_port]),
    }
}

/// The backend of a destination on these listeners. None, with a finding, if there is no such Service or port.
fn find(draft: &mut Draft<'_>, at: At<'_>, wanted: &Wanted, listeners: Listeners) -> Option<usize> {
    let At { origin, otherwise, .. } = at;
    let mut field = Field::new(&origin.object, &*origin.field, &mut draft.findings);
    if wanted.subset.as_ref().is_some_and(|subset| !subset.is_empty()) {
        let message = "subsets are not supported yet; requests go to the whole Service";
        field.child("subset").warning("NotSupported", message);
    }
    let port = match &wanted.port {
        None => listener_port(draft, listeners),
        Some(port) => match port_number(port.number) {
            Some(number) => Port::ServiceNumber(number),
            None => {
                let message = format!("{} is not {PORT_FORM}; {otherwise}", port.number);
                field.child("port.number").error("InvalidPort", message);
                return None;
            }
        },
    };
    let host = full_name(draft, &origin.object, &wanted.host);
    let Some((namespace, name, _)) = backend::service_name(draft, &host) else {
        let message = format!(
            "{host:?} names no Service of the cluster; {otherwise} (a Service of type ExternalName reaches other \
             hosts)"
        );
        draft.findings.warning(&origin.object, format!("{}.host", origin.field), "ServiceNotFound", message);
        return None;
    };
    backend::service(draft, at, namespace, name, port, UPSTREAM)
}

/// What stands for a destination that [`find`] has not found.
fn unavailable(draft: &mut Draft<'_>, key: &ObjectKey, wanted: &Wanted) -> usize {
    let host = full_name(draft, key, &wanted.host);
    let (namespace, name) = match backend::service_name(draft, &host) {
        Some((namespace, name, _)) => (namespace, name),
        None => (&*key.namespace, "unknown"),
    };
    backend::unavailable(draft, namespace, name, UPSTREAM)
}
