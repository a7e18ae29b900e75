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
           the client. Variables are $scheme, $host, $http_host, $best_http_host, $request_method, \
           $request_uri and $escaped_request_uri. Limits come before, as in nginx, so that guessing keys is limited too; those of \
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
    value: "header names, separated by commas; empty ones are left out",
    default: "none",
    example: "X-User-ID, X-User-Tier",
    text: "Headers that the upstream gets from the answer of auth-url. A client's own headers of these names never \
           get through, nor where the answer has none.",
    config_map: None,
};
const SIGNIN: Annotation = Annotation {
    name: "auth-signin",
    value: "http or https URL, or a path, which is one of the request's own host; with the variables of auth-url",
    default: "none",
    example: "https://login.example.com/start",
    text: "In place of the 401 of auth-url, clients are redirected (302) to this URL, with the request's own URL in the \
           parameter `rd` unless its query has that already. The parameter stands at the end, be it of a fragment, as in \
           ingress-nginx.",
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
const VARIABLES: &[&str] = &[
    "best_http_host",
    "escaped_request_uri",
    "host",
    "http_host",
    "request_method",
    "request_uri",
    "scheme",
];
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

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
        let parameter = parameter.map_or(REDIRECT_PARAMETER.default.to_owned(), |(parameter, _)| parameter);
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

fn parse(text: &str) -> Result<Parts, String> {
    const FORM: &str = "a URL such as http://auth.ml.svc.cluster.local:8080/validate";
    // A host has no variables but this one, which stands for one name on each host.
    const VARIABLE: &str = "its host has no variable but $host, which is all of it then";
    let text = text.trim();
    let own =
        text.split_once("://$host").filter(|(_, rest)| rest.is_empty() || rest.starts_with([':', '/', '?']));
    let named = own.map(|(scheme, rest)| format!("{scheme}://host{rest}"));
    let refused = |problem: &str| format!("{FORM}: {problem}");
    let url = Url::parse(named.as_deref().unwrap_or(text)).ok_or_else(|| match text.split_once("://") {
        Some((_, rest)) if rest.starts_with('$') => refused(VARIABLE),
        Some((_, rest)) if rest.starts_with('[') => refused("IPv6 addresses are not taken, give a name"),
        _ => FORM.to_owned(),
    })?;
    // What `$request_uri` stands for begins with a slash of its own.
    let path = if url.rest.starts_with(['/', '$']) { url.rest.to_owned() } else { format!("/{}", url.rest) };
    if path.starts_with('$') && !path.starts_with("$request_uri") {
        return Err(refused(VARIABLE));
    }
    if path.contains('#') {
        return Err(refused("'#' cannot stand in it"));
    }
    template(&path).map_err(|problem| refused(&problem))?;
    let host = if own.is_some() { None } else { Some(url.host.to_ascii_lowercase()) };
    Ok((url.tls, host, url.port, path))
}

/// Checks that a text can stand in a URL, and has no variables but ours.
fn template(text: &str) -> Result<(), String> {
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(format!("{odd:?} cannot stand in it"));
    }
    for rest in text.split('$').skip(1) {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if !VARIABLES.contains(&&rest[..end]) {
            let known = VARIABLES.join(", $");
            return Err(format!("${} is none of the variables ${known}", &rest[..end]));
        }
    }
    Ok(())
}

fn method(text: &str) -> Result<&'static str, &'static str> {
    match text.trim() {
        "" => Ok("GET"),
        text => METHODS.iter().copied().find(|method| *method == text).ok_or(METHOD.value),
    }
}

fn names(text: &str) -> Result<Vec<String>, String> {
    let name = |name: &str| match name.to_ascii_lowercase() {
        _ if !header::is_name(name) => Err(format!(
            "a list of header names: {name:?} is none, write at most 128 letters, digits, `-` and `_`"
        )),
        name if header::OF_THE_CONNECTION.contains(&name.as_str()) => Err(format!(
            "a list of headers that can be copied: {name:?} says how a message is carried or where it goes"
        )),
        name => Ok(name),
    };
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(name).collect()
}

fn signin(text: &str) -> Result<String, String> {
    const FORM: &str = "a URL such as https://login.example.com/start, or a path such as /login";
    let text = text.trim();
    let is_http = |scheme: &str| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let (url, rest) = match text.split_once("://") {
        // nginx makes a path one of the request's host, without the port behind it.
        _ if text.starts_with('/') => (format!("$scheme://$host{text}"), text),
        Some((scheme, rest)) if is_http(scheme) && !rest.is_empty() && !rest.starts_with(['/', '?', '#']) => {
            (text.to_owned(), rest)
        }
        _ => return Err(FORM.to_owned()),
    };
    template(rest).map_err(|problem| format!("{FORM}: {problem}"))?;
    Ok(url)
}

