//! Annotations that are known and have no effect yet, and those that nobody knows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{ANNOTATIONS, PREFIX};
use crate::values::{Findings, ObjectKey};

/// Annotations of ingress-nginx that have no effect yet.
pub const NAMES: &[&str] = &[
    "affinity",
    "affinity-canary-behavior",
    "affinity-mode",
    "allowlist-source-range",
    "app-root",
    "auth-always-set-cookie",
    "auth-cache-duration",
    "auth-cache-key",
    "auth-keepalive",
    "auth-keepalive-requests",
    "auth-keepalive-share-vars",
    "auth-keepalive-timeout",
    "auth-method",
    "auth-proxy-set-headers",
    "auth-realm",
    "auth-request-redirect",
    "auth-response-headers",
    "auth-secret",
    "auth-secret-type",
    "auth-signin",
    "auth-signin-redirect-param",
    "auth-snippet",
    "auth-tls-error-page",
    "auth-tls-match-cn",
    "auth-tls-pass-certificate-to-upstream",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "auth-tls-verify-depth",
    "auth-type",
    "auth-url",
    "client-body-buffer-size",
    "configuration-snippet",
    "connection-proxy-header",
    "cors-allow-credentials",
    "cors-allow-headers",
    "cors-allow-methods",
    "cors-allow-origin",
    "cors-expose-headers",
    "cors-max-age",
    "custom-headers",
    "custom-http-errors",
    "default-backend",
    "denylist-source-range",
    "disable-proxy-intercept-errors",
    "enable-access-log",
    "enable-cors",
    "enable-global-auth",
    "enable-modsecurity",
    "enable-opentelemetry",
    "enable-owasp-core-rules",
    "enable-rewrite-log",
    "fastcgi-index",
    "fastcgi-params-configmap",
    "from-to-www-redirect",
    "http2-push-preload",
    "limit-allowlist",
    "limit-connections",
    "limit-rate",
    "limit-rate-after",
    "limit-whitelist",
    "load-balance",
    "mirror-host",
    "mirror-request-body",
    "modsecurity-snippet",
    "modsecurity-transaction-id",
    "opentelemetry-operation-name",
    "opentelemetry-trust-incoming-span",
    "permanent-redirect",
    "permanent-redirect-code",
    "preserve-trailing-slash",
    "proxy-buffer-size",
    "proxy-buffering",
    "proxy-buffers-number",
    "proxy-busy-buffers-size",
    "proxy-cookie-domain",
    "proxy-cookie-path",
    "proxy-http-version",
    "proxy-max-temp-file-size",
    "proxy-next-upstream",
    "proxy-next-upstream-timeout",
    "proxy-next-upstream-tries",
    "proxy-redirect-from",
    "proxy-redirect-to",
    "proxy-request-buffering",
    "proxy-ssl-ciphers",
    "proxy-ssl-name",
    "proxy-ssl-protocols",
    "proxy-ssl-secret",
    "proxy-ssl-server-name",
    "proxy-ssl-verify",
    "proxy-ssl-verify-depth",
    "relative-redirects",
    "satisfy",
    "server-alias",
    "server-snippet",
    "service-upstream",
    "session-cookie-change-on-failure",
    "session-cookie-conditional-samesite-none",
    "session-cookie-domain",
    "session-cookie-expires",
    "session-cookie-max-age",
    "session-cookie-name",
    "session-cookie-path",
    "session-cookie-samesite",
    "session-cookie-secure",
    "ssl-ciphers",
    "ssl-passthrough",
    "ssl-prefer-server-ciphers",
    "stream-snippet",
    "temporal-redirect",
    "temporal-redirect-code",
    "upstream-hash-by",
    "upstream-hash-by-subset",
    "upstream-hash-by-subset-size",
    "use-port-in-redirects",
    "whitelist-source-range",
    "x-forwarded-prefix",
];

