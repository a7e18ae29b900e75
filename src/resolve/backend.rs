//! Services and host names to backends.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::draft::Draft;
use crate::features::backend_protocol::Protocol;
use crate::features::timeouts::DEFAULT_CONNECT;
use crate::model::backend::is_dns_name;
use crate::model::{Backend, EndpointSetKey, Endpoints};
use crate::values::{Kind, ObjectKey, Origin, forbidden, hash, text};

/// An ExternalName that names another ExternalName is followed this far.
const MAX_ALIASES: usize = 4;

/// What a port is, in the words of findings.
pub(crate) const PORT_FORM: &str = "a port number from 1 to 65535";

/// The number of a port; none if it is not one.
pub(crate) fn port_number(number: impl TryInto<u16>) -> Option<u16> {
    number.try_into().ok().filter(|number| *number != 0)
}

/// What becomes of requests to a backend that is not there, in the words of findings.
pub(crate) const UNAVAILABLE: &str = "requests are answered 503";

/// Where a backend is asked for, and what becomes of requests if there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub(crate) origin: &'a Origin,
    /// Where below the origin's field.
    pub(crate) below: &'static str,
    /// A clause for findings.
    pub(crate) otherwise: &'static str,
}

impl<'a> At<'a> {
    /// For a route's own requests.
    pub(crate) fn route(origin: &'a Origin) -> Self {
        Self { origin, below: "", otherwise: UNAVAILABLE }
    }

    /// For copies of requests.
    pub(crate) fn mirror(origin: &'a Origin) -> Self {
        Self { origin, below: "", otherwise: "no copies are made" }
    }

    fn error(self, draft: &mut Draft<'_>, reason: &'static str, problem: impl fmt::Display) {
        let field = format!("{}{}", self.origin.field, self.below);
        let message = format!("{problem}; {}", self.otherwise);
        draft.findings.error(&self.origin.object, field, reason, message);
    }
}

/// How a routing object names a Service's port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Port<'a> {
    /// By number: the Service port's, or its target port's.
    Number(u16),
    /// By number: the Service port's alone, as Istio has it.
    ServiceNumber(u16),
    /// By name: the Service port's, or its target port's.
    Name(&'a str),
    /// Not at all: the only one that the Service has.
    Only,
    /// Not at all: the only one that the Service has, else the first of these numbers that it has.
    Listener([u16; 2]),
}

/// What a routing object says of its upstream connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream {
    /// The protocol; none leaves it to the Service port's `appProtocol`.
    pub(crate) protocol: Option<Protocol>,
    /// Whether Services are read as Istio does: the protocol may be in the port's name (`grpc-web`), and behind an
    /// ExternalName it is `port` that counts, not `targetPort`.
    pub(crate) istio: bool,
    /// Longest time for a connection to be made.
    pub(crate) connect_timeout: Duration,
}

impl Default for Upstream {
    fn default() -> Self {
        Self { protocol: None, istio: false, connect_timeout: DEFAULT_CONNECT }
    }
}

/// The backend of a Service's port, as an index into the host's backends. None, with a finding at `at`, if it cannot
/// serve.
pub(crate) fn service(
    draft: &mut Draft<'_>,
    at: At<'_>,
    namespace: &str,
    name: &str,
    port: Port<'_>,
    upstream: Upstream,
) -> Option<usize> {
    resolve(draft, at, namespace, name, port, upstream, MAX_ALIASES)
}

/// The backend of a host name: a Service's in one of the forms `svc.ns`, `svc.ns.svc`, `svc.ns.svc.DOMAIN`, else DNS.
pub(crate) fn host(
    draft: &mut Draft<'_>,
    at: At<'_>,
    host: &str,
    port: u16,
    upstream: Upstream,
) -> Option<usize> {
    by_host(draft, at, host, Port::Number(port), upstream, MAX_ALIASES)
}

