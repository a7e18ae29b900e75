//! `upstream-vhost`: the Host that the upstream sees.

use serde::Serialize;

use super::effects::set;
use super::{Annotation, Effects, Feature, Reader};
use crate::values::Origin;

const UPSTREAM_VHOST: Annotation = Annotation {
    name: "upstream-vhost",
    value: "host name, with a port if need be; in it `$namespace`, `$ingress_name`, `$service_name` and `$service_port`",
    default: "the request's own Host",
    example: "model.internal.example",
    text: "Host header of the request that the upstream sees; X-Forwarded-Host keeps the client's. The variables are \
           those of the path: its Ingress and its Service. `$host` and `$http_host` alone stand for the request's own.",
    config_map: None,
};

/// The Host that the upstream sees.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct UpstreamVhost {
    /// The value, in its parts.
    pub host: Vec<Part>,
    /// The annotation.
    pub origin: Origin,
}

/// A part of the value.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// Text.
    Text(String),
    /// What depends on the path.
    Variable(Variable),
}

/// What ingress-nginx sets for each path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Variable {
    /// `$namespace`, of the Ingress.
    Namespace,
    /// `$ingress_name`
    IngressName,
    /// `$service_name`
    ServiceName,
    /// `$service_port`, as the Ingress names it: its number or its name.
    ServicePort,
}

impl UpstreamVhost {
    /// Whether the value depends on the path.
    pub fn has_variables(&self) -> bool {
        self.host.iter().any(|part| matches!(part, Part::Variable(_)))
    }

    /// The value for a path.
    pub fn expand(&self, value: impl Fn(Variable) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Variable(variable) => value(*variable),
        };
        self.host.iter().map(part).collect()
    }
}

impl Feature for UpstreamVhost {
    const ANNOTATIONS: &'static [Annotation] = &[UPSTREAM_VHOST];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (host, origin) = reader.parse(&UPSTREAM_VHOST, parse)?;
        (!host.is_empty()).then_some(Self { host, origin })
    }

    fn apply(&self, effects: &mut Effects) {
        if let [Part::Text(host)] = &self.host[..] {
            set(&mut effects.host_rewrite, host.clone(), self.origin.clone());
        }
    }
}

/// The parts of a value; none if it stands for the request's own Host.
fn parse(text: &str) -> Result<Vec<Part>, &'static str> {
    const FORM: &str = "a host name, with a port if need be, in which $namespace, $ingress_name, $service_name and \
                        $service_port are expanded (other nginx variables are not)";
    if ["$host", "$http_host", "${host}", "${http_host}"].contains(&text) {
        return Ok(Vec::new());
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find('$').unwrap_or(rest.len());
        let (plain, variable) = rest.split_at(end);
        if !plain.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b)) {
            return Err(FORM);
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain.to_owned()));
        }
        rest = variable;
        if let Some(named) = variable.strip_prefix('$') {
            let (variable, after) = split_variable(named).ok_or(FORM)?;
            parts.push(Part::Variable(variable));
            rest = after;
        }
    }
    if parts.is_empty() { Err(FORM) } else { Ok(parts) }
}

/// A variable behind its `$`, and what comes after it.
fn split_variable(text: &str) -> Option<(Variable, &str)> {
    let (name, after) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}')?,
        None => {
            text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len()))
        }
    };
    let variable = match name {
        "namespace" => Variable::Namespace,
        "ingress_name" => Variable::IngressName,
        "service_name" => Variable::ServiceName,
        "service_port" => Variable::ServicePort,
        _ => return None,
    };
    Some((variable, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{Kind, ObjectKey};

    #[test]
    fn variables_are_expanded() {
        let origin = Origin::new(&ObjectKey::new(Kind::Ingress, "ml", "a"), "");
        let expanded = |text: &str| {
            let vhost = UpstreamVhost { host: parse(text).ok()?, origin: origin.clone() };
            Some(vhost.expand(|variable| format!("<{variable:?}>")))
        };
        for (text, expected) in [
            ("a.internal:80", Some("a.internal:80")),
            ("$service_name.$namespace.svc", Some("<ServiceName>.<Namespace>.svc")),
            ("${ingress_name}x:$service_port", Some("<IngressName>x:<ServicePort>")),
            ("$host", Some("")),
            ("${http_host}", Some("")),
            ("$host.internal", None),
            ("$service_names", None),
            ("${namespace", None),
            ("$", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(expanded(text).as_deref(), expected, "{text}");
        }
    }
}
