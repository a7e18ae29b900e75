//! What keeps somebody out. Where that is not supported or cannot be read, routes answer 503: without it they would be open.
//!
//! ingress-nginx does the same to a location whose protection is broken. An Ingress whose limit is malformed it discards
//! as a whole, so that a new one has no routes at all. What only tunes has no effect instead, and is a finding.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{PREFIX, snippets};
use crate::values::{Findings, ObjectKey, Origin, boolean};

/// What findings say of it.
pub const REFUSED: &str = "the routes of this object answer 503, since they would be open without it";

/// Annotations that are supported, and refuse all requests where their value is not of the accepted form.
pub const MUST_BE_READ: &[&str] = &[
    "auth-method",
    "auth-response-headers",
    "auth-url",
    "limit-connections",
    "limit-rpm",
    "limit-rps",
    "rate-limit",
];

/// Annotations that are not supported, and say what the service of `auth-url` is told: it may let in whom it would not.
const TOLD_TO_AUTH: &[&str] = &["auth-proxy-set-headers", "auth-snippet"];

/// Annotations, and keys of the ConfigMap, that hold addresses to let in. An empty list lets everybody in.
const ALLOWLISTS: &[&str] = &["allowlist-source-range", "whitelist-source-range"];

/// Directives of nginx that keep somebody out. `return` and `rewrite` depend on what they say.
const DIRECTIVES: &[&str] = &[
    "access_by_lua",
    "access_by_lua_block",
    "access_by_lua_file",
    "auth_basic",
    "auth_jwt",
    "auth_request",
    "deny",
    "limit_conn",
    "limit_except",
    "limit_req",
    "ssl_verify_client",
];

/// Whether an annotation that is not supported keeps somebody out. `ipv6` says whether clients may come by IPv6.
pub fn annotation(name: &str, value: &str, ipv6: bool) -> bool {
    match name {
        "auth-tls-secret" | "auth-type" | "denylist-source-range" => true,
        "configuration-snippet" | "server-snippet" => snippet(value) || includes(value),
        "modsecurity-snippet" => enforces(value),
        _ => ALLOWLISTS.contains(&name) && !is_everyone(value, ipv6),
    }
}

/// Whether an annotation that is not supported keeps somebody out where there is an `auth-url`.
pub fn beside_auth_url(name: &str) -> bool {
    TOLD_TO_AUTH.contains(&name)
}

/// Whether an annotation that is not supported has nothing to do.
pub fn is_idle(name: &str, value: &str, ipv6: bool) -> bool {
    ALLOWLISTS.contains(&name) && is_everyone(value, ipv6)
}

/// Keys of the ingress-nginx ConfigMap that keep somebody out; the snippets only if they say so.
pub const KEYS: &[&str] = &[
    "block-cidrs",
    "block-referers",
    "block-user-agents",
    "denylist-source-range",
    "global-auth-url",
    "http-snippet",
    "location-snippet",
    "modsecurity-snippet",
    "server-snippet",
    "whitelist-source-range",
];

/// Whether a key of the ingress-nginx ConfigMap that is not supported keeps somebody out of every Ingress.
pub fn key(name: &str, value: &str, ipv6: bool) -> bool {
    let given = !value.trim().is_empty();
    match name {
        "block-cidrs"
        | "block-referers"
        | "block-user-agents"
        | "denylist-source-range"
        | "global-auth-url" => given,
        "http-snippet" => snippet(value) && snippets::check(value).is_err(),
        "location-snippet" | "server-snippet" => snippet(value) || includes(value),
        "modsecurity-snippet" => enforces(value),
        "whitelist-source-range" => given && !is_everyone(value, ipv6),
        _ => false,
    }
}

/// Says that an Ingress is refused for the sake of keys of the ConfigMap, and answers the first of them. Its own
/// annotations may have it go without one, as in ingress-nginx.
pub fn inherit(
    object: &ObjectKey,
    annotations: Option<&BTreeMap<String, String>>,
    (config_map, data): (&ObjectKey, &BTreeMap<String, String>),
    ipv6: bool,
    findings: &mut Findings,
) -> Option<Origin> {
    let own = |name: &str| annotations?.get(&format!("{PREFIX}{name}"));
    let off = |name: &str| own(name).is_some_and(|value| boolean::parse(value) == Ok(false));
    let spared = |key: &str| match key {
        "denylist-source-range" => own(key).is_some(),
        "global-auth-url" => off("enable-global-auth") || own("auth-url").is_some(),
        "modsecurity-snippet" => off("enable-modsecurity"),
        "whitelist-source-range" => ALLOWLISTS.iter().any(|name| own(name).is_some()),
        _ => false,
    };
    let mut first = None;
    for (name, _) in data.iter().filter(|(name, value)| key(name, value, ipv6) && !spared(name)) {
        let message = format!("{config_map} asks for {name}, which is not supported yet; {REFUSED}");
        findings.error(object, "", "NotSupported", message);
        first.get_or_insert_with(|| Origin::new(config_map, format!("data.{name}")));
    }
    first
}

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

