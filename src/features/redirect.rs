//! VirtualService's `redirect`.

use std::net::Ipv6Addr;

use super::Field;
use super::effects::{Answer, Listeners, Redirect, RedirectPath};
use crate::crd::virtual_service::HttpRedirect;
use crate::values::HostName;

/// The answers of a redirect, for each listener where they differ. None, with a finding, if it cannot be honoured:
/// Istio refuses such an object as a whole.
pub fn from_redirect(
    redirect: &HttpRedirect,
    field: &mut Field<'_>,
    ports: (u16, u16),
) -> Option<Vec<(Listeners, Answer)>> {
    let status = match redirect.redirect_code {
        None | Some(0) => 301,
        Some(code @ (301 | 302 | 303 | 307 | 308)) => code as u16,
        Some(code) => {
            let message = format!("{code} is not 301, 302, 303, 307 or 308; the rule is left out");
            field.child("redirectCode").error("InvalidRedirect", message);
            return None;
        }
    };
    let scheme = match redirect.scheme.as_deref().filter(|scheme| !scheme.is_empty()) {
        None => None,
        Some(scheme @ ("http" | "https")) => Some(scheme),
        Some(scheme) => {
            let message = format!("{scheme:?} is neither http nor https; the rule is left out");
            field.child("scheme").error("InvalidRedirect", message);
            return None;
        }
    };
    let port = port(redirect, field)?;
    let host = authority(redirect, field)?;
    let path = field.child("uri").header_text(redirect.uri.as_ref());
    if host.is_none() && path.is_none() && scheme.is_none() && port == Port::Keep {
        field.error("InvalidRedirect", "changes nothing; the rule is left out");
        return None;
    }
    let on = |own_scheme: &str, own_port| {
        let wanted = match port {
            Port::Keep => None,
            Port::Listener => Some(own_port),
            Port::Number(number) => Some(number),
        };
        let implied = match scheme.unwrap_or(own_scheme) {
            "https" => 443,
            _ => 80,
        };
        Answer::Redirect(Box::new(Redirect {
            scheme: scheme.map(str::to_owned),
            host: host.clone(),
            port: wanted.filter(|port| *port != implied),
            path: path.clone().map_or(RedirectPath::Keep, RedirectPath::Whole),
            without_port: false,
            status,
        }))
    };
    let (http, https) = (on("http", ports.0), on("https", ports.1));
    Some(if http == https {
        vec![(Listeners::All, http)]
    } else {
        vec![(Listeners::Http, http), (Listeners::Https, https)]
    })
}

/// The host of the location. The outer none is one that no location can have.
fn authority(redirect: &HttpRedirect, field: &mut Field<'_>) -> Option<Option<String>> {
    let Some(authority) = redirect.authority.as_ref().filter(|authority| !authority.is_empty()) else {
        return Some(None);
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority.as_str(), "80"),
    };
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match ipv6 {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => HostName::parse(host.strip_suffix('.').unwrap_or(host)).is_ok_and(|host| !host.is_wildcard()),
    };
    if is_host && port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Some(Some(authority.clone()));
    }
    let message = format!("{authority:?} is not a host with a port if need be; the rule is left out");
    field.child("authority").error("InvalidRedirect", message);
    None
}

/// The port of the location.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Port {
    /// The request's own, unless the scheme changes.
    Keep,
    /// The listener's.
    Listener,
    /// This one.
    Number(u16),
}

fn port(redirect: &HttpRedirect, field: &mut Field<'_>) -> Option<Port> {
    let number = match redirect.port.map(u16::try_from) {
        None | Some(Ok(0)) => None,
        Some(Ok(number)) => Some(Port::Number(number)),
        Some(Err(_)) => {
            field.child("port").error("InvalidRedirect", "is not a port; the rule is left out");
            return None;
        }
    };
    let derived = match redirect.derive_port.as_deref() {
        None | Some("FROM_PROTOCOL_DEFAULT") => Port::Keep,
        Some("FROM_REQUEST_PORT") => Port::Listener,
        Some(other) => {
            let message = format!(
                "{other:?} is neither FROM_PROTOCOL_DEFAULT nor FROM_REQUEST_PORT; the rule is left out"
            );
            field.child("derivePort").error("InvalidRedirect", message);
            return None;
        }
    };
    if number.is_some() && redirect.derive_port.is_some() {
        field.child("derivePort").error("InvalidRedirect", "has no effect beside port; give one of them");
    }
    Some(number.unwrap_or(derived))
}
