//! What a limit of a RateLimitPolicy counts by, and the answers to requests that lack it.

use super::jwt;
use super::policies::Problem;
use crate::crd::rate_limit_policy::{KeyChoice, KeyError, PolicyKey, PolicyLimit};
use crate::features::effects::{Answer, Guard, Listeners, Phase};
use crate::model::limit::Key;
use crate::values::matching::{HeaderMatch, TextMatch};
use crate::values::{Origin, header, pattern};

/// What a limit counts by.
///
/// # Errors
/// What is wrong with it, and at which field.
pub(super) fn keys(limit: &PolicyLimit) -> Result<Key, Problem> {
    let first = part("key".to_owned(), &limit.key)?;
    let further = limit.and.iter().enumerate().map(|(at, key)| part(format!("and[{at}]"), key));
    let further = further.collect::<Result<Vec<_>, _>>()?;
    Ok(if further.is_empty() { first } else { Key::Several([vec![first], further].concat()) })
}

fn part(field: String, key: &PolicyKey) -> Result<Key, Problem> {
    let refused = |error: KeyError| match error.field() {
        Some(below) => (format!("{field}.{below}"), error.to_string()),
        None => (field.clone(), error.to_string()),
    };
    Ok(match key.choose().map_err(refused)? {
        KeyChoice::ClientAddress => Key::ClientAddress,
        KeyChoice::Header(name) if !header::is_name(&name) || name.contains('%') => {
            let problem = "a header name has at most 128 characters, and no % among them";
            return Err((format!("{field}.header"), problem.to_owned()));
        }
        KeyChoice::Header(name) => Key::Header(name.into()),
        KeyChoice::Cookie(name) => Key::Cookie(name.into()),
        KeyChoice::Query(name) => Key::Query(name.into()),
        KeyChoice::Path => Key::Path,
        KeyChoice::Method => Key::Method,
        KeyChoice::Generic(name) => Key::Generic(name.into()),
        KeyChoice::Jwt(jwt) => {
            jwt::key(&jwt).map_err(|(below, problem)| (format!("{field}.{below}"), problem))?
        }
    })
}

/// The answers to requests that cannot be counted: without a part of the key, or with an empty one, which would be a key that
/// everybody shares.
pub(super) fn missing(part: &Key, origin: &Origin) -> Vec<Guard> {
    let guard = |what: String, when| Guard {
        phase: Phase::Limits,
        listeners: Listeners::All,
        when: vec![when],
        answer: Answer::Direct { status: 401, body: format!("the {what} is required\n").into_bytes() },
        origin: origin.clone(),
    };
    let absent = |header, regex| HeaderMatch::new(header, TextMatch::Regex(regex)).inverted();
    match part {
        Key::Header(name) => {
            let what = || format!("{name} header");
            let present = HeaderMatch::new(name, TextMatch::Present);
            // Envoy compares all headers of the name, joined by commas, and counts the first, which may be empty.
            let empty = HeaderMatch::new(name, TextMatch::Regex("(?s)(,.*)?".to_owned()));
            vec![guard(what(), present.inverted()), guard(what(), empty)]
        }
        Key::Cookie(name) => {
            let given = format!("(?s)(?:.*; *)?{}=[^;].*", pattern::escape(name));
            vec![guard(format!("cookie {name}"), absent("cookie", given))]
        }
        Key::Query(name) => {
            let given = format!(r"(?s)[^?]*\?(?:.*&)?{}=[^&#].*", pattern::escape(name));
            vec![guard(format!("query parameter {name}"), absent(":path", given))]
        }
        _ => Vec::new(),
    }
}