fn parameter(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Ok(REDIRECT_PARAMETER.default.to_owned()),
        text if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) => Ok(text.to_owned()),
        _ => Err("a name of letters, digits, `-` and `_`"),
    }
}

/// Puts the parameter at the end, where ingress-nginx puts it: behind a fragment too.
fn with_parameter(url: String, parameter: &str) -> String {
    const OWN: &str = "$scheme://$http_host$escaped_request_uri";
    let before_fragment = url.split_once('#').map_or(&*url, |(before, _)| before);
    match before_fragment.split_once('?') {
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
            ("HTTPS://a.io/?m=$request_method", true, Some("a.io"), 443, "/?m=$request_method"),
        ] {
            let host = host.map(str::to_owned);
            assert_eq!(parse(text), Ok((tls, host, port, path.to_owned())), "{text}");
        }
        const FORM: &str = "a URL such as http://auth.ml.svc.cluster.local:8080/validate";
        const VARIABLE: &str = ": its host has no variable but $host, which is all of it then";
        let unknown = |name: &str| {
            format!(
                ": ${name} is none of the variables $best_http_host, $escaped_request_uri, $host, $http_host, \
                 $request_method, $request_uri, $scheme"
            )
        };
        for (text, problem) in [
            ("/validate", ""),
            ("http://invalid..auth.url/", ""),
            ("http://$http_host/", VARIABLE),
            ("http://$hostname/", VARIABLE),
            ("http://$host.io/", VARIABLE),
            ("http://a.io$host", VARIABLE),
            ("http://a.io/$uri", &unknown("uri")),
            ("http://a.io/${host}", &unknown("")),
            ("http://a.io/$host_b", &unknown("host_b")),
            ("http://a.io/$", &unknown("")),
            ("http://a.io/a b", ": ' ' cannot stand in it"),
            ("http://a.io/#a", ": '#' cannot stand in it"),
            ("http://[::1]:8080/", ": IPv6 addresses are not taken, give a name"),
        ] {
            assert_eq!(parse(text), Err(format!("{FORM}{problem}")), "{text}");
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
            ("https://a.io?m=$request_method", format!("https://a.io?m=$request_method&rd={OWN}")),
            ("https://a.io/#/", format!("https://a.io/#/?rd={OWN}")),
            ("https://a.io/#/?rd=x", format!("https://a.io/#/?rd=x?rd={OWN}")),
            ("https://a.io/?x=1#/", format!("https://a.io/?x=1#/&rd={OWN}")),
            ("/unauthorized/", format!("$scheme://$host/unauthorized/?rd={OWN}")),
            ("HTTPS://a.io", format!("HTTPS://a.io?rd={OWN}")),
        ] {
            assert_eq!(with_parameter(signin(url).unwrap(), "rd"), expected);
        }
        const FORM: &str = "a URL such as https://login.example.com/start, or a path such as /login";
        for (url, problem) in [
            ("start", ""),
            ("$scheme://a.io", ""),
            ("https://", ""),
            ("https:///a", ""),
            ("https://#a", ""),
            ("ftp://a.io", ""),
            ("https://a.io/\u{7}", ": '\\u{7}' cannot stand in it"),
            (
                "/$uri",
                ": $uri is none of the variables $best_http_host, $escaped_request_uri, $host, $http_host, \
                 $request_method, $request_uri, $scheme",
            ),
        ] {
            assert_eq!(signin(url), Err(format!("{FORM}{problem}")), "{url}");
        }
    }

    #[test]
    fn headers_that_are_the_messages_own_are_not_copied() {
        assert_eq!(names("X-User-ID,X-Tier ").unwrap(), ["x-user-id", "x-tier"]);
        for (text, problem) in [
            ("x-a,x a", "header names: \"x a\" is none, write at most 128 letters, digits, `-` and `_`"),
            (":path", "header names: \":path\" is none, write at most 128 letters, digits, `-` and `_`"),
            (
                "x-a,Host",
                "headers that can be copied: \"host\" says how a message is carried or where it goes",
            ),
        ] {
            let said = names(text).unwrap_err();
            assert!(said.ends_with(problem), "{text}: {said}");
        }
        for text in ["content-length", "Upgrade"] {
            assert!(names(text).is_err(), "{text}");
        }
    }

    /// As ingress-nginx reads them.
    #[test]
    fn what_is_empty_is_not_given() {
        assert_eq!(names("x-a,, ,x-b,").unwrap(), ["x-a", "x-b"]);
        assert_eq!(names(" ").unwrap(), [""; 0]);
        assert_eq!((method(""), method(" POST ")), (Ok("GET"), Ok("POST")));
        assert_eq!((parameter("").as_deref(), parameter("to").as_deref()), (Ok("rd"), Ok("to")));
        assert!(method("get").is_err() && parameter("a b").is_err());
    }
}
