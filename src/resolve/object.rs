//! What is said of a routing object or policy as a whole, whatever host it is for.

use crate::crd::rate_limit_policy::RateLimitPolicy;
use crate::store::{Object, View};
use crate::values::{Findings, HostName, Kind, ObjectKey};

/// Findings that no host makes, since no host reads the object because of them.
pub fn object(view: &View<'_>, key: &ObjectKey) -> Findings {
    let mut findings = Findings::default();
    let Some(stored) = view.object(key) else { return findings };
    match &stored.object {
        Object::Ingress(ingress) => {
            let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
            for (index, rule) in rules.enumerate() {
                let host = rule.host.as_deref().unwrap_or_default();
                check_host(key, host, format!("spec.rules[{index}].host"), &mut findings);
            }
        }
        Object::VirtualService(service) => {
            for (index, host) in service.spec.hosts.iter().enumerate() {
                check_host(key, host, format!("spec.hosts[{index}]"), &mut findings);
            }
            if service.spec.hosts.is_empty() {
                findings.error(key, "spec.hosts", "InvalidHost", "names no host, so nothing is routed");
            }
        }
        Object::RateLimitPolicy(policy) => check_target(view, key, policy, &mut findings),
        _ => {}
    }
    findings
}

fn check_host(key: &ObjectKey, host: &str, field: String, findings: &mut Findings) {
    if let Err(form) = HostName::parse(host) {
        findings.error(
            key,
            field,
            "InvalidHost",
            format!("{host:?} is not one: {form}; nothing is routed for it"),
        );
    }
}

/// A policy without its target would be a quota that nobody keeps.
fn check_target(view: &View<'_>, key: &ObjectKey, policy: &RateLimitPolicy, findings: &mut Findings) {
    let target = &policy.spec.target_ref;
    let Ok(kind @ (Kind::Ingress | Kind::VirtualService)) = target.kind.parse() else {
        let message =
            format!("{:?} is neither Ingress nor VirtualService; the policy has no effect", target.kind);
        findings.error(key, "spec.targetRef.kind", "UnsupportedTarget", message);
        return;
    };
    if view.object(&ObjectKey::new(kind, key.namespace.clone(), target.name.as_str())).is_none() {
        let message = format!(
            "{kind} {}/{} does not exist; the policy has no effect until it does",
            key.namespace, target.name
        );
        findings.error(key, "spec.targetRef.name", "TargetNotFound", message);
    }
}
