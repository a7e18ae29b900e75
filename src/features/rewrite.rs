//! `rewrite-target` and `use-regex`: either makes every path of the host a regular expression.

use serde::Serialize;

use super::effects::{PathRewrite, Redirect, RedirectPath, set};
use super::field::checked_regex;
use super::{Annotation, Effects, Feature, Field, Reader};
use crate::crd::virtual_service::{HttpRoute, RegexRewrite};
use crate::values::{Origin, pattern};

const REWRITE_TARGET: Annotation = Annotation {
    name: "rewrite-target",
    value: "path, in which `$1` to `$9` stand for captures of the route's path, or a URL that begins with `http://` or \
            `https://`; of letters, digits and `-._~/:`",
    default: "none",
    example: "/$2",
    text: "The path that the upstream sees instead of the whole request path; the query stays. A target other than \
           the path itself makes every path of the host a regular expression (see use-regex). A URL is not sent to the \
           upstream: it is the answer, 302, with the request's query.",
    config_map: None,
};
const USE_REGEX: Annotation = Annotation {
    name: "use-regex",
    value: "\"true\" or \"false\"",
    default: "false",
    example: "true",
    text: "Paths of the host are regular expressions: case-insensitive, anchored at the start only, the longest \
           expression first, whatever their pathType.",
    config_map: None,
};

/// Paths as regular expressions, and what the upstream sees.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Rewrite {
    /// `use-regex`
    pub use_regex: bool,
    /// `rewrite-target`
    pub target: Option<(String, Origin)>,
}

impl Rewrite {
    /// Whether a path of this Ingress makes its host one of regular expressions.
    pub fn makes_regex(&self, path: &str) -> bool {
        self.use_regex || self.changes(path)
    }

    /// Whether the target is another than the path.
    pub fn changes(&self, path: &str) -> bool {
        self.target.as_ref().is_some_and(|(target, _)| target != path)
    }

    /// The answer to requests for a path, if the target is a URL.
    pub fn redirect(&self, path: &str) -> Option<Redirect> {
        let (scheme, host, target) = split_url(&self.target.as_ref()?.0)?;
        let path = match target {
            "" => RedirectPath::Whole("/".to_owned()),
            _ if target.contains('$') => RedirectPath::Regex {
                pattern: whole_path(path),
                substitution: substitution(target, pattern::captures(path)),
            },
            _ => RedirectPath::Whole(target.to_owned()),
        };
        let (scheme, host) = (Some(scheme.to_owned()), Some(host.to_owned()));
        Some(Redirect { scheme, host, path, status: 302, ..Redirect::default() })
    }
}

impl Feature for Rewrite {
    const ANNOTATIONS: &'static [Annotation] = &[REWRITE_TARGET, USE_REGEX];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let use_regex = reader.boolean(&USE_REGEX).is_some_and(|(on, _)| on);
        let target = reader.parse(&REWRITE_TARGET, parse_target);
        (use_regex || target.is_some()).then_some(Self { use_regex, target })
    }

    fn apply(&self, effects: &mut Effects) {
        if let Some((target, origin)) = &self.target
            && split_url(target).is_none()
        {
            set(&mut effects.path_rewrite, PathRewrite::Target(target.clone()), origin.clone());
        }
    }
}

/// Checks a target by ingress-nginx's own rule for the annotation, less what nginx would not take.
fn parse_target(text: &str) -> Result<String, &'static str> {
    const FORM: &str = "a path, or an http or https URL, of letters, digits and -._~/: with $1 to $9 for captures of \
                        the path (in a URL, behind its host; nginx variables are not expanded)";
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:$".contains(&b);
    let captures = text.split('$').skip(1).all(|after| after.starts_with(|c| ('1'..='9').contains(&c)));
    let begins = match split_url(text) {
        Some((_, host, _)) => !host.is_empty() && !host.contains('$'),
        None => text.starts_with(['/', '$']),
    };
    if begins && captures && text.bytes().all(allowed) { Ok(text.to_owned()) } else { Err(FORM) }
}

/// Scheme, host (with its port) and path of a URL.
fn split_url(target: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = target.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Some((scheme, host, path))
}

