//! A cookie jar for one host: what Set-Cookie put there and still holds for a path.

use hyper::header::{HeaderMap, SET_COOKIE};

#[derive(Debug, Default)]
pub(crate) struct Jar {
    cookies: Vec<Cookie>,
}

#[derive(Debug)]
struct Cookie {
    name: String,
    value: String,
    path: String,
    only_secure: bool,
}

impl Jar {
    /// The Cookie header for a request, if there is any cookie for it.
    pub(super) fn header(&self, path: &str, is_https: bool) -> Option<String> {
        let fits = |cookie: &&Cookie| (is_https || !cookie.only_secure) && covers(&cookie.path, path);
        let pairs: Vec<String> = self
            .cookies
            .iter()
            .filter(fits)
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// Takes the cookies of an answer to a request for `path`.
    pub(super) fn store(&mut self, headers: &HeaderMap, path: &str) {
        for value in headers.get_all(SET_COOKIE) {
            self.store_one(&String::from_utf8_lossy(value.as_bytes()), path);
        }
    }

    fn store_one(&mut self, text: &str, request_path: &str) {
        let mut parts = text.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let mut cookie = Cookie {
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
            path: default_path(request_path),
            only_secure: false,
        };
        let mut is_over = false;
        for attribute in parts {
            let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            match key.trim().to_ascii_lowercase().as_str() {
                "path" if value.starts_with('/') => cookie.path = value.to_owned(),
                "secure" => cookie.only_secure = true,
                "max-age" => is_over = value.trim().parse::<i64>().is_ok_and(|seconds| seconds <= 0),
                // The date by which servers delete cookies.
                "expires" => is_over |= value.contains("1970"),
                _ => {}
            }
        }
        self.cookies.retain(|known| known.name != cookie.name || known.path != cookie.path);
        if !is_over {
            self.cookies.push(cookie);
        }
    }
}

/// RFC 6265, 5.1.4.
fn covers(cookie_path: &str, request_path: &str) -> bool {
    match request_path.strip_prefix(cookie_path) {
        Some(rest) => rest.is_empty() || cookie_path.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

/// RFC 6265, 5.1.4: up to the last slash, without it.
fn default_path(request_path: &str) -> String {
    match request_path.rfind('/') {
        Some(0) | None => "/".to_owned(),
        Some(end) => request_path[..end].to_owned(),
    }
}
