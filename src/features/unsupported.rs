//! Annotations that are known and have no effect yet, and those that nobody knows.

use std::collections::BTreeMap;

use super::canary::Canary;
use super::snippets::Snippets;
use super::{ANNOTATIONS, Feature as _, PREFIX, protective, request_limits, snippets};
use crate::values::{Findings, ObjectKey, Origin};

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
    "auth-proxy-set-headers",
    "auth-realm",
    "auth-request-redirect",
    "auth-secret",
    "auth-secret-type",
    "auth-snippet",
    "auth-tls-error-page",
    "auth-tls-match-cn",
    "auth-tls-pass-certificate-to-upstream",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "auth-tls-verify-depth",
    "auth-type",
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
    "limit-rate",
    "limit-rate-after",
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

/// Annotations that ingress-nginx also reads of a canary.
const OF_CANARIES: &[&str] =
    &["affinity-canary-behavior", "load-balance", "service-upstream", "upstream-hash-by"];

/// Says which annotations have no effect. Answers the one, if any, without whose effect the routes must not be served.
/// `ipv6` says whether clients may come by IPv6, `snippets` what is read of snippets.
pub fn check(
    object: &ObjectKey,
    annotations: Option<&BTreeMap<String, String>>,
    ipv6: bool,
    snippets: &Snippets,
    findings: &mut Findings,
) -> Option<Origin> {
    let mut refused = None;
    let asks = ours(annotations).any(|(_, name, _)| name == "auth-url");
    for (key, name, value) in ours(annotations) {
        let idle = protective::is_idle(name, value, ipv6) || snippets.acts(name);
        if idle || supported().any(|known| known == name) {
            continue;
        }
        let unread = snippets.unread.get(name).map(|problem| format!(": {problem}")).unwrap_or_default();
        if protective::annotation(name, value, ipv6) || asks && protective::beside_auth_url(name) {
            let message = format!("is not supported yet{unread}; {}", protective::REFUSED);
            findings.error(object, key, "NotSupported", message);
            refused.get_or_insert_with(|| Origin::new(object, key));
        } else if unread.is_empty() {
            without_effect(object, key, name, findings);
        } else {
            let message = format!("is not supported yet and has no effect{unread}");
            findings.warning(object, key, "NotSupported", message);
        }
    }
    refused
}

/// Says which annotations of a canary have no effect: nearly all but its own, since its main Ingress's act.
pub fn check_canary(
    object: &ObjectKey,
    annotations: Option<&BTreeMap<String, String>>,
    findings: &mut Findings,
) {
    let mut ignored = Vec::new();
    for (key, name, _) in ours(annotations) {
        if Canary::ANNOTATIONS.iter().any(|annotation| annotation.name == name) {
            continue;
        }
        let known = supported().chain(NAMES.iter().copied()).any(|known| known == name);
        if known && !OF_CANARIES.contains(&name) {
            ignored.push(name);
        } else {
            without_effect(object, key, name, findings);
        }
    }
    if !ignored.is_empty() {
        let message = format!(
            "what the main Ingress says acts on a canary, so these have no effect: {}",
            ignored.join(", ")
        );
        findings.warning(object, "metadata.annotations", "IgnoredOnCanary", message);
    }
}

/// The annotations with our prefix: their keys, what stands behind the prefix, and their values.
fn ours(annotations: Option<&BTreeMap<String, String>>) -> impl Iterator<Item = (&str, &str, &str)> {
    let annotations = annotations.into_iter().flatten();
    annotations.filter_map(|(key, value)| Some((key.as_str(), key.strip_prefix(PREFIX)?, value.as_str())))
}

/// Says that an annotation is not supported, or that nobody knows it.
fn without_effect(object: &ObjectKey, key: &str, name: &str, findings: &mut Findings) {
    if NAMES.contains(&name) {
        findings.warning(object, key, "NotSupported", "is not supported yet and has no effect");
        return;
    }
    let message = match nearest(name) {
        Some(near) => format!("is unknown and has no effect; the nearest known one is {PREFIX}{near}"),
        None => "is unknown and has no effect".to_owned(),
    };
    findings.warning(object, key, "UnknownAnnotation", message);
}

fn supported() -> impl Iterator<Item = &'static str> {
    ANNOTATIONS.iter().flat_map(|feature| feature.iter()).map(|annotation| annotation.name)
}

fn nearest(name: &str) -> Option<&'static str> {
    let distance = |known: &str| strsim::damerau_levenshtein(name, known);
    let near = supported().chain(NAMES.iter().copied()).min_by_key(|known| (distance(known), *known))?;
    (distance(near) <= 3.max(name.len() / 3)).then_some(near)
}

/// Says which keys of the ingress-nginx ConfigMap have no effect. `ipv6` says whether clients may come by IPv6.
pub fn check_config_map(
    object: &ObjectKey,
    data: Option<&BTreeMap<String, String>>,
    ipv6: bool,
    findings: &mut Findings,
) {
    let supported = || {
        let annotations = ANNOTATIONS.iter().flat_map(|feature| feature.iter());
        annotations
            .filter_map(|annotation| annotation.config_map)
            .chain(request_limits::STATUS_KEYS)
            .chain([snippets::KEY])
    };
    for (key, value) in data.into_iter().flatten() {
        let unread = if key == snippets::KEY { snippets::check(value).err() } else { None };
        if protective::key(key, value, ipv6) {
            let message = "is not supported yet; Ingresses answer 503, since they would be open without it";
            findings.error(object, format!("data.{key}"), "NotSupported", message);
        } else if let Some(problem) = unread {
            let message = format!("is not supported yet and has no effect: {problem}");
            findings.warning(object, format!("data.{key}"), "NotSupported", message);
        } else if !supported().any(|known| known == key) {
            let message = "has no effect here (yet); the keys that have one are in docs/annotations.md";
            findings.warning(object, format!("data.{key}"), "NotSupported", message);
        }
    }
}