/// VirtualService's `rewrite`. `uri` is Envoy's `prefix_rewrite`: prefix `/a` and rewrite `/` make `//b` of `/a/b`.
pub fn from_rule(rule: &HttpRoute, field: &mut Field<'_>, effects: &mut Effects) {
    let Some(rewrite) = &rule.rewrite else { return };
    let mut field = field.child("rewrite");
    let uri = field.child("uri").header_text(rewrite.uri.as_ref()).map(PathRewrite::Prefix);
    let regex = rewrite.uri_regex_rewrite.as_ref().and_then(|rewrite| {
        let mut field = field.child("uriRegexRewrite");
        if uri.is_some() {
            field.error("RewriteTwice", "has no effect beside uri; give one of them");
            return None;
        }
        read_regex(rewrite, &mut field)
    });
    if let Some(value) = uri.or(regex) {
        set(&mut effects.path_rewrite, value, field.origin());
    }
    let mut field = field.child("authority");
    if let Some(authority) = field.header_text(rewrite.authority.as_ref()) {
        set(&mut effects.host_rewrite, authority, field.origin());
    }
}

fn read_regex(rewrite: &RegexRewrite, field: &mut Field<'_>) -> Option<PathRewrite> {
    let pattern = match checked_regex(&rewrite.r#match) {
        Ok(pattern) => pattern,
        Err(problem) => {
            field.child("match").error("InvalidRegex", format!("{problem}; the path is not rewritten"));
            return None;
        }
    };
    let mut field = field.child("rewrite");
    let substitution = field.header_text(Some(&rewrite.rewrite)).unwrap_or_default();
    let captures = pattern::captures(&pattern);
    if substitution.is_empty() || !is_substitution(&substitution, captures) {
        let message = format!(
            "{:?} is not a replacement in which \\0 to \\{captures} stand for captures; the path is not rewritten",
            rewrite.rewrite
        );
        field.error("InvalidRewrite", message);
        return None;
    }
    Some(PathRewrite::Regex { pattern, substitution })
}

/// Whether RE2 takes a text as the replacement for an expression with so many captures.
fn is_substitution(text: &str, captures: usize) -> bool {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            continue;
        }
        match characters.next() {
            Some('\\') => {}
            Some(digit) if digit.to_digit(10).is_some_and(|digit| digit as usize <= captures) => {}
            _ => return false,
        }
    }
    true
}

/// The pattern that finds the whole path that a route's expression matched, for a rewrite of all of it.
pub fn whole_path(path: &str) -> String {
    format!("(?is)^.*?(?:{path}).*$")
}

/// An nginx replacement (`/$2`) as an RE2 one (`/\2`); captures that the path does not have are empty.
pub fn substitution(target: &str, captures: usize) -> String {
    let mut out = String::with_capacity(target.len());
    let mut characters = target.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek().and_then(|next| next.to_digit(10))) {
            ('$', Some(digit)) => {
                characters.next();
                if digit as usize <= captures {
                    out.push('\\');
                    out.push(char::from(b'0' + digit as u8));
                }
            }
            ('\\', _) => out.push_str("\\\\"),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for good in ["/", "/$2", "$1", "/v1/a:b~c", "https://new.example.com:8443/to$1$2", "http://new"] {
            assert_eq!(parse_target(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "app",
            "/a b",
            "/$1?from=a",
            "/$request_uri",
            "/$0",
            "/a$",
            "/%41",
            "https://$1/",
            "https:///a",
            "ftp://a/",
        ] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn captures_become_re2s() {
        for (target, captures, expected) in [
            ("/$2", 2, r"/\2"),
            ("/a/$1/$3", 2, r"/a/\1/"),
            ("/$", 1, "/$"),
            (r"/a\b", 0, r"/a\\b"),
            ("/x", 0, "/x"),
        ] {
            assert_eq!(substitution(target, captures), expected, "{target}");
        }
    }

    #[test]
    fn replacements_stay_within_the_captures() {
        for (text, captures, valid) in [
            (r"/\1", 1, true),
            (r"/\2", 1, false),
            (r"/\0", 0, true),
            (r"\\", 0, true),
            (r"a\", 1, false),
            (r"\d", 1, false),
        ] {
            assert_eq!(is_substitution(text, captures), valid, "{text}");
        }
    }
}
