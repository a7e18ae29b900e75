//! URLs of upstreams: a scheme, a host, and a port.

use super::HostName;

/// The parts of an http or https URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Url<'t> {
    /// Whether it is https.
    pub tls: bool,
    /// A DNS name or an address, without the dot that may stand at its end.
    pub host: &'t str,
    /// The port; that of the scheme unless it is given.
    pub port: u16,
    /// Path and query as they are written, which begin with `/`, `?` or a variable, or are empty.
    pub rest: &'t str,
}

impl<'t> Url<'t> {
    /// Reads a URL; none if it is not one.
    pub fn parse(text: &'t str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once("://")?;
        let tls = scheme.eq_ignore_ascii_case("https");
        if !tls && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '$', '?']).unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, if tls { 443 } else { 80 }),
        };
        // A dot at the end only says that the name is whole.
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_name = HostName::parse(host).is_ok_and(|name| !name.is_wildcard());
        (is_name && port != 0).then_some(Self { tls, host, port, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, tls, host, port, rest) in [
            ("http://shadow.ml.svc:8080$request_uri", false, "shadow.ml.svc", 8080, "$request_uri"),
            (" https://Example.com/x?y ", true, "Example.com", 443, "/x?y"),
            ("HTTP://a.io/", false, "a.io", 80, "/"),
            ("Https://a.io", true, "a.io", 443, ""),
            ("http://10.0.0.1", false, "10.0.0.1", 80, ""),
            ("http://whole.example.com.:81?a=b", false, "whole.example.com", 81, "?a=b"),
        ] {
            assert_eq!(Url::parse(text), Some(Url { tls, host, port, rest }), "{text}");
        }
        for text in [
            "",
            "a:80",
            "ftp://a",
            "http://",
            "http://a:b",
            "http://a:0",
            "http://a b",
            "http://a..b",
            "http://$host",
        ] {
            assert_eq!(Url::parse(text), None, "{text}");
        }
    }
}
