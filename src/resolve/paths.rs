//! Paths of a host's Ingresses: their order, what they match, and the redirects that nginx makes of them.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use thin_vec::ThinVec;

use super::draft::Draft;
use super::ingress::Location;
use crate::features::effects::{Answer, Listeners, Redirect, RedirectPath};
use crate::model::route::Variant;
use crate::model::{Action, Match, PathMatch, Route};
use crate::values::{path, pattern};

/// Puts locations in the order in which nginx tries them, and answers how many of the first are compared as a whole.
pub(super) fn sort(locations: &mut [Location<'_>], regex: bool) -> usize {
    if regex {
        locations.sort_by(|a, b| b.path.len().cmp(&a.path.len()).then_with(|| b.path.cmp(a.path)));
        return 0;
    }
    locations.sort_by_key(|location| (Reverse(location.exact), Reverse(location.path.len())));
    locations.partition_point(|location| location.exact)
}

/// What a location's path matches. None, with a finding, if it can match nothing.
pub(super) fn path_match(draft: &mut Draft<'_>, location: &Location<'_>, regex: bool) -> Option<Match> {
    let mut refuse = |reason, message| {
        let field = format!("{}.path", location.origin.field);
        draft.findings.error(location.source.key, field, reason, message);
        None
    };
    if !regex {
        if location.path.contains(['?', '#']) {
            let message = format!(
                "{:?} has a ? or #, which no request's path has; the path is left out (a regular expression needs \
                 the annotation use-regex)",
                location.path
            );
            return refuse("InvalidPath", message);
        }
        if let Some(problem) = path::never_sent(location.path, true) {
            let field = format!("{}.path", location.origin.field);
            let message = format!("{:?} {problem}; it matches no request", location.path);
            draft.findings.warning(location.source.key, field, "NeverMatches", message);
        }
        return Some(Match::path(literal(location.path, location.exact)));
    }
    if let Err(error) = pattern::check(location.path) {
        let message = format!(
            "{:?} is not a regular expression that RE2 accepts: {error}; the path is left out",
            location.path
        );
        return refuse("InvalidRegex", message);
    }
    Some(Match::path(PathMatch::NginxRegex(location.path.to_owned())))
}

/// nginx answers 301 for the path without the slash that a declared path ends in, unless that is declared too.
pub(super) fn slash_redirects(locations: &[Location<'_>]) -> Vec<Route> {
    let mut taken: HashSet<&str> = locations.iter().map(|location| location.path).collect();
    let mut redirects = Vec::new();
    for location in locations {
        let Some(bare) = location.path.strip_suffix('/').filter(|bare| !bare.is_empty()) else { continue };
        if !taken.insert(bare) {
            continue;
        }
        redirects.push(Route {
            origin: location.origin.clone(),
            variant: Variant::ToSlash,
            listeners: Listeners::All,
            matches: Match::path(literal(bare, true)),
            action: Action::Answer(Answer::Redirect(Box::new(Redirect {
                path: RedirectPath::Whole(percent_encoded(location.path)),
                status: 301,
                ..Redirect::default()
            }))),
            effects: Arc::default(),
            mirrors: ThinVec::new(),
        });
    }
    redirects
}

/// A path that is no regular expression. nginx compares decoded paths, Envoy those on the wire, where a client may
/// escape more than it must.
fn literal(path: &str, exact: bool) -> PathMatch {
    let below = path.len() > 1 && path.ends_with('/');
    if path.bytes().all(stands_as_it_is) {
        return match (exact, below) {
            (true, _) => PathMatch::Exact(path.to_owned()),
            (false, true) => PathMatch::Prefix(path.to_owned()),
            (false, false) => PathMatch::segments(path),
        };
    }
    let end = match (exact, below) {
        (true, _) => "",
        (false, true) => ".*",
        (false, false) => "(?:/.*)?",
    };
    PathMatch::Regex(format!("{}{end}", escaped_or_not(path)))
}

/// Whether a byte has one form once Envoy has normalized the path. A `%` in a declared path begins an escape.
fn stands_as_it_is(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte)
}

/// A regular expression for the path in both forms of each character that has two.
fn escaped_or_not(path: &str) -> String {
    let either = |byte: u8| {
        let plain = || pattern::escape(char::from(byte).encode_utf8(&mut [0; 4]));
        match byte {
            b' ' | 0x80.. => format!("(?i:%{byte:02X})"),
            _ if stands_as_it_is(byte) => plain(),
            _ => format!("(?:{}|(?i:%{byte:02X}))", plain()),
        }
    };
    path.bytes().map(either).collect()
}

/// The path as it is written on the wire, where only ASCII stands as it is.
fn percent_encoded(path: &str) -> String {
    let encode = |byte: u8| match byte {
        b' ' | 0x80.. => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    };
    path.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_paths() {
        for (path, exact, expected) in [
            ("/", false, PathMatch::Prefix("/".to_owned())),
            ("/a-b", false, PathMatch::Segments("/a-b".to_owned())),
            ("/a/", false, PathMatch::Prefix("/a/".to_owned())),
            ("/a%20b", true, PathMatch::Exact("/a%20b".to_owned())),
            ("/b:p", true, PathMatch::Regex("/b(?::|(?i:%3A))p".to_owned())),
            ("/a b", false, PathMatch::Regex("/a(?i:%20)b(?:/.*)?".to_owned())),
            ("/é/", false, PathMatch::Regex("/(?i:%C3)(?i:%A9)/.*".to_owned())),
            ("/a.b(", true, PathMatch::Regex(r"/a\.b(?:\(|(?i:%28))".to_owned())),
        ] {
            let found = literal(path, exact);
            assert_eq!(found, expected, "{path}");
            if let PathMatch::Regex(regex) = found {
                assert_eq!(pattern::check(&regex), Ok(()), "{path}");
            }
        }
    }
}
