//! `rewrite-target` and `use-regex`: either makes every path of the host a regular expression.

use serde::Serialize;

use super::effects::{PathRewrite, set};
use super::field::checked_regex;
use super::{Annotation, Effects, Feature, Field, Reader};
use crate::crd::virtual_service::{HttpRoute, RegexRewrite};
use crate::values::{Origin, pattern};

const REWRITE_TARGET: Annotation = Annotation {
    name: "rewrite-target",
    value: "path; `$1` to `$9` stand for captures of the route's path",
    default: "none",
    example: "/$2",
    text: "The path that the upstream sees instead of the whole request path; the query stays. A target other than \
           the path itself makes every path of the host a regular expression (see use-regex).",
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
        self.use_regex || self.target.as_ref().is_some_and(|(target, _)| target != path)
    }
}

impl Feature for Rewrite {
    const ANNOTATIONS: &'static [Annotation] = &[REWRITE_TARGET, USE_REGEX];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let use_regex = reader.boolean(&USE_REGEX).is_some_and(|(on, _)| on);
        let target = reader.text(&REWRITE_TARGET).filter(|(target, _)| !target.is_empty());
        (use_regex || target.is_some()).then_some(Self { use_regex, target })
    }

    fn apply(&self, effects: &mut Effects) {
        if let Some((target, origin)) = &self.target {
            set(&mut effects.path_rewrite, PathRewrite::Target(target.clone()), origin.clone());
        }
    }
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
