//! What is said of a routing object or policy as a whole, whatever host it is for.

use super::class;
use crate::crd::rate_limit_policy::RateLimitPolicy;
use crate::features::canary::Canary;
use crate::settings::Settings;
use crate::store::{Object, View};
use crate::values::{Findings, HostName, Kind, ObjectKey};

/// Whether the object is ours to serve, and findings that no host makes, since no host reads the object because of them.
pub fn object(view: &View<'_>, settings: &Settings, key: &ObjectKey) -> (bool, Findings) {
    let mut findings = Findings::default();
    let Some(stored) = view.object(key) else { return (false, findings) };
    let mut ours = true;
    match &stored.object {
        Object::Ingress(ingress) => {
            ours = class::claims(view, settings, key, ingress, &mut findings);
            if !ours && findings.is_empty() {
                // Another controller's: nothing to say of it.
                return (false, findings);
            }
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
        Object::RateLimitPolicy(policy) => {
            let has_target = check_target(view, settings, key, policy, &mut findings);
            if let Some((field, problem)) = policy.spec.problem() {
                let effect = match () {
                    () if !has_target => "the policy has no effect",
                    () if policy.spec.shadow => "nothing is counted",
                    () => "requests to the policy's target are answered 503",
                };
                findings.error(key, field, "InvalidLimit", format!("{problem}; {effect}"));
            }
        }
        _ => {}
    }
    (ours, findings)
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

/// A policy without its target would be a quota that nobody keeps. Says whether it is there.
fn check_target(
    view: &View<'_>,
    settings: &Settings,
    key: &ObjectKey,
    policy: &RateLimitPolicy,
    findings: &mut Findings,
) -> bool {
    let target = &policy.spec.target_ref;
    // What of it cannot be read is said instead.
    if policy.spec.unreadable.is_some() && (target.kind.is_empty() || target.name.is_empty()) {
        return false;
    }
    let Ok(kind @ (Kind::Ingress | Kind::VirtualService)) = target.kind.parse() else {
        let message =
            format!("{:?} is neither Ingress nor VirtualService; the policy has no effect", target.kind);
        findings.error(key, "spec.targetRef.kind", "UnsupportedTarget", message);
        return false;
    };
    let target_key = ObjectKey::new(kind, key.namespace.clone(), target.name.as_str());
    let served = |object: &Object| match object {
        // What is wrong with its class is said of itself.
        Object::Ingress(it) => class::claims(view, settings, &target_key, it, &mut Findings::default()),
        _ => true,
    };
    match view.object(&target_key) {
        None => {
            let message = format!(
                "{kind} {}/{} does not exist; the policy has no effect until it does",
                key.namespace, target.name
            );
            findings.error(key, "spec.targetRef.name", "TargetNotFound", message);
        }
        Some(stored) if is_canary(&stored.object) => {
            let message = format!(
                "{}/{} is a canary, whose requests are limited as those of its main Ingress; the policy has no effect",
                key.namespace, target.name
            );
            findings.error(key, "spec.targetRef.name", "TargetIsCanary", message);
        }
        Some(stored) if !served(&stored.object) => {
            let message = format!(
                "{kind} {}/{} is of a class that is not served here; the policy has no effect",
                key.namespace, target.name
            );
            findings.error(key, "spec.targetRef.name", "TargetNotServed", message);
        }
        Some(_) => return true,
    }
    false
}

fn is_canary(object: &Object) -> bool {
    matches!(object, Object::Ingress(ingress) if Canary::is_canary(ingress.metadata.annotations.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::store::{Store, Stored};
    use crate::values::Age;

    fn apply(store: &mut Store, object: Object) {
        store.apply(Arc::new(Stored::new(object, Age::default(), Vec::new())));
    }

    fn ingress(name: &str, class: Value) -> Object {
        let value = json!({
            "metadata": {"name": name, "namespace": "a"},
            "spec": {"ingressClassName": class, "rules": [{"host": "not a host"}]},
        });
        Object::Ingress(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn whose_an_ingress_is() {
        let mut store = Store::new("cluster.local");
        let class = json!({"metadata": {"name": "other"}, "spec": {"controller": "example.com/other"}});
        apply(&mut store, Object::IngressClass(serde_json::from_value(class).unwrap()));
        for (name, class, expected) in [
            ("ours", json!("nginx"), (true, vec!["InvalidHost"])),
            // Nothing is said of another controller's.
            ("theirs", json!("other"), (false, vec![])),
            ("nobodys", json!("none"), (false, vec!["IngressClassNotFound", "InvalidHost"])),
        ] {
            apply(&mut store, ingress(name, class));
            let key = ObjectKey::new(Kind::Ingress, "a", name);
            let (ours, findings) = object(&View::new(&store), &Settings::default(), &key);
            assert_eq!((ours, findings.iter().map(|finding| finding.reason).collect()), expected, "{name}");
        }
    }
}
