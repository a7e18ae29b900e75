//! `ssl-redirect` and `force-ssl-redirect`: plain http is answered 308 with the https location.

use serde::Serialize;

use super::effects::{Answer, Guard, Listeners, Phase, Redirect, RedirectPath};
use super::{Annotation, Feature, Reader};
use crate::values::matching::{HeaderMatch, TextMatch};
use crate::values::{HostName, Origin};

const SSL_REDIRECT: Annotation = Annotation {
    name: "ssl-redirect",
    value: "\"true\" or \"false\"",
    default: "true",
    example: "false",
    text: "Redirects http to https (308) where the host has a certificate.",
    config_map: Some("ssl-redirect"),
};
const FORCE_SSL_REDIRECT: Annotation = Annotation {
    name: "force-ssl-redirect",
    value: "\"true\" or \"false\"",
    default: "false",
    example: "true",
    text: "Redirects http to https (308) even where the host has no certificate.",
    config_map: Some("force-ssl-redirect"),
};

/// What cert-manager's HTTP-01 solver answers on must stay reachable (ingress-nginx's `no-tls-redirect-locations`).
const ACME_CHALLENGE: &str = "/.well-known/acme-challenge";

/// Whether plain http is redirected.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct SslRedirect {
    /// `ssl-redirect`, on unless switched off; its origin if it was given.
    pub with_certificate: (bool, Option<Origin>),
    /// `force-ssl-redirect`, where it is on.
    pub always: Option<Origin>,
}

impl Feature for SslRedirect {
    const ANNOTATIONS: &'static [Annotation] = &[SSL_REDIRECT, FORCE_SSL_REDIRECT];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let with_certificate =
            reader.boolean(&SSL_REDIRECT).map_or((true, None), |(on, origin)| (on, Some(origin)));
        let always = reader.boolean(&FORCE_SSL_REDIRECT).filter(|(on, _)| *on).map(|(_, origin)| origin);
        Some(Self { with_certificate, always })
    }
}

impl SslRedirect {
    /// The guards of a host's routes; `certificate` is what gave the host its certificate. A hostless rule is
    /// redirected only by force.
    pub fn guards(&self, host: &HostName, certificate: Option<&Origin>) -> Vec<Guard> {
        let origin = match (&self.always, &self.with_certificate, certificate) {
            (Some(origin), _, _) => origin,
            (None, (true, given), Some(certificate)) if !host.is_any() => {
                given.as_ref().unwrap_or(certificate)
            }
            _ => return Vec::new(),
        };
        let redirect = |path, without_port| Redirect {
            scheme: Some("https".to_owned()),
            host: (!host.is_wildcard()).then(|| host.as_str().to_owned()),
            without_port,
            path,
            status: 308,
            ..Redirect::default()
        };
        let guard = |when: Vec<HeaderMatch>, path, without_port| Guard {
            phase: Phase::Redirect,
            listeners: Listeners::Http,
            when,
            answer: Answer::Redirect(Box::new(redirect(path, without_port))),
            origin: origin.clone(),
        };
        let not_acme = HeaderMatch::new(":path", TextMatch::Prefix(ACME_CHALLENGE.to_owned())).inverted();
        // ingress-nginx cuts the slash off the whole request URI. Envoy rewrites no query in a redirect, so that of
        // `/login?next=/` stays.
        let slash_last = HeaderMatch::new(":path", TextMatch::Regex("[^?]*/".to_owned()));
        let root = HeaderMatch::exact(":path", "/");
        let mut guards = vec![guard(vec![root], RedirectPath::Nothing, host.is_wildcard())];
        if host.is_wildcard() {
            // What cannot be told in the same breath is a slash at the end of the path, which stays.
            let port = HeaderMatch::new(":authority", TextMatch::Regex(".*:[0-9]*".to_owned()));
            guards.push(guard(vec![not_acme.clone(), port], RedirectPath::Keep, true));
        }
        let no_slash = RedirectPath::WithoutTrailingSlash;
        guards.push(guard(vec![not_acme.clone(), slash_last], no_slash, false));
        guards.push(guard(vec![not_acme], RedirectPath::Keep, false));
        guards
    }
}
