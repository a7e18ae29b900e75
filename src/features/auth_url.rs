//! `auth-url` and what goes with it: another service is asked whether to let a request in.
//!
//! As nginx's `auth_request`: 2xx lets it in, 401 and 403 are the client's answer, and anything else is 500.

use std::sync::Arc;

use serde::Serialize;

use super::{Annotation, Feature, Reader};
use crate::values::{Origin, Url, header};

const URL: Annotation = Annotation {
    name: "auth-url",
    value: "http or https URL of a Service or another host; its path and query may have variables, and its host may be \
            `$host`",
    default: "none",
    example: "http://auth.ml.svc.cluster.local:8080/validate",
    text: "Every request is let in only if a sub-request to this URL, with the request's headers and without its body, \
           is answered 2xx. A 401 or 403 is the client's answer; anything else, and no answer within 60 seconds, is \
           answered 500. The service sees the request as X-Original-URL and X-Original-Method; its Set-Cookie goes to \
           the client. Variables are $scheme, $host, $http_host, $best_http_host, $request_uri and \
           $escaped_request_uri. Limits come before, as in nginx, so that guessing keys is limited too; those of \
           RateLimitPolicies by what the answer says come after.",
    config_map: None,
};
const METHOD: Annotation = Annotation {
    name: "auth-method",
    value: "GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS",
    default: "GET",
    example: "POST",
    text: "Method of the sub-request of auth-url.",
    config_map: None,
};
const RESPONSE_HEADERS: Annotation = Annotation {
    name: "auth-response-headers",
    value: "header names, separated by commas",
    default: "none",
    example: "X-User-ID, X-User-Tier",
    text: "Headers that the upstream gets from the answer of auth-url. A client's own headers of these names never \
           get through, nor where the answer has none.",
    config_map: None,
};
const SIGNIN: Annotation = Annotation {
    name: "auth-signin",
    value: "http or https URL, with the variables of auth-url",
    default: "none",
    example: "https://login.example.com/start",
    text: "In place of the 401 of auth-url, clients are redirected (302) to this URL, with the request's own URL in the \
           parameter `rd` unless it has that already.",
    config_map: None,
};
const REDIRECT_PARAMETER: Annotation = Annotation {
    name: "auth-signin-redirect-param",
    value: "name of letters, digits, `-` and `_`",
    default: "rd",
    example: "orig",
    text: "The parameter of auth-signin that holds the request's own URL.",
    config_map: None,
};

/// What a URL may have of the request.
const VARIABLES: &[&str] =
    &["best_http_host", "escaped_request_uri", "host", "http_host", "request_uri", "scheme"];
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Headers that say how a message is carried or where it goes.
const NOT_COPIED: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A service that is asked whether to let a request in.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct AuthUrl {
    /// Whether it is spoken to in TLS.
    pub tls: bool,
    /// A Service's name in one of its forms, or a DNS name; none for the request's own host.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
    /// What it is asked, and what becomes of its answer.
    pub question: Arc<Question>,
    /// `auth-url`.
    pub origin: Origin,
}

/// What the service is asked, and what becomes of its answer. In path and location `$name` stands for what the request
/// has of that name.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// The method.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// Headers that the upstream gets from the answer alone, in lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<String>,
    /// Where clients are redirected in place of a 401.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signin: Option<String>,
}

impl Feature for AuthUrl {
    const ANNOTATIONS: &'static [Annotation] = &[URL, METHOD, RESPONSE_HEADERS, SIGNIN, REDIRECT_PARAMETER];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let url = reader.parse(&URL, parse);
        let method = reader.parse(&METHOD, method);
        let response_headers = reader.parse(&RESPONSE_HEADERS, names);
        let signin = reader.parse(&SIGNIN, signin);
        let parameter = reader.parse(&REDIRECT_PARAMETER, parameter);
        let ((tls, host, port, path), origin) = url?;
        let parameter = parameter.map_or("rd".to_owned(), |(parameter, _)| parameter);
        let question = Question {
            method: method.map_or("GET", |(method, _)| method),
            path,
            response_headers: response_headers.map(|(names, _)| names).unwrap_or_default(),
            signin: signin.map(|(url, _)| with_parameter(url, &parameter)),
        };
        Some(Self { tls, host, port, question: Arc::new(question), origin })
    }
}

type Parts = (bool, Option<String>, u16, String);