/// Whether ModSecurity is told to refuse. Switched on without that, it only takes notes (`DetectionOnly`).
fn enforces(rules: &str) -> bool {
    let words: Vec<_> = rules.split_whitespace().map(str::to_ascii_lowercase).collect();
    words.windows(2).any(|pair| pair[0] == "secruleengine" && pair[1].trim_matches('"') == "on")
}

/// Whether nginx configuration keeps somebody out.
fn snippet(text: &str) -> bool {
    statements(text).iter().any(|words| {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["auth_basic" | "auth_jwt" | "auth_request" | "ssl_verify_client", "off"] => false,
            ["return", status, ..] => status.len() == 3 && status.starts_with(['4', '5']),
            ["modsecurity", "on"] => text.to_ascii_lowercase().contains("secruleengine on"),
            [directive, ..] => DIRECTIVES.contains(&directive),
            [] => false,
        }
    })
}

/// Whether nginx configuration has a file's content for hosts or paths, which nobody here knows. Outside of them files hold
/// tables and types.
fn includes(text: &str) -> bool {
    statements(text).iter().any(|words| words.first().is_some_and(|directive| directive == "include"))
}

/// The words of each directive of nginx configuration, those in blocks too.
fn statements(text: &str) -> Vec<Vec<String>> {
    let mut statements = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' | '\'' if word.is_none() => {
                let mut quoted = String::new();
                while let Some(inner) = characters.next().filter(|inner| *inner != character) {
                    quoted.extend(if inner == '\\' { characters.next() } else { Some(inner) });
                }
                word = Some(quoted);
            }
            '#' if word.is_none() => {
                characters.find(|inner| *inner == '\n');
            }
            ';' | '{' | '}' => {
                end_word(&mut statements, word.take());
                statements.push(Vec::new());
            }
            _ if character.is_whitespace() => end_word(&mut statements, word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    end_word(&mut statements, word);
    statements
}

fn end_word(statements: &mut [Vec<String>], word: Option<String>) {
    if let (Some(last), Some(word)) = (statements.last_mut(), word) {
        last.push(word);
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

    #[test]
    fn snippets_that_keep_somebody_out() {
        for text in [
            "deny all;",
            "allow 10.0.0.0/8;\ndeny all;",
            "if ($http_x_api_key = \"\") {\n  return 401 \"API Key Required\";\n}",
            "if ($a = \"}\") { return 403; }",
            "  # open?\n  auth_request /auth;",
            "auth_basic \"who; are you\";",
            "limit_req zone=api burst=20 nodelay;",
            "limit_except GET { deny all; }",
            "location /x { limit_conn a 1 ; }",
            "return 444",
            "access_by_lua_block { ngx.exit(403) }",
            "'deny' all;",
        ] {
            assert!(snippet(text), "{text}");
        }
        for text in [
            "",
            "more_set_headers \"X-Frame-Options: DENY\";",
            "# deny all;\nadd_header X-A \"deny all; return 403;\";",
            "set $a \"\";\nif ($request_id ~* \"[0-9a-f]$\") { set $a \"b\"; }\nmirror /mirror;",
            "return 200 \"deny\";",
            "return 301 https://a.example.com$request_uri;",
            "return https://a.example.com;",
            "auth_basic off;",
            "limit_req_zone $http_x_api_key zone=a:10m rate=10r/m;",
            "proxy_set_header X-Deny 'it\\'s; deny all';",
            "\"unfinished; deny all;",
        ] {
            assert!(!snippet(text), "{text}");
        }
    }

    #[test]
    fn files_that_nobody_knows_keep_somebody_out_of_hosts_and_paths() {
        let tuning = "map $http_user_agent $bot { include /etc/nginx/bots.map; }";
        for (text, included) in [("set $a b;\ninclude /etc/nginx/keys.conf;", true), ("# include a;", false)]
        {
            assert_eq!(annotation("server-snippet", text, true), included, "{text}");
            assert_eq!(key("location-snippet", text, true), included, "{text}");
        }
        assert!(!key("http-snippet", tuning, true));
    }

    #[test]
    fn a_firewall_that_takes_notes_keeps_nobody_out() {
        assert!(enforces("SecRuleEngine On\nSecRule ARGS \"@contains x\" \"id:1,deny\""));
        assert!(!enforces("SecRuleEngine DetectionOnly") && !enforces(""));
    }
}
