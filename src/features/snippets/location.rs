//! What a snippet says of a location: limits, answers, headers, and conditions for them.

use super::Rate;
use super::http::{Declared, answered, anywhere, decimal, header_of, is_empty};
use super::syntax::Directive;
use crate::values::header;
use crate::values::header::escape_format;
use crate::values::matching::{HeaderMatch, TextMatch};

/// One directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// `limit_req`
    Limit { zone: String, burst: u32 },
    /// `return`
    Return { status: u16, body: String },
    /// `add_header`
    Header { name: String, value: Vec<Piece> },
    /// `proxy_set_header`
    RequestHeader { name: String, value: Vec<Piece> },
    /// `if`
    If { condition: Condition, then: Vec<Statement> },
}

/// A part of a header's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text, as an Envoy format string.
    Text(String),
    /// What a map says.
    Map(String),
}

/// When an `if` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// What a header holds.
    Header(HeaderMatch),
    /// Whether a map says this.
    Map { name: String, value: String, equal: bool },
}

/// Reads what is said of a location. `note` is told what is read otherwise than nginx would.
///
/// # Errors
/// What is not read, in one clause.
pub(super) fn statement(
    directive: &Directive,
    declared: &Declared,
    note: &mut dyn FnMut(String),
) -> Result<Statement, String> {
    let words: Vec<_> = directive.words.iter().map(String::as_str).collect();
    match (&words[..], &directive.block) {
        (["limit_req", parameters @ ..], None) => limit(parameters, declared, note),
        (["return", status, body @ ..], None) if body.len() <= 1 => {
            returns(status, body.first().copied().unwrap_or_default())
        }
        (["add_header", name, value] | ["add_header", name, value, "always"], None) => {
            let name = plain_header(name).ok_or_else(|| format!("add_header {name} is not read"))?;
            Ok(Statement::Header { name, value: pieces(value, declared, &[])? })
        }
        (["proxy_set_header", name, value], None) => {
            let plain = plain_header(name).filter(|name| !is_an_order(name));
            let name = plain.ok_or_else(|| format!("proxy_set_header {name} is not read"))?;
            Ok(Statement::RequestHeader { name, value: pieces(value, declared, &declared.answered)? })
        }
        (["if", condition @ ..], Some(block)) => {
            let condition = condition_of(condition, declared)?;
            let then = block.iter().map(|inner| match statement(inner, declared, note)? {
                Statement::If { .. } => Err("an if within an if is not read".to_owned()),
                other => Ok(other),
            });
            Ok(Statement::If { condition, then: then.collect::<Result<_, _>>()? })
        }
        _ => Err(format!("`{}` is not read", words.first().copied().unwrap_or_default())),
    }
}

/// The name of a header that may be set, in lower case.
fn plain_header(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    (header::is_name(&name) && !header::OF_THE_CONNECTION.contains(&&*name)).then_some(name)
}

/// What Envoy takes for itself, and what it finds routes by.
fn is_an_order(name: &str) -> bool {
    name.starts_with("x-envoy-") || name.starts_with("x-chancery-")
}

fn limit(
    parameters: &[&str],
    declared: &Declared,
    note: &mut dyn FnMut(String),
) -> Result<Statement, String> {
    let (mut zone, mut burst, mut at_once) = (None, 0, false);
    for parameter in parameters {
        match parameter.split_once('=') {
            Some(("zone", name)) => zone = Some(name.to_owned()),
            Some(("burst", number)) => {
                burst = decimal(number).ok_or_else(|| format!("burst={number} is no whole number"))?;
            }
            Some(("delay", number)) if decimal(number).is_some() => {}
            None if *parameter == "nodelay" => at_once = true,
            _ => return Err(format!("{parameter} of limit_req is not read")),
        }
    }
    let zone = zone.ok_or("limit_req names a zone")?;
    match declared.zones.get(&zone).map(|zone| &zone.rate) {
        None => return Err(format!("no limit_req_zone declares the zone {zone}")),
        Some(Rate::Told(header)) if !declared.answered.iter().any(|known| **known == **header) => {
            return Err(format!(
                "the rate of the zone {zone} is told by {header}, which is not among the auth-response-headers of an \
                 auth-url, so that clients could say what they like"
            ));
        }
        Some(_) => {}
    }
    if burst > 0 && !at_once {
        note(format!(
            "the burst of the zone {zone} is let through at once, as with nodelay: nothing is made to wait"
        ));
    }
    Ok(Statement::Limit { zone, burst })
}

