//! What nginx's `http` level declares for all: zones of limits, and maps.

use std::collections::BTreeMap;

use super::Rate;
use super::syntax::Directive;
use crate::values::matching::{HeaderMatch, TextMatch};
use crate::values::{LimitKey, Origin, header, pattern};

/// `limit_req_zone`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    pub(super) key: LimitKey,
    pub(super) rate: Rate,
    /// What declares it: all who limit by the zone share its counters.
    pub(super) origin: Origin,
}

/// `map`: the value of a variable by that of a header. The first entry that matches counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) entries: Vec<(HeaderMatch, String)>,
    pub(super) default: String,
}

/// What is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Declared {
    /// The headers that the upstream has of the answer of `auth-url` alone, in lower case.
    pub(super) answered: Vec<String>,
    pub(super) zones: BTreeMap<String, Zone>,
    pub(super) maps: BTreeMap<String, Map>,
    /// `limit_req_status`
    pub(super) status: Option<u16>,
}

impl Declared {
    /// Takes a declaration in; false if the directive is none.
    ///
    /// # Errors
    /// What is wrong with it, in one clause.
    pub(super) fn take(&mut self, directive: &Directive, origin: &Origin) -> Result<bool, String> {
        let words: Vec<_> = directive.words.iter().map(String::as_str).collect();
        match (&words[..], &directive.block) {
            (["limit_req_zone", key, parameters @ ..], None) => {
                let (name, zone) = zone(key, parameters, origin)?;
                if self.zones.insert(name.clone(), zone).is_some() {
                    return Err(format!("the zone {name} is declared twice"));
                }
            }
            (["limit_req_status", status], None) => {
                let known =
                    status.parse().ok().filter(|status| crate::features::request_limits::is_refusal(*status));
                self.status =
                    Some(known.ok_or_else(|| format!("{status} is no status that Envoy can refuse with"))?);
            }
            (["map", source, variable], Some(block)) => {
                let name = variable.strip_prefix('$').ok_or("a map's second parameter is a variable")?;
                if self.maps.insert(name.to_owned(), map(source, block)?).is_some() {
                    return Err(format!("the map ${name} is declared twice"));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn zone(key: &str, parameters: &[&str], origin: &Origin) -> Result<(String, Zone), String> {
    const FORM: &str = "a zone is of the form limit_req_zone $http_NAME zone=NAME:SIZE rate=Nr/s";
    let key = match key {
        "$binary_remote_addr" | "$remote_addr" => LimitKey::ClientAddress,
        key => {
            let name = header_of(key);
            LimitKey::Header(name.ok_or_else(|| format!("{key} is no key that is read; {FORM}"))?.into())
        }
    };
    let (mut name, mut known) = (None, None);
    for parameter in parameters {
        if let Some((given, size)) = parameter.strip_prefix("zone=").and_then(|zone| zone.split_once(':')) {
            let number = size.trim_end_matches(['k', 'K', 'm', 'M']);
            let is_size = size.len() - number.len() <= 1 && number.parse::<u64>().is_ok_and(|size| size > 0);
            name = (is_name(given) && is_size).then_some(given);
        } else if let Some(given) = parameter.strip_prefix("rate=") {
            known = rate(given);
        } else {
            return Err(format!("{parameter} is not read; {FORM}"));
        }
    }
    let (Some(name), Some(rate)) = (name, known) else { return Err(FORM.to_owned()) };
    Ok((name.to_owned(), Zone { key, rate, origin: origin.clone() }))
}

fn rate(text: &str) -> Option<Rate> {
    if let Some(header) = answered(text) {
        return Some(Rate::Told(header.into()));
    }
    let (number, period_ms) = match (text.strip_suffix("r/s"), text.strip_suffix("r/m")) {
        (Some(number), _) => (number, 1_000),
        (_, Some(number)) => (number, 60_000),
        _ => return None,
    };
    let requests = decimal(number).filter(|requests| *requests > 0)?;
    Some(Rate::Fixed { requests, period_ms })
}

/// A whole number in digits alone.
pub(super) fn decimal(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// The request header that a variable stands for, in lower case.
pub(super) fn header_of(variable: &str) -> Option<String> {
    named(variable.strip_prefix("$http_")?)
}

/// The header of an answer that a variable stands for, in lower case. Manifests mean the answer of `auth-url` by it, since
/// there is no other when requests are counted and sent on.
pub(super) fn answered(variable: &str) -> Option<String> {
    named(variable.strip_prefix("$upstream_http_")?)
}

fn named(name: &str) -> Option<String> {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let name = name.to_ascii_lowercase().replace('_', "-");
    (plain && header::is_name(&name)).then_some(name)
}

/// nginx looks for equal text first, in any letter case, and then tries expressions in their order.
fn map(source: &str, block: &[Directive]) -> Result<Map, String> {
    let header =
        header_of(source).ok_or_else(|| format!("a map of {source} is not read, one of $http_NAME is"))?;
    let (mut equal, mut patterns, mut default) = (Vec::new(), Vec::new(), None);
    for Directive { words, block, .. } in block {
        let ([from, to], None) = (&words[..], block) else {
            return Err(format!(
                "a map's entry is a value and what becomes of it, and not {}",
                words.join(" ")
            ));
        };
        if to.contains('$') || !header::is_value(to) {
            return Err(format!("a map to plain text is read, and not one to {to}"));
        }
        let wanted = match from.strip_prefix('~') {
            _ if from == "default" => {
                if default.replace(to.clone()).is_some() {
                    return Err("a map has one default".to_owned());
                }
                continue;
            }
            Some(expression) => {
                let (expression, insensitive) = match expression.strip_prefix('*') {
                    Some(rest) => (rest, true),
                    None => (expression, false),
                };
                patterns.push((HeaderMatch::new(&header, anywhere(expression, insensitive)?), to.clone()));
                continue;
            }
            None if ["volatile", "hostnames", "include"].contains(&from.as_str()) => {
                return Err(format!("{from} is not read in a map"));
            }
            None => from.strip_prefix('\\').unwrap_or(from),
        };
        let matcher = match wanted {
            "" => is_empty(&header),
            text => HeaderMatch::new(&header, TextMatch::Regex(format!("(?i){}", pattern::escape(text)))),
        };
        equal.push((matcher, to.clone()));
    }
    equal.extend(patterns);
    Ok(Map { entries: equal, default: default.unwrap_or_default() })
}

/// A header that is not there, or has nothing in it.
pub(super) fn is_empty(header: &str) -> HeaderMatch {
    HeaderMatch::new(header, TextMatch::Regex("(?s).+".to_owned())).inverted()
}

/// An expression that nginx looks for anywhere in the text.
///
/// # Errors
/// Why Envoy would refuse it.
pub(super) fn anywhere(expression: &str, insensitive: bool) -> Result<TextMatch, String> {
    let flag = if insensitive { "(?i)" } else { "" };
    pattern::check(&format!("{flag}{expression}"))
        .map_err(|error| format!("{expression} is not a regular expression that Envoy accepts: {error}"))?;
    Ok(TextMatch::Regex(format!("(?s:.*){flag}(?:{expression})(?s:.*)")))
}
