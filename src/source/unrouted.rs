//! Kinds that stand beside routing objects in many manifests and are no concern of a proxy's.

/// API groups none of whose kinds route requests.
const GROUPS: &[&str] = &[
    "acme.cert-manager.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "argoproj.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "autoscaling.k8s.io",
    "batch",
    "bitnami.com",
    "cert-manager.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "events.k8s.io",
    "external-secrets.io",
    "flowcontrol.apiserver.k8s.io",
    "helm.toolkit.fluxcd.io",
    "keda.sh",
    "kustomize.config.k8s.io",
    "kustomize.toolkit.fluxcd.io",
    "kyverno.io",
    "leaderworkerset.x-k8s.io",
    "metrics.k8s.io",
    "monitoring.coreos.com",
    "node.k8s.io",
    "policy",
    "ray.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "security.istio.io",
    "serving.knative.dev",
    "serving.kserve.io",
    "snapshot.storage.k8s.io",
    "source.toolkit.fluxcd.io",
    "storage.k8s.io",
    "telemetry.istio.io",
];

/// Kinds of groups that route requests too.
const KINDS: &[(&str, &str)] = &[
    ("discovery.k8s.io", "EndpointSlice"),
    ("networking.k8s.io", "IPAddress"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("networking.k8s.io", "ServiceCIDR"),
];

/// Whether a kind is known to be none of Chancery's business.
pub fn is_well_known(group: &str, kind: &str) -> bool {
    // All of the core group: what routes there is read.
    (group.is_empty() && !kind.is_empty()) || GROUPS.contains(&group) || KINDS.contains(&(group, kind))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_groups_are_sorted() {
        assert!(super::GROUPS.is_sorted() && super::KINDS.is_sorted());
    }
}