/// A redirect, or a connection closed without an answer, is not read.
fn returns(status: &str, body: &str) -> Result<Statement, String> {
    match status.parse::<u16>() {
        Ok(444) | Err(_) => Err(format!("return {status} is not read")),
        Ok(status) if !(matches!(status, 200..=299 | 400..=599)) => {
            Err(format!("return {status} is not read"))
        }
        Ok(_) if body.contains('$') => Err("return of a variable is not read".to_owned()),
        Ok(status) => Ok(Statement::Return { status, body: body.to_owned() }),
    }
}

fn condition_of(words: &[&str], declared: &Declared) -> Result<Condition, String> {
    let unread = || format!("the condition {} is not read", words.join(" "));
    let mut words = words.to_vec();
    // The brackets may stand by themselves, or as part of the first and the last word.
    let first = words.first_mut().ok_or_else(unread)?;
    *first = first.strip_prefix('(').ok_or_else(unread)?;
    if first.is_empty() {
        words.remove(0);
    }
    let last = words.last_mut().ok_or_else(unread)?;
    *last = last.strip_suffix(')').ok_or_else(unread)?;
    // The word `""` is empty as well, but it has a bracket behind it.
    if last.is_empty() {
        words.pop();
    }
    let (variable, operator, value) = match words[..] {
        [variable] => (variable, "!=", ""),
        [variable, operator, value] => (variable, operator, value),
        _ => return Err(unread()),
    };
    if value.contains('$') && !operator.contains('~') {
        return Err(unread());
    }
    if let Some(name) = variable.strip_prefix('$').filter(|name| declared.maps.contains_key(*name)) {
        let equal = match operator {
            "=" => true,
            "!=" => false,
            _ => return Err(unread()),
        };
        return Ok(Condition::Map { name: name.to_owned(), value: value.to_owned(), equal });
    }
    let header = header_of(variable).ok_or_else(unread)?;
    let matches = |value| HeaderMatch::new(&header, value);
    Ok(Condition::Header(match (operator, value) {
        ("=", "") => is_empty(&header),
        ("!=", "") => is_empty(&header).inverted(),
        ("=", text) => matches(TextMatch::Exact(text.to_owned())),
        ("!=", text) => matches(TextMatch::Exact(text.to_owned())).inverted(),
        ("~", text) => matches(anywhere(text, false)?),
        ("~*", text) => matches(anywhere(text, true)?),
        ("!~", text) => matches(anywhere(text, false)?).inverted(),
        ("!~*", text) => matches(anywhere(text, true)?).inverted(),
        _ => return Err(unread()),
    }))
}

/// Text and variables; a `$` that begins no name is text, as it is to nginx. Of these headers of an answer there is one.
fn pieces(text: &str, declared: &Declared, of_answers: &[String]) -> Result<Vec<Piece>, String> {
    if !header::is_value(text) {
        return Err("a header's value has no control characters".to_owned());
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, variable) = rest.split_at(at);
        pieces.push(Piece::Text(escape_format(before)));
        let end = variable[1..]
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .map_or(variable.len(), |end| end + 1);
        let (variable, after) = variable.split_at(end);
        let of_answer = answered(variable).filter(|header| of_answers.contains(header));
        pieces.push(match header_of(variable).or(of_answer) {
            Some(header) => Piece::Text(format!("%REQ({header})%")),
            None if declared.maps.contains_key(&variable[1..]) => Piece::Map(variable[1..].to_owned()),
            None => return Err(format!("the variable {variable} is not read")),
        });
        rest = after;
    }
    pieces.push(Piece::Text(escape_format(rest)));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    Ok(pieces)
}
