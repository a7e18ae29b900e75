//! Changes of headers, as VirtualServices say them: what is removed, what is set, what is added.

use std::collections::BTreeMap;

use super::effects::{HeaderOperation, Single, set};
use super::{Effects, Field};
use crate::crd::virtual_service::{HeaderOperations, Headers, HttpRoute};
use crate::values::{Setting, header};

/// The longest value that Envoy takes.
const MAX_VALUE: usize = 16 << 10;

/// Headers of one connection or of a message's frame. Envoy would send what is set and act otherwise, so that the other
/// side waits for what never comes.
const FRAMING: &[&str] =
    &["connection", "content-length", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// What Envoy may put into a value, out of Istio's format strings. None of it can fail or tell secrets.
const COMMANDS: &[&str] = &[
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "PROTOCOL",
    "REQUESTED_SERVER_NAME",
    "RESPONSE_CODE",
    "RESPONSE_FLAGS",
    "START_TIME",
    "UPSTREAM_HOST",
];

/// Changes of one request and its response.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Of request headers.
    pub request: Vec<HeaderOperation>,
    /// Of response headers.
    pub response: Vec<HeaderOperation>,
    /// What `host` or `:authority` was set to.
    pub authority: Option<Setting<String>>,
}

/// VirtualService's `headers` of a rule.
pub fn from_rule(rule: &HttpRoute, field: &mut Field<'_>, effects: &mut Effects) {
    let Some(headers) = &rule.headers else { return };
    let mut field = field.child("headers");
    let changes = changes(headers, &mut field);
    effects.request_headers.extend(changes.request);
    effects.response_headers.extend(changes.response);
    if let Some(authority) = authority_unless(changes.authority, &effects.host_rewrite, &mut field) {
        set(&mut effects.host_rewrite, authority.value, authority.origin);
    }
}

/// The host that `headers` set, unless it is rewritten already: a rule's `rewrite` beats its headers, and those beat a
/// destination's, be it one of several or the only one, as Istio has it for the only one.
pub fn authority_unless(
    authority: Option<Setting<String>>,
    rewritten: &Single<String>,
    headers: &mut Field<'_>,
) -> Option<Setting<String>> {
    let authority = authority?;
    let Some(rewritten) = rewritten else { return Some(authority) };
    let message = format!("the host is rewritten by {} already, which counts", rewritten.origin.field);
    headers.warning("AuthorityTwice", message);
    None
}

/// VirtualService's `headers`, of a rule or of a destination.
pub fn changes(headers: &Headers, field: &mut Field<'_>) -> Changes {
    let mut changes = Changes::default();
    if let Some(operations) = &headers.request {
        let mut field = field.child("request");
        changes.authority = authority(operations, &mut field);
        changes.request = read(operations, &mut field, is_authority);
    }
    if let Some(operations) = &headers.response {
        changes.response = read(operations, &mut field.child("response"), |_| false);
    }
    changes
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// The authority is not a header to Envoy: what is set beats what is added.
fn authority(operations: &HeaderOperations, field: &mut Field<'_>) -> Option<Setting<String>> {
    for (list, values) in [("set", &operations.set), ("add", &operations.add)] {
        let found = values.iter().flatten().find(|(name, _)| is_authority(name));
        if let Some((name, value)) = found {
            let mut field = field.child(list);
            let mut field = field.child(name);
            return field.header_text(Some(value)).map(|value| Setting { value, origin: field.origin() });
        }
    }
    None
}

/// Envoy takes away first, then sets, then adds; each of them ordered by name.
fn read(
    operations: &HeaderOperations,
    field: &mut Field<'_>,
    elsewhere: impl Fn(&str) -> bool,
) -> Vec<HeaderOperation> {
    let mut read = Vec::new();
    for (index, name) in operations.remove.iter().flatten().enumerate() {
        if is_changeable(name) {
            read.push(HeaderOperation::Remove(name.to_ascii_lowercase()));
        } else {
            field.child("remove").item(index).error("InvalidHeader", not_changeable(name, "removed"));
        }
    }
    let mut values =
        |list: &str, values: &Option<BTreeMap<String, String>>, operation: fn(String, String) -> _| {
            let mut field = field.child(list);
            for (name, value) in values.iter().flatten().filter(|(name, _)| !elsewhere(name)) {
                let mut field = field.child(name);
                if !is_changeable(name) {
                    field.error("InvalidHeader", not_changeable(name, "changed"));
                } else if FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
                    let message =
                        format!("{name} says how a message is carried, which is Envoy's; it has no effect");
                    field.error("InvalidHeader", message);
                } else if !header::is_value(value) || value.len() > MAX_VALUE {
                    field.error("InvalidHeader", "has a value that no header can have; it has no effect");
                } else {
                    read.push(operation(name.to_ascii_lowercase(), format(value, &mut field)));
                }
            }
        };
    values("set", &operations.set, HeaderOperation::Set);
    values("add", &operations.add, HeaderOperation::Add);
    read
}

/// Envoy refuses changes of pseudo headers and of `host`.
fn is_changeable(name: &str) -> bool {
    header::is_name(name) && !is_authority(name)
}

fn not_changeable(name: &str, verb: &str) -> String {
    if header::is_name(name.trim_start_matches(':')) {
        format!("{name} is not a header that can be {verb} here; it has no effect")
    } else {
        format!("{name:?} is not a header name; it has no effect")
    }
}

/// An Istio value as an Envoy format string: `%%` is one percent sign, a few commands are honoured, and every other
/// percent sign stands for itself.
fn format(text: &str, field: &mut Field<'_>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut literal = false;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push_str("%%");
            rest = after;
        } else if let Some((command, after)) = rest.split_once('%').filter(|(command, _)| is_command(command))
        {
            out.push('%');
            out.push_str(command);
            out.push('%');
            rest = after;
        } else {
            out.push_str("%%");
            literal = true;
        }
    }
    out.push_str(rest);
    if literal {
        field.info(
            "PercentSign",
            format!("{text:?}: a percent sign that begins no known command is sent as it stands"),
        );
    }
    out
}

/// Without arguments, or `REQ` and `RESP` of one header.
fn is_command(text: &str) -> bool {
    let header = || {
        let (command, rest) = text.split_once('(')?;
        let name = rest.strip_suffix(')')?;
        let name = name.strip_prefix(':').unwrap_or(name);
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (matches!(command, "REQ" | "RESP") && plain && !name.is_empty()).then_some(())
    };
    COMMANDS.contains(&text) || header().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{Findings, Kind, ObjectKey};

    #[test]
    fn only_known_commands_reach_the_formatter() {
        let object = ObjectKey::new(Kind::VirtualService, "shop", "api");
        for (text, formatted, found) in [
            ("plain", "plain", 0),
            ("100%%", "100%%", 0),
            ("100%", "100%%", 1),
            ("%START_TIME%", "%START_TIME%", 0),
            ("a%REQ(x-user)%b", "a%REQ(x-user)%b", 0),
            ("%REQ(:PATH)%", "%REQ(:PATH)%", 0),
            ("%REQ(a?b):3%", "%%REQ(a?b):3%%", 1),
            ("%ENVIRONMENT(HOME)%", "%%ENVIRONMENT(HOME)%%", 1),
            ("50% of %PROTOCOL%", "50%% of %PROTOCOL%", 1),
            ("%", "%%", 1),
            ("%%%", "%%%%", 1),
        ] {
            let mut findings = Findings::default();
            assert_eq!(format(text, &mut Field::new(&object, "spec", &mut findings)), formatted, "{text}");
            assert_eq!(findings.iter().count(), found, "{text}");
        }
    }
}
