//! VirtualServices of a host to routes, as Istio serves them at a gateway.
//!
//! Rules and their matches are tried in the order in which they are written, never by how specific they are; one that
//! takes every request ends the list. What Istio's admission webhook refuses is found here: the rest of the object is
//! served.

mod destinations;
mod matches;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use thin_vec::ThinVec;

use super::draft::Draft;
use super::{Group, policies};
use crate::crd::virtual_service::{HttpRoute, VirtualService};
use crate::features::effects::{Answer, Effects, Listeners};
use crate::features::{
    Field, cors, direct_response, fault, headers, mirror, redirect, retries, rewrite, timeouts,
};
use crate::model::route::{MirrorBackend, Variant};
use crate::model::{Action, Match, PathMatch, Route};
use crate::values::{HostName, ObjectKey};

/// Whether the VirtualService names the draft's host. An empty host, which the index takes for every host as it is in an
/// Ingress, does not.
pub(crate) fn names_host(draft: &mut Draft<'_>, key: &ObjectKey, service: &VirtualService) -> bool {
    let hosts = &service.spec.hosts;
    let named = !draft.host.is_any() || hosts.iter().any(|host| host == "*");
    if !named {
        check_hosts(hosts, &mut Field::new(key, "spec.hosts", &mut draft.findings));
    }
    named
}

/// The routes that one VirtualService makes for the draft's host.
pub(crate) fn routes(draft: &mut Draft<'_>, key: &ObjectKey, service: &VirtualService) -> Group {
    check(draft, key, service);
    let mut group = Group::default();
    let mut shared = Effects::default();
    let hosts: Vec<_> = service.spec.hosts.iter().map(String::as_str).collect();
    let names: Vec<_> = service.spec.http.iter().filter_map(|rule| rule.name.as_deref()).collect();
    policies::check(draft, key, &hosts, &names);
    policies::apply(draft, key, None, &mut shared);
    let mut builder = Builder { key, service, shared, group: &mut group, open: Some(Listeners::All) };
    for (index, rule) in service.spec.http.iter().enumerate() {
        builder.rule(draft, &format!("spec.http[{index}]"), rule);
    }
    group
}

/// Whether the VirtualService names a gateway that is not the mesh.
fn names_gateway(service: &VirtualService) -> bool {
    service.spec.gateways.iter().flatten().any(|gateway| gateway != "mesh")
}

/// Says what of the object has no effect, whatever the host.
fn check(draft: &mut Draft<'_>, key: &ObjectKey, service: &VirtualService) {
    let spec = &service.spec;
    let findings = &mut draft.findings;
    for path in service.unknown_paths() {
        findings.warning(key, path, "UnknownField", "is not a field that has an effect");
    }
    let mut field = Field::new(key, "spec", findings);
    check_hosts(&spec.hosts, &mut field.child("hosts"));
    if names_gateway(service) {
        let message = "are not read yet; the routes stand on the default listeners for http and https";
        field.child("gateways").info("GatewaysNotRead", message);
    } else {
        let message = "name no Gateway, which in Istio means the mesh alone; the routes stand on the default \
                       listeners for http and https";
        field.child("gateways").warning("MeshOnly", message);
    }
    if spec.export_to.iter().flatten().any(|to| to != "*") {
        field.child("exportTo").warning("NotSupported", "is not supported yet and has no effect");
    }
    for (name, section) in [("tls", &spec.tls), ("tcp", &spec.tcp)] {
        let given =
            section.as_ref().is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()));
        if given {
            field.child(name).error("NotSupported", "is not supported yet and has no effect");
        }
    }
}

fn check_hosts(hosts: &[String], field: &mut Field<'_>) {
    for (index, host) in hosts.iter().enumerate() {
        let problem = match HostName::parse(host) {
            Ok(_) if !host.is_empty() => continue,
            Ok(_) => "a host is not empty; every host is *",
            Err(form) => form,
        };
        field.item(index).error("InvalidHost", format!("{problem}; {host:?} is not served"));
    }
}

/// What a rule does, and on which listeners: one action, or one for each listener where they differ.
#[derive(Debug)]
struct Outcome {
    actions: Vec<(Listeners, Variant, Action, ThinVec<MirrorBackend>)>,
    effects: Effects,
}

/// Puts the routes of one VirtualService together.
#[derive(Debug)]
struct Builder<'a> {
    key: &'a ObjectKey,
    service: &'a VirtualService,
    /// What policies do to every rule.
    shared: Effects,
    group: &'a mut Group,
    /// The listeners on which no route has taken every request yet.
    open: Option<Listeners>,
}

