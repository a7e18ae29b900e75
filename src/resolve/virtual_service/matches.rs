//! `match`: entries are alternatives, the fields of one are all asked for.
//!
//! An entry that cannot be honoured is left out: without one of its conditions it would take requests that it was not
//! written for.

use std::collections::BTreeMap;

use crate::crd::virtual_service::{HttpMatchRequest, HttpRoute, StringMatch};
use crate::features::Field;
use crate::features::effects::Listeners;
use crate::features::field::{checked_regex, text_match};
use crate::model::{Match, PathMatch};
use crate::resolve::draft::Draft;
use crate::settings::Settings;
use crate::values::matching::{HeaderMatch, NamedMatch, TextMatch};
use crate::values::{ObjectKey, Origin, header, path};

/// One alternative of a rule.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) listeners: Listeners,
    pub(super) matches: Match,
}

/// The alternatives of a rule that can be honoured; a rule without any takes everything. `gateways` says whether the
/// VirtualService names a gateway, so that an entry for the mesh alone is not for us.
pub(super) fn entries(
    draft: &mut Draft<'_>,
    key: &ObjectKey,
    path: &str,
    rule: &HttpRoute,
    gateways: bool,
) -> Vec<Entry> {
    if rule.r#match.is_empty() {
        let matches = Match::path(PathMatch::Prefix("/".to_owned()));
        return vec![Entry { origin: Origin::new(key, path), listeners: Listeners::All, matches }];
    }
    let mut entries = Vec::with_capacity(rule.r#match.len());
    for (index, wanted) in rule.r#match.iter().enumerate() {
        let mut field = Field::new(key, format!("{path}.match[{index}]"), &mut draft.findings);
        entries.extend(entry(wanted, &mut field, draft.settings, gateways));
    }
    entries
}

fn entry(
    wanted: &HttpMatchRequest,
    field: &mut Field<'_>,
    settings: &Settings,
    gateways: bool,
) -> Option<Entry> {
    if let Some(names) = &wanted.gateways {
        if gateways && !names.is_empty() && names.iter().all(|name| name == "mesh") {
            field.child("gateways").info("MeshOnly", "is for the mesh alone; the match is left out");
            return None;
        }
        field
            .child("gateways")
            .info("GatewaysNotRead", "are not read yet; the match stands on every listener");
    } else if wanted.source_labels.as_ref().is_some_and(|labels| !labels.is_empty())
        || wanted.source_namespace.as_ref().is_some_and(|namespace| !namespace.is_empty())
    {
        field.warning(
            "SourceNotMatched",
            "asks for workloads of the mesh, of which there are none; it is left out",
        );
        return None;
    }
    // Every condition is read, so that all that is wrong is said at once.
    let listeners = listeners(wanted.port, field, settings);
    let path = path(wanted, field);
    let headers = headers(wanted, field);
    let query_parameters = named(wanted.query_params.as_ref(), &mut field.child("queryParams"));
    let matches =
        Match { headers: headers?.into(), query_parameters: query_parameters?.into(), ..Match::path(path?) };
    Some(Entry { origin: field.origin(), listeners: listeners?, matches })
}

/// `port` is the gateway's: the number of our listener, or that of its scheme.
fn listeners(port: Option<u32>, field: &mut Field<'_>, settings: &Settings) -> Option<Listeners> {
    let port = port.filter(|port| *port != 0);
    match port {
        None => Some(Listeners::All),
        Some(port) if port == u32::from(settings.http_port) => Some(Listeners::Http),
        Some(port) if port == u32::from(settings.https_port) => Some(Listeners::Https),
        Some(80) => Some(Listeners::Http),
        Some(443) => Some(Listeners::Https),
        Some(port) => {
            let message = format!("no listener has port {port}; the match is left out");
            field.child("port").warning("PortNotServed", message);
            None
        }
    }
}