/// A backend that answers 503, for the share of a weighted route whose Service or port does not exist.
pub(crate) fn unavailable(draft: &mut Draft<'_>, namespace: &str, name: &str, upstream: Upstream) -> usize {
    // No Service has a port 0, so that there are never endpoints.
    let key = EndpointSetKey { namespace: namespace.into(), service: name.into(), port: 0 };
    draft.backends.index(backend(Endpoints::Service(key), Protocol::Http, upstream))
}

/// Namespace and name of the Service that a host name means, and whether it can mean nothing else.
pub(crate) fn service_name<'h>(draft: &Draft<'_>, host: &'h str) -> Option<(&'h str, &'h str, bool)> {
    let host = host.trim_end_matches('.');
    let in_domain =
        host.strip_suffix(draft.settings.cluster_domain.as_str()).and_then(|rest| rest.strip_suffix(".svc."));
    let (rest, certain) = match in_domain.or_else(|| host.strip_suffix(".svc")) {
        Some(rest) => (rest, true),
        None => (host, false),
    };
    let (name, namespace) = rest.split_once('.')?;
    (!namespace.contains('.')).then_some((namespace, name, certain))
}

fn by_host(
    draft: &mut Draft<'_>,
    at: At<'_>,
    host: &str,
    port: Port<'_>,
    upstream: Upstream,
    aliases: usize,
) -> Option<usize> {
    if let Some((namespace, name, certain)) = service_name(draft, host)
        && (certain || draft.view.service(namespace, name).is_some())
    {
        return resolve(draft, at, namespace, name, port, upstream, aliases);
    }
    let host = host.trim_end_matches('.');
    if let Some(problem) = forbidden::problem(host) {
        let problem =
            format!("{host:?} {problem}; give a Service's name, a DNS name or an address elsewhere");
        at.error(draft, "ForbiddenHost", problem);
        return None;
    }
    let (Port::Number(number) | Port::ServiceNumber(number), true) = (port, is_dns_name(host)) else {
        let problem = format!("{host:?} is neither a Service's name nor a DNS name with a port number");
        at.error(draft, "InvalidHost", problem);
        return None;
    };
    let endpoints = Endpoints::Dns { host: host.to_ascii_lowercase().into(), port: number };
    Some(draft.backends.index(backend(endpoints, upstream.protocol.unwrap_or_default(), upstream)))
}

fn resolve(
    draft: &mut Draft<'_>,
    at: At<'_>,
    namespace: &str,
    name: &str,
    port: Port<'_>,
    upstream: Upstream,
    aliases: usize,
) -> Option<usize> {
    let Some(service) = draft.view.service(namespace, name) else {
        at.error(draft, "ServiceNotFound", format!("Service {namespace}/{name} does not exist"));
        return None;
    };
    if let Some(target) = external_name(service) {
        if aliases == 0 {
            let problem = format!("Service {namespace}/{name} is an ExternalName of too many others");
            at.error(draft, "ExternalNameLoop", problem);
            return None;
        }
        let port = match find(service, port) {
            // To ingress-nginx it is the `targetPort` where that is a number.
            Some(ServicePort { target_port: Some(IntOrString::Int(target)), .. }) if !upstream.istio => {
                Port::Number(checked_number(draft, at, namespace, name, "targetPort", *target)?)
            }
            Some(found) => Port::Number(checked_number(draft, at, namespace, name, "port", found.port)?),
            None => port,
        };
        return by_host(draft, at, target, port, upstream, aliases - 1);
    }
    let Some(found) = find(service, port) else {
        at.error(draft, "PortNotFound", port_problem(namespace, name, service, port));
        return None;
    };
    let number = checked_number(draft, at, namespace, name, "port", found.port)?;
    let key = EndpointSetKey { namespace: namespace.into(), service: name.into(), port: number };
    let by_name = || upstream.istio.then(|| protocol_of_name(found.name.as_deref()?)).flatten();
    let protocol = upstream
        .protocol
        .or_else(|| Protocol::from_app_protocol(found.app_protocol.as_deref()?))
        .or_else(by_name)
        .unwrap_or_default();
    Some(draft.backends.index(backend(Endpoints::Service(key), protocol, upstream)))
}

