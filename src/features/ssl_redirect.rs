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
        let redirect = |path| Redirect {
            scheme: Some("https".to_owned()),
            host: (!host.is_wildcard()).then(|| host.as_str().to_owned()),
            path,
            status: 308,
            ..Redirect::default()
        };
        let guard = |when: Vec<HeaderMatch>, path| Guard {
            phase: Phase::Redirect,
            listeners: Listeners::Http,
            when,
            answer: Answer::Redirect(Box::new(redirect(path))),
            origin: origin.clone(),
        };
        let not_acme = HeaderMatch::new(":path", TextMatch::Prefix(ACME_CHALLENGE.to_owned())).inverted();
        let slash_last = HeaderMatch::new(":path", TextMatch::Regex("[^?]*/".to_owned()));
        let mut guards = vec![
            guard(vec![not_acme.clone(), slash_last], RedirectPath::WithoutTrailingSlash),
            guard(vec![not_acme], RedirectPath::Keep),
        ];
        if !host.is_wildcard() {
            guards.insert(0, guard(vec![HeaderMatch::exact(":path", "/")], RedirectPath::Nothing));
        }
        guards
    }
}
