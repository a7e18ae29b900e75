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
            // Envoy counts the first of several, and compares each: with any empty one nothing may be counted.
            let empty = HeaderMatch::new(name, TextMatch::Exact(String::new()));
            vec![guard(what(), present.inverted()), guard(what(), empty)]
        }
        Key::Cookie(name) => {
            let what = || format!("cookie {name}");
            let name = pattern::escape(name);
            // A value begins with a character of RFC 6265: one that is no text counts for nothing.
            let given = format!(r"(?s)(?:.*; *)?{name}=\s*[!-+\--:<-~].*");
            // Envoy compares each header by itself and counts by all of them joined by commas, so that what looks like a
            // further one behind a comma must be one.
            let behind_a_comma = HeaderMatch::new("cookie", TextMatch::Regex(format!(r"(?s).*, *{name}=.*")));
            vec![guard(what(), absent("cookie", given)), guard(what(), behind_a_comma)]
        }
        Key::Query(name) => {
            let what = || format!("query parameter {name}");
            let given = format!(r"(?s)[^?]*\?(?:.*&)?{}=[^&#].*", pattern::escape(name));
            // Envoy counts the first by its decoded name, and nothing if that one is empty.
            let empty = format!(r"(?s)[^?]*\?(?:.*&)?{}=?(?:[&#].*)?", encoded(name));
            let empty = HeaderMatch::new(":path", TextMatch::Regex(empty));
            vec![guard(what(), absent(":path", given)), guard(what(), empty)]
        }
        _ => Vec::new(),
    }
}

/// The answer to requests with an empty header before another one of the name: it is neither the one nor the other that counts.
pub(super) fn one_of_several_is_empty(name: &str, origin: &Origin) -> Guard {
    let empty = HeaderMatch::new(name, TextMatch::Exact(String::new()));
    let other = HeaderMatch::new(name, TextMatch::Regex("(?s).+".to_owned()));
    let answer =
        Answer::Direct { status: 401, body: format!("one {name} header of several is empty\n").into_bytes() };
    let (phase, listeners) = (Phase::Limits, Listeners::All);
    Guard { phase, listeners, when: vec![empty, other], answer, origin: origin.clone() }
}

/// An expression for a name in all of the ways in which a URL may have it.
fn encoded(name: &str) -> String {
    let hex = |digit: u8| match char::from_digit(digit.into(), 16) {
        Some(letter @ 'a'..='f') => format!("[{letter}{}]", letter.to_ascii_uppercase()),
        digit => digit.unwrap_or_default().to_string(),
    };
    let byte = |byte: u8| {
        let plain = if byte.is_ascii() {
            pattern::escape(&char::from(byte).to_string()) + "|"
        } else {
            String::new()
        };
        format!("(?:{plain}%{}{})", hex(byte >> 4), hex(byte & 15))
    };
    name.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    /// Whether a request with this cookie or path is answered.
    fn lacks(key: &Key, value: &str) -> bool {
        let origin =
            Origin::new(&crate::values::ObjectKey::new(crate::values::Kind::RateLimitPolicy, "n", "p"), "");
        missing(key, &origin).iter().flat_map(|guard| &guard.when).any(|when| {
            let TextMatch::Regex(regex) = &when.value else { panic!("{when:?}") };
            Regex::new(&format!("^(?:{regex})$")).unwrap().is_match(value) != when.invert
        })
    }

    #[test]
    fn what_lacks_a_query_parameter() {
        let key = Key::Query("model.a".into());
        for has in [
            "/?model.a=x",
            "/p?b=&model.a=%41",
            "/?model.a=x&model.a=y",
            "/?model.a==",
            "/?b&model%2ea=1&model.a=2",
        ] {
            assert!(!lacks(&key, has), "{has}");
        }
        for hasnt in [
            "/",
            "/?",
            "/?model.a",
            "/?model.a=",
            "/?model.a=&b=1",
            "/?modelxa=1",
            "/?xmodel.a=1",
            "/?model%2Ea=1",
            "/?model.a=&model.a=x",
            "/?model.a&model.a=x",
            "/?model%2ea=&model.a=x",
            "/?%6dodel%2Ea&model.a=x",
            "/?model.a=x&model.a=",
        ] {
            assert!(lacks(&key, hasnt), "{hasnt}");
        }
    }

    #[test]
    fn what_lacks_a_cookie() {
        let key = Key::Cookie("s".into());
        for has in ["s=1", "a=1; s=1", "a=1;s= 1 ; b", "s=; s=1", "s=1,2", "s=1; s="] {
            assert!(!lacks(&key, has), "{has}");
        }
        for hasnt in ["", "a=1", "s=", "s= ; a=1", "xs=1", "s=,1", "a=1,s=2", "a=1, s=2; s=3"] {
            assert!(lacks(&key, hasnt), "{hasnt}");
        }
    }
}