/// Whether a backend has somewhere to send requests. DNS names count as having.
pub(crate) fn has_endpoints(draft: &Draft<'_>, index: usize) -> bool {
    match &draft.backends.get(index).endpoints {
        Endpoints::Service(key) => draft.view.has_endpoints(&ObjectKey::new(
            Kind::Service,
            key.namespace.clone(),
            key.service.clone(),
        )),
        Endpoints::Dns { .. } => true,
    }
}

fn backend(endpoints: Endpoints, protocol: Protocol, upstream: Upstream) -> Backend {
    let settings = hash::stable(&(&endpoints, protocol, upstream.connect_timeout));
    let name = match &endpoints {
        Endpoints::Service(key) => text::of(format_args!("{key}~{settings:016x}")),
        Endpoints::Dns { host, port } => text::of(format_args!("{host}:{port}~{settings:016x}")),
    };
    Backend { name: name.into(), endpoints, protocol, connect_timeout: upstream.connect_timeout }
}

fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") { spec.external_name.as_deref() } else { None }
}

fn find<'s>(service: &'s Service, wanted: Port<'_>) -> Option<&'s ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_deref().unwrap_or_default();
    let numbered = |wanted: u16| ports.iter().find(|port| port.port == i32::from(wanted));
    match (wanted, ports) {
        (Port::Only | Port::Listener(_), [only]) => Some(only),
        (Port::Only, _) => None,
        (Port::Listener(numbers), _) => numbers.into_iter().find_map(numbered),
        (Port::Number(wanted), _) => numbered(wanted)
            .or_else(|| ports.iter().find(|port| port.target_port == Some(IntOrString::Int(wanted.into())))),
        (Port::ServiceNumber(wanted), _) => numbered(wanted),
        (Port::Name(wanted), _) => {
            ports.iter().find(|port| port.name.as_deref() == Some(wanted)).or_else(|| {
                ports.iter().find(
                    |port| matches!(&port.target_port, Some(IntOrString::String(name)) if name == wanted),
                )
            })
        }
    }
}

fn port_problem(namespace: &str, name: &str, service: &Service, wanted: Port<'_>) -> String {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let have: Vec<_> = ports
        .map(|port| match &port.name {
            Some(name) => format!("{} ({name})", port.port),
            None => port.port.to_string(),
        })
        .collect();
    let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
    let wanted = match wanted {
        Port::Number(number) | Port::ServiceNumber(number) => format!("no port {number}"),
        Port::Name(name) => format!("no port named {name:?}"),
        Port::Only => "several ports and none is chosen".to_owned(),
        Port::Listener([port, _]) => {
            format!("several ports, none is chosen and none is the listener's, {port}")
        }
    };
    format!("Service {namespace}/{name} has {wanted} (it has {have})")
}

/// Istio's protocol selection by port name: `name: <protocol>[-<suffix>]`.
fn protocol_of_name(name: &str) -> Option<Protocol> {
    match name.split('-').next() {
        Some("grpc" | "http2") => Some(Protocol::Grpc),
        _ => None,
    }
}

/// The number of a Service's port. None, with a finding, if it is not one; an API server lets no such Service in.
fn checked_number(
    draft: &mut Draft<'_>,
    at: At<'_>,
    namespace: &str,
    name: &str,
    field: &str,
    number: i32,
) -> Option<u16> {
    let checked = port_number(number);
    if checked.is_none() {
        let problem = format!("Service {namespace}/{name} has {field} {number}, which is not {PORT_FORM}");
        at.error(draft, "InvalidPort", problem);
    }
    checked
}