/// Annotations that keep somebody out. Without their effect the route would be open, so it answers 503 instead, as
/// ingress-nginx does for a location whose protection is broken.
const PROTECTIVE: &[&str] = &[
    "allowlist-source-range",
    "auth-tls-secret",
    "auth-type",
    "auth-url",
    "denylist-source-range",
    "whitelist-source-range",
];

/// Lists of the addresses that are let in.
const ALLOWLISTS: &[&str] = &["allowlist-source-range", "whitelist-source-range"];

/// Whether a list lets every client in, as that of cert-manager's HTTP-01 solver does, so that nothing is left to do.
fn is_everyone(list: &str, ipv6: bool) -> bool {
    let network = |text: &str| {
        let (address, bits) = text.trim().split_once('/')?;
        Some((address.parse::<IpAddr>().ok()?, bits == "0"))
    };
    let Some(networks) = list.split(',').map(network).collect::<Option<Vec<_>>>() else { return false };
    let whole = |v6| networks.iter().any(|(address, all)| *all && address.is_ipv6() == v6);
    whole(false) && (!ipv6 || whole(true))
}

/// Says which annotations have no effect. Answers the one, if any, without whose effect the routes must not be served.
/// `ipv6` says whether clients may come by IPv6.
pub fn check(
    object: &ObjectKey,
    annotations: Option<&BTreeMap<String, String>>,
    ipv6: bool,
    findings: &mut Findings,
) -> Option<String> {
    let mut refused = None;
    for (key, value) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        if supported().any(|known| known == name) || (ALLOWLISTS.contains(&name) && is_everyone(value, ipv6))
        {
            continue;
        }
        if PROTECTIVE.contains(&name) {
            findings.error(
                object,
                key,
                "NotSupported",
                "is not supported yet; the routes of this object answer 503, since they would be open without it",
            );
            refused.get_or_insert_with(|| key.clone());
        } else if NAMES.contains(&name) {
            findings.warning(object, key, "NotSupported", "is not supported yet and has no effect");
        } else {
            let message = match nearest(name) {
                Some(near) => {
                    format!("is unknown and has no effect; the nearest known one is {PREFIX}{near}")
                }
                None => "is unknown and has no effect".to_owned(),
            };
            findings.warning(object, key, "UnknownAnnotation", message);
        }
    }
    refused
}

fn supported() -> impl Iterator<Item = &'static str> {
    ANNOTATIONS.iter().flat_map(|feature| feature.iter()).map(|annotation| annotation.name)
}

fn nearest(name: &str) -> Option<&'static str> {
    let distance = |known: &str| strsim::damerau_levenshtein(name, known);
    let near = supported().chain(NAMES.iter().copied()).min_by_key(|known| (distance(known), *known))?;
    (distance(near) <= 3.max(name.len() / 3)).then_some(near)
}

/// Says which keys of the ingress-nginx ConfigMap have no effect.
pub fn check_config_map(
    object: &ObjectKey,
    data: Option<&BTreeMap<String, String>>,
    findings: &mut Findings,
) {
    let supported = || {
        ANNOTATIONS.iter().flat_map(|feature| feature.iter()).filter_map(|annotation| annotation.config_map)
    };
    for key in data.into_iter().flatten().map(|(key, _)| key) {
        if !supported().any(|known| known == key) {
            let message = "has no effect here (yet); the keys that have one are in docs/annotations.md";
            findings.warning(object, format!("data.{key}"), "NotSupported", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_everyone() {
        for (list, ipv6, everyone) in [
            ("0.0.0.0/0,::/0", true, true),
            ("::/0 , 0.0.0.0/0", true, true),
            ("0.0.0.0/0", false, true),
            ("10.0.0.0/8,0.0.0.0/0", false, true),
            ("0.0.0.0/0", true, false),
            ("::/0", true, false),
            ("0.0.0.0/1,::/0", true, false),
            ("0.0.0.0/0,::/0,somewhere", true, false),
            ("0.0.0.0", false, false),
            ("", false, false),
        ] {
            assert_eq!(is_everyone(list, ipv6), everyone, "{list:?} {ipv6}");
        }
    }
}