fn path(wanted: &HttpMatchRequest, field: &mut Field<'_>) -> Option<PathMatch> {
    let everything = || Some(PathMatch::Prefix("/".to_owned()));
    let Some(uri) = &wanted.uri else { return everything() };
    let mut field = field.child("uri");
    let ignore_case = |text: &str| wanted.ignore_uri_case && text.bytes().any(|b| b.is_ascii_alphabetic());
    let path = match (&uri.exact, &uri.prefix, &uri.regex) {
        (None, None, None) => return everything(),
        (Some(text), None, None) if ignore_case(text) => PathMatch::ExactIgnoreCase(text.clone()),
        (Some(text), None, None) => PathMatch::Exact(text.clone()),
        (None, Some(text), None) if ignore_case(text) => PathMatch::PrefixIgnoreCase(text.clone()),
        (None, Some(text), None) => PathMatch::Prefix(text.clone()),
        (None, None, Some(regex)) => match checked_regex(regex) {
            Ok(regex) => return Some(PathMatch::Regex(regex)),
            Err(problem) => {
                field.error("InvalidRegex", format!("{problem}; the match is left out"));
                return None;
            }
        },
        _ => {
            field
                .error("InvalidMatch", "has more than one of exact, prefix and regex; the match is left out");
            return None;
        }
    };
    let text = path.text();
    if !(text.starts_with('/') || text.is_empty() && uri.prefix.is_some()) {
        field.warning("NeverMatches", format!("{text:?} does not begin with a slash, as every path does"));
    } else if let Some(problem) = path::never_sent(text, uri.prefix.is_none()) {
        field.warning("NeverMatches", format!("{text:?} {problem}"));
    }
    Some(path)
}

/// `headers` and `withoutHeaders`, then the pseudo headers that have fields of their own.
fn headers(wanted: &HttpMatchRequest, field: &mut Field<'_>) -> Option<Vec<HeaderMatch>> {
    let mut matches = Some(Vec::new());
    let mut add = |found: Option<HeaderMatch>| match (&mut matches, found) {
        (Some(matches), Some(found)) => matches.push(found),
        _ => matches = None,
    };
    for (list, wanted, invert) in
        [("headers", &wanted.headers, false), ("withoutHeaders", &wanted.without_headers, true)]
    {
        let mut field = field.child(list);
        for (name, value) in wanted.iter().flatten() {
            add(header(name, value, invert, &mut field.child(name)));
        }
    }
    for (list, name, value) in [
        ("method", ":method", &wanted.method),
        ("authority", ":authority", &wanted.authority),
        ("scheme", ":scheme", &wanted.scheme),
    ] {
        if let Some(value) = value {
            add(header(name, value, false, &mut field.child(list)));
        }
    }
    matches
}

fn header(name: &str, value: &StringMatch, invert: bool, field: &mut Field<'_>) -> Option<HeaderMatch> {
    if !header::is_name(name.strip_prefix(':').unwrap_or(name)) {
        field.error("InvalidMatch", format!("{name:?} is not a header's name; the match is left out"));
        return None;
    }
    let value = text(value, field)?;
    let matches = HeaderMatch::new(name, value);
    Some(if invert { matches.inverted() } else { matches })
}

fn named(wanted: Option<&BTreeMap<String, StringMatch>>, field: &mut Field<'_>) -> Option<Vec<NamedMatch>> {
    let mut matches = Some(Vec::new());
    for (name, value) in wanted.into_iter().flatten() {
        let mut field = field.child(name);
        let value = text(value, &mut field).filter(|_| {
            let valid = (1..=1024).contains(&name.len());
            if !valid {
                field.error("InvalidMatch", "the name has 1 to 1024 bytes; the match is left out");
            }
            valid
        });
        match (&mut matches, value) {
            (Some(matches), Some(value)) => matches.push(NamedMatch { name: name.clone(), value }),
            _ => matches = None,
        }
    }
    matches
}

fn text(wanted: &StringMatch, field: &mut Field<'_>) -> Option<TextMatch> {
    text_match(wanted)
        .map_err(|problem| field.error("InvalidMatch", format!("{problem}; the match is left out")))
        .ok()
}
