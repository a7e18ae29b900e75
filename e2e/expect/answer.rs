//! Expectations of a single answer.

use super::{Context, Judged};
use crate::case::step::{Expect, Seen};
use crate::case::values::Pattern;
use crate::client::Reply;
use crate::echo::Record;
use std::collections::BTreeMap;

pub(super) fn check(expect: &Expect, one: &Judged<'_>, context: &Context<'_>) -> Result<(), String> {
    let reply = match (&one.answer.outcome, expect.error) {
        (Err(failure), Some(error)) if failure.is(error, context.is_https) => {
            return check_duration(expect, one);
        }
        (Err(failure), Some(error)) => {
            return Err(format!("error: expected {error:?}, seen {failure}").to_lowercase());
        }
        (Err(failure), None) => return Err(format!("error: expected an answer, seen {failure}")),
        (Ok(reply), Some(error)) => {
            return Err(format!(
                "error: expected {}, seen status {}",
                format!("{error:?}").to_lowercase(),
                reply.status
            ));
        }
        (Ok(reply), None) => reply,
    };
    check_status(expect, reply)?;
    if context.is_websocket && expect.status.is_none() && expect.statuses.is_none() && reply.status != 101 {
        return Err(format!("status: expected 101, seen {}", reply.status));
    }
    check_backend(expect, one)?;
    if let Some(seen) = &expect.seen {
        match &one.by {
            Some(record) => check_seen(seen, record)?,
            None => return Err("seen: no backend answered".to_owned()),
        }
    }
    for (name, expected) in expect.headers.iter().flatten() {
        check_header("headers", name, expected.as_ref(), &reply.header(name))?;
    }
    if let Some(body) = &expect.body {
        check_text("body", body, &String::from_utf8_lossy(&reply.body))?;
    }
    check_duration(expect, one)
}

fn check_status(expect: &Expect, reply: &Reply) -> Result<(), String> {
    let Some(expected) = &expect.status else { return Ok(()) };
    if expected.0.iter().any(|status| status.0 == reply.status) {
        return Ok(());
    }
    let expected: Vec<String> = expected.0.iter().map(|status| status.0.to_string()).collect();
    Err(format!("status: expected {}, seen {}", expected.join(" or "), reply.status))
}

fn check_backend(expect: &Expect, one: &Judged<'_>) -> Result<(), String> {
    let Some(expected) = &expect.backend else { return Ok(()) };
    if one.by.as_ref().is_some_and(|record| expected.0.contains(&record.service)) {
        return Ok(());
    }
    let expected: Vec<String> = expected.0.iter().map(ToString::to_string).collect();
    let seen = one.by.as_ref().map_or("none".to_owned(), |record| record.service.to_string());
    Err(format!("backend: expected {}, seen {seen}", expected.join(" or ")))
}

fn check_seen(expected: &Seen, record: &Record) -> Result<(), String> {
    let texts = [
        ("path", &expected.path, &record.path),
        ("host", &expected.host, &record.host),
        ("method", &expected.method, &record.method),
        ("body", &expected.body, &record.body),
    ];
    for (key, expected, seen) in texts {
        if let Some(expected) = expected {
            check_text(&format!("seen.{key}"), expected, seen)?;
        }
    }
    if let Some(size) = expected.body_size
        && !size.holds(record.body_size)
    {
        return Err(format!("seen.body_size: expected {size}, seen {}", record.body_size));
    }
    check_headers(&expected.headers, record)
}

fn check_headers(expected: &BTreeMap<String, Option<Pattern>>, record: &Record) -> Result<(), String> {
    for (name, expected) in expected {
        let named = record.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let values: Vec<&str> = named.map(|(_, value)| value.as_str()).collect();
        check_header("seen.headers", name, expected.as_ref(), &values)?;
    }
    Ok(())
}

/// A header with several values matches by any of them, or by all joined.
fn check_header(key: &str, name: &str, expected: Option<&Pattern>, values: &[&str]) -> Result<(), String> {
    let holds = match expected {
        None => values.is_empty(),
        Some(_) if values.is_empty() => false,
        Some(pattern) => {
            values.iter().any(|value| pattern.matches(value)) || pattern.matches(&values.join(", "))
        }
    };
    if holds {
        return Ok(());
    }
    let expected = expected.map_or("absent".to_owned(), ToString::to_string);
    let seen = if values.is_empty() { "absent".to_owned() } else { format!("{values:?}") };
    Err(format!("{key}.{name}: expected {expected}, seen {seen}"))
}

fn check_text(key: &str, expected: &Pattern, seen: &str) -> Result<(), String> {
    if expected.matches(seen) {
        return Ok(());
    }
    let shown: String = seen.chars().take(1000).collect();
    Err(format!("{key}: expected {expected}, seen {shown:?}"))
}

fn check_duration(expect: &Expect, one: &Judged<'_>) -> Result<(), String> {
    let Some(bounds) = &expect.duration else { return Ok(()) };
    let seen = one.answer.duration;
    match (bounds.min, bounds.max) {
        (Some(min), _) if seen < min.0 => {
            Err(format!("duration: expected at least {:?}, seen {seen:?}", min.0))
        }
        (_, Some(max)) if seen > max.0 => {
            Err(format!("duration: expected at most {:?}, seen {seen:?}", max.0))
        }
        _ => Ok(()),
    }
}
