//! The commands by which people install: kubectl, helm and the scripts.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::cluster::tools::built_by;
pub(crate) use crate::cluster::tools::{attempt, kubectl, root, run};

pub(crate) fn helm() -> Command {
    Command::new(built_by("scripts/install-kubectl").join("helm"))
}

/// Objects by kind, namespace and name.
pub(crate) type Objects = BTreeMap<(String, String, String), Value>;

/// The objects of a text of manifests.
pub(crate) fn objects(text: &str) -> Objects {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let key = |object: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        (text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
    };
    documents.into_iter().filter(|it| !it.is_null()).map(|object| (key(&object), whole(object))).collect()
}

/// The same with `0` for `0.0`, which are one number in JSON and two here.
fn whole(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 => Value::from(float as i64),
            _ => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(whole).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, whole(value))).collect(),
        other => other,
    }
}

/// What makes the chart's objects with these values, where certificates are in Secrets.
pub(crate) fn template(values: &[&str]) -> Command {
    let mut command = helm();
    command.args(["template", "chancery", "charts/chancery", "--namespace=chancery-system"]);
    command.args(["--kube-version=1.35.4", "--set=xds.certificates=secrets"]);
    command.args(values.iter().map(|value| format!("--set={value}")));
    command
}

/// One way of installing: a folder for kustomize, and the chart's values of the same meaning.
pub(crate) struct Variant {
    pub(crate) folder: &'static str,
    pub(crate) values: &'static [&'static str],
}

/// Every one of `manifests/`.
pub(crate) const VARIANTS: [Variant; 8] = [
    Variant { folder: "manifests", values: &[] },
    Variant { folder: "manifests/overlays/cert-manager", values: &["xds.certificates=cert-manager"] },
    Variant { folder: "manifests/overlays/daemonset", values: &["envoy.kind=DaemonSet"] },
    Variant {
        folder: "manifests/overlays/kind",
        values: &[
            "envoy.service.type=NodePort",
            "envoy.service.externalTrafficPolicy=Cluster",
            "envoy.service.nodePorts.http=30080",
            "envoy.service.nodePorts.https=30443",
        ],
    },
    Variant {
        folder: "manifests/overlays/metallb",
        values: &[r"envoy.service.annotations.metallb\.io/address-pool=chancery"],
    },
    Variant { folder: "manifests/overlays/monitoring", values: &["monitoring.enabled=true"] },
    Variant { folder: "manifests/overlays/nginx", values: &["nginxTakeover=true"] },
    Variant {
        folder: "manifests/overlays/redis",
        values: &["rateLimit.redis.secret=chancery-redis", "rateLimit.replicas=2"],
    },
];

impl Variant {
    /// What kustomize makes of it.
    pub(crate) fn kustomized(&self) -> String {
        run(kubectl().args(["kustomize", self.folder]), "")
    }

    /// What helm makes of it, with the definitions where kustomize has them.
    pub(crate) fn templated(&self) -> String {
        let mut command = template(self.values);
        if self.folder == "manifests" {
            command.arg("--include-crds");
        }
        run(&mut command, "")
    }
}
