//! `rewrite-target` and `use-regex`: either makes every path of the host a regular expression.

use serde::Serialize;

use super::effects::{PathRewrite, set};
use super::{Annotation, Effects, Feature, Reader};
use crate::values::Origin;

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
}