fn parse(text: &str) -> Result<Parts, &'static str> {
    const FORM: &str = "a URL such as http://auth.ml.svc.cluster.local:8080/validate, with no variables but those that \
                        docs/annotations.md lists";
    // A host has no variables but this one, which stands for one name on each host.
    let text = text.trim();
    let own =
        text.split_once("://$host").filter(|(_, rest)| rest.is_empty() || rest.starts_with([':', '/', '?']));
    let named = own.map(|(scheme, rest)| format!("{scheme}://host{rest}"));
    let url = Url::parse(named.as_deref().unwrap_or(text)).ok_or(FORM)?;
    // What `$request_uri` stands for begins with a slash of its own.
    let path = if url.rest.starts_with(['/', '$']) { url.rest.to_owned() } else { format!("/{}", url.rest) };
    if !is_template(&path) || path.starts_with('$') && !path.starts_with("$request_uri") {
        return Err(FORM);
    }
    let host = if own.is_some() { None } else { Some(url.host.to_ascii_lowercase()) };
    Ok((url.tls, host, url.port, path))
}

/// Whether a text can stand in a URL, and has no variables but ours.
fn is_template(text: &str) -> bool {
    let known = |name: &str| {
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        VARIABLES.contains(&&name[..end])
    };
    text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') && text.split('$').skip(1).all(known)
}

fn method(text: &str) -> Result<&'static str, &'static str> {
    METHODS.iter().copied().find(|method| *method == text.trim()).ok_or(METHOD.value)
}

fn names(text: &str) -> Result<Vec<String>, &'static str> {
    let names: Vec<_> = text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    let may = |name: &String| header::is_name(name) && !NOT_COPIED.contains(&name.as_str());
    if names.iter().all(may) { Ok(names) } else { Err("a list of names of headers that can be copied") }
}

fn signin(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let rest = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with(['/', '?']) && is_template(rest) => {
            Ok(text.to_owned())
        }
        _ => Err("a URL such as https://login.example.com/start, with no variables but those of auth-url"),
    }
}

fn parameter(text: &str) -> Result<String, &'static str> {
    let valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if valid { Ok(text.to_owned()) } else { Err(REDIRECT_PARAMETER.value) }
}

fn with_parameter(url: String, parameter: &str) -> String {
    const OWN: &str = "$scheme://$http_host$escaped_request_uri";
    match url.split_once('?') {
        None => format!("{url}?{parameter}={OWN}"),
        Some((_, query)) => {
            let given = |pair: &str| {
                pair.split_once('=').is_some_and(|(name, value)| name == parameter && !value.is_empty())
            };
            if query.split('&').any(given) { url } else { format!("{url}&{parameter}={OWN}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, tls, host, port, path) in [
            ("http://auth.ml.svc:8080/validate", false, Some("auth.ml.svc"), 8080, "/validate"),
            ("https://Auth.Example.com", true, Some("auth.example.com"), 443, "/"),
            ("http://a.io?x=$escaped_request_uri", false, Some("a.io"), 80, "/?x=$escaped_request_uri"),
            ("http://a.io$request_uri", false, Some("a.io"), 80, "$request_uri"),
            ("https://$host/oauth2/auth", true, None, 443, "/oauth2/auth"),
            ("http://$host:4180/auth?h=$http_host", false, None, 4180, "/auth?h=$http_host"),
        ] {
            let host = host.map(str::to_owned);
            assert_eq!(parse(text), Ok((tls, host, port, path.to_owned())), "{text}");
        }
        for text in [
            "/validate",
            "http://$http_host/",
            "http://$hostname/",
            "http://$host.io/",
            "http://a.io/$uri",
            "http://a.io/${host}",
            "http://a.io/$host_b",
            "http://a.io$host",
            "http://a.io/$",
            "http://a.io/a b",
            "http://a.io/#a",
            "http://invalid..auth.url/",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn redirects_hold_the_own_url_once() {
        const OWN: &str = "$scheme://$http_host$escaped_request_uri";
        for (url, expected) in [
            ("https://$host/start", format!("https://$host/start?rd={OWN}")),
            ("https://a.io/?x=1", format!("https://a.io/?x=1&rd={OWN}")),
            ("https://a.io/?rd=", format!("https://a.io/?rd=&rd={OWN}")),
            ("https://a.io/?x&rd=$escaped_request_uri", "https://a.io/?x&rd=$escaped_request_uri".to_owned()),
        ] {
            assert_eq!(with_parameter(signin(url).unwrap(), "rd"), expected);
        }
        for url in
            ["start", "$scheme://a.io", "https://", "https:///a", "https://a.io/$uri", "https://a.io/\u{7}"]
        {
            assert!(signin(url).is_err(), "{url}");
        }
    }

    #[test]
    fn headers_that_are_the_messages_own_are_not_copied() {
        assert_eq!(names("X-User-ID,X-Tier ").unwrap(), ["x-user-id", "x-tier"]);
        for text in ["", "x-a,", "x a", ":path", "Host", "content-length", "Upgrade"] {
            assert!(names(text).is_err(), "{text}");
        }
    }
}