impl Builder<'_> {
    fn rule(&mut self, draft: &mut Draft<'_>, path: &str, rule: &HttpRoute) {
        let Some(outcome) = self.outcome(draft, path, rule) else { return };
        let entries = matches::entries(draft, self.key, path, rule, names_gateway(self.service));
        let effects = Arc::new(outcome.effects);
        for entry in entries {
            let mut reached = false;
            for (listeners, variant, action, mirrors) in &outcome.actions {
                let listeners = self.open.and_then(|open| open.and(entry.listeners)?.and(*listeners));
                let Some(listeners) = listeners else { continue };
                reached = true;
                let all = takes_everything(&entry.matches);
                let routes = if all { &mut self.group.everything } else { &mut self.group.routes };
                routes.push(Route {
                    origin: entry.origin.clone(),
                    variant: *variant,
                    listeners,
                    matches: entry.matches.clone(),
                    action: action.clone(),
                    effects: effects.clone(),
                    mirrors: mirrors.clone(),
                });
                if all {
                    self.open = self.open.and_then(|open| open.without(listeners));
                }
            }
            if !reached {
                let message = "is never reached: an earlier rule takes every request";
                draft.findings.warning(self.key, &*entry.origin.field, "NeverReached", message);
            }
        }
    }

    /// What policies do to a rule.
    fn shared(&self, draft: &mut Draft<'_>, rule: &HttpRoute) -> Effects {
        let mut effects = self.shared.clone();
        if let Some(name) = &rule.name {
            policies::apply(draft, self.key, Some(name), &mut effects);
        }
        effects
    }

    /// What a rule does. None, with a finding, if it is left out.
    fn outcome(&self, draft: &mut Draft<'_>, path: &str, rule: &HttpRoute) -> Option<Outcome> {
        let mut effects = self.shared(draft, rule);
        let mut field = Field::new(self.key, path, &mut draft.findings);
        check_kind(rule, &mut field)?;
        let answers = if let Some(redirect) = &rule.redirect {
            let ports = (draft.settings.http_port, draft.settings.https_port);
            redirect::from_redirect(redirect, &mut field.child("redirect"), ports)?
        } else if let Some(response) = &rule.direct_response {
            let answer = direct_response::from_direct_response(response, &mut field.child("directResponse"))?;
            fault::from_rule(rule, &mut field, &mut effects);
            vec![(Listeners::All, answer)]
        } else {
            return Some(self.forward(draft, path, rule));
        };
        headers::from_rule(rule, &mut field, &mut effects);
        let actions = answers
            .into_iter()
            .map(|(listeners, answer)| (listeners, Variant::Main, Action::Answer(answer), ThinVec::new()))
            .collect();
        Some(Outcome { actions, effects })
    }

    fn forward(&self, draft: &mut Draft<'_>, path: &str, rule: &HttpRoute) -> Outcome {
        let mut effects = self.shared(draft, rule);
        let mut field = Field::new(self.key, path, &mut draft.findings);
        for read in [
            timeouts::from_rule,
            retries::from_rule,
            rewrite::from_rule,
            headers::from_rule,
            fault::from_rule,
            cors::from_rule,
        ] {
            read(rule, &mut field, &mut effects);
        }
        let copies = mirror::from_rule(rule, &mut field);
        let mut on = |listeners, effects: &mut Effects| {
            let mirrors = destinations::mirrors(draft, self.key, &copies, listeners, effects);
            match destinations::destinations(draft, self.key, path, rule, listeners, effects) {
                Some(destinations) => (Variant::Main, Action::Forward(destinations), mirrors),
                None => {
                    let unavailable = Answer::Direct { status: 503, body: Vec::new() };
                    (Variant::Unavailable, Action::Answer(unavailable), mirrors)
                }
            }
        };
        let with = |listeners, (variant, action, mirrors)| (listeners, variant, action, mirrors);
        if !destinations::by_listener(rule) {
            let all = on(Listeners::All, &mut effects);
            return Outcome { actions: vec![with(Listeners::All, all)], effects };
        }
        // Both begin with the same effects; only which mirrors there are can differ.
        let mut before = effects.clone();
        let http = on(Listeners::Http, &mut effects);
        before.mirrors.clone_from(&effects.mirrors);
        let https = on(Listeners::Https, &mut before);
        effects.mirrors = before.mirrors;
        let actions = if http == https {
            vec![with(Listeners::All, http)]
        } else {
            vec![with(Listeners::Http, http), with(Listeners::Https, https)]
        };
        Outcome { actions, effects }
    }
}

/// A rule does one thing. None, with a finding, if it does nothing that is supported.
fn check_kind(rule: &HttpRoute, field: &mut Field<'_>) -> Option<()> {
    if rule.delegate.is_some() {
        field.child("delegate").error("NotSupported", "is not supported yet; the rule is left out");
        return None;
    }
    let kinds = [
        ("redirect", rule.redirect.is_some()),
        ("directResponse", rule.direct_response.is_some()),
        ("route", !rule.route.is_empty()),
    ];
    let mut given = kinds.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
    let Some(first) = given.next() else {
        field.error("InvalidRule", "has none of route, redirect and directResponse; the rule is left out");
        return None;
    };
    for other in given {
        field.child(other).error("InvalidRule", format!("has no effect beside {first}; give one of them"));
    }
    if first != "route" {
        let idle = [
            ("rewrite", rule.rewrite.is_some()),
            ("mirror", rule.mirror.is_some()),
            ("mirrors", rule.mirrors.is_some()),
            ("corsPolicy", rule.cors_policy.is_some()),
            ("fault", rule.fault.is_some() && first == "redirect"),
        ];
        for (name, _) in idle.iter().filter(|(_, given)| *given) {
            field.child(name).warning("InvalidRule", format!("has no effect beside {first}"));
        }
    }
    Some(())
}

/// Istio's catch-all: the prefix `/` or the expression `.*`, and nothing else.
fn takes_everything(matches: &Match) -> bool {
    let path = match &matches.path {
        PathMatch::Prefix(prefix) => prefix == "/",
        PathMatch::Regex(regex) => regex == ".*",
        _ => false,
    };
    path && matches.is_path_only()
}
