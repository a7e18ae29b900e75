//! What a platform team installs, through kubectl and helm, into a real API server: `manifests/`, the chart, and the rights
//! that they give.

#[path = "../cluster/mod.rs"]
mod cluster;
mod control_plane;
mod fleet;
mod tools;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::tools::{Objects, VARIANTS, attempt, helm, kubectl, objects, root, run, template};

/// Definitions that others install, with whatever their objects hold.
fn definitions_of_others() -> String {
    let definition = |group: &str, version: &str, kind: &str| {
        let singular = kind.to_lowercase();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{singular}s.{group}")},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"kind": kind, "plural": format!("{singular}s"), "singular": singular},
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    }},
                }],
            },
        })
    };
    let kinds = [
        ("monitoring.coreos.com", "v1", "ServiceMonitor"),
        ("monitoring.coreos.com", "v1", "PodMonitor"),
        ("monitoring.coreos.com", "v1", "PrometheusRule"),
        ("cert-manager.io", "v1", "Issuer"),
        ("cert-manager.io", "v1", "Certificate"),
    ];
    let list: Vec<Value> =
        kinds.iter().map(|(group, version, kind)| definition(group, version, kind)).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": list}).to_string()
}

/// The Pods of the workloads among objects, as their controllers would make them.
fn pods(objects: &Objects) -> Vec<Value> {
    let workloads = objects.values().filter(|object| object["spec"]["template"].is_object());
    let pod = |workload: &Value| {
        let mut pod = workload["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["namespace"] = workload["metadata"]["namespace"].clone();
        pod["metadata"]["name"] = workload["metadata"]["name"].clone();
        pod
    };
    workloads.map(pod).collect()
}

#[test]
fn the_chart_holds_what_kustomize_makes() {
    for variant in &VARIANTS {
        let (mut kustomized, templated) = (objects(&variant.kustomized()), objects(&variant.templated()));
        // It is helm's to make.
        assert!(kustomized.remove(&("Namespace".into(), String::new(), "chancery-system".into())).is_some());
        for name in kustomized.keys().chain(templated.keys()) {
            assert_eq!(kustomized.get(name), templated.get(name), "{}: {name:?}", variant.folder);
        }
        assert!(kustomized.len() > 15, "{}: {:?}", variant.folder, kustomized.keys());
    }
    for (values, words) in [
        // A word that the chart does not know is told.
        (&["envoy.kinds=DaemonSet"][..], "'kinds' not allowed"),
        (&["rateLimit.replicas=2"], "needs rateLimit.redis.secret"),
        (&["rateLimit.replicas=-1"], "minimum"),
        (&["controlPlane.state.claim=snapshot"], "needs controlPlane.replicas of 1 or 0"),
        (&["rateLimit.state.enabled=true", "rateLimit.redis.secret=shared"], "Redis keeps counters"),
        (&["rateLimit.state.claim=counters", "rateLimit.redis.secret=shared"], "Redis keeps counters"),
    ] {
        let error = attempt(&mut template(values), "").unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

/// What is no variant of `manifests/`.
#[test]
fn the_chart_says_where_counters_are_and_what_clients_are_told() {
    let values = [
        "rateLimit.limitHeaders=both",
        "rateLimit.redis.secret=shared",
        "rateLimit.redis.key=uri",
        "rateLimit.redis.caKey=authority",
        "rateLimit.redis.mode=leased",
        "rateLimit.redis.ports={6380}",
        "rateLimit.extraArgs={--redis-timeout=5}",
    ];
    let made = objects(&run(&mut template(&values), ""));
    let container = |name: &str| {
        &control_plane::object(&made, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
    };
    let args = |name: &str, from: &str| -> Vec<String> {
        let mut args = control_plane::arguments(container(name));
        args.split_off(args.iter().position(|arg| arg == from).unwrap() + 1)
    };
    assert_eq!(args("chancery", "--log-format=json"), ["--limit-headers=both"]);
    assert_eq!(
        args("chancery-ratelimit", "--log-format=json"),
        [
            "--limit-headers=both",
            "--redis-mode=leased",
            "--redis-ca=/etc/chancery/redis/ca.crt",
            "--redis-timeout=5"
        ]
    );
    let pod = &control_plane::object(&made, "Deployment", "chancery-ratelimit")["spec"]["template"]["spec"];
    let url = json!({"name": "CHANCERY_REDIS_URL", "valueFrom": {"secretKeyRef": {"name": "shared", "key": "uri"}}});
    assert_eq!(container("chancery-ratelimit")["env"][1], url);
    let authority = json!({"name": "redis", "mountPath": "/etc/chancery/redis", "readOnly": true});
    assert_eq!(container("chancery-ratelimit")["volumeMounts"][1], authority);
    let items = json!([{"key": "authority", "path": "ca.crt"}]);
    assert_eq!(pod["volumes"][1]["secret"], json!({"secretName": "shared", "items": items}));
    let egress = &control_plane::object(&made, "NetworkPolicy", "chancery-ratelimit")["spec"]["egress"];
    assert_eq!(egress[2], json!({"ports": [{"port": 6380}]}));
    // They are flags of what is deployed.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chancery"));
    command.args(control_plane::arguments(container("chancery-ratelimit"))).arg("--help");
    run(command.env("CHANCERY_REDIS_URL", "rediss://redis"), "");
}

/// What is kept, by whom it may be asked for, and nobody at all.
const KEPT: [&str; 6] = [
    "controlPlane.replicas=0",
    "controlPlane.state.claim=snapshot",
    "rateLimit.replicas=0",
    "rateLimit.state.claim=counters",
    "rateLimit.quotaTokens.secret=askers",
    "rateLimit.quotaTokens.key=who",
];

#[test]
fn the_chart_says_what_is_kept_and_who_may_ask() {
    let made = objects(&run(&mut template(&KEPT), ""));
    let deployment = |name: &str| &control_plane::object(&made, "Deployment", name)["spec"];
    for (name, claim) in [("chancery", "snapshot"), ("chancery-ratelimit", "counters")] {
        let deployment = deployment(name);
        assert_eq!(deployment["replicas"], 0, "{name}");
        assert_eq!(deployment["strategy"], json!({"type": "Recreate"}), "{name}: one folder, one process");
        let pod = &deployment["template"]["spec"];
        assert_eq!(volume(pod, "state")["persistentVolumeClaim"], json!({"claimName": claim}));
        assert_eq!(mounted(pod, "state"), json!({"name": "state", "mountPath": "/var/lib/chancery"}));
    }
    let pod = &deployment("chancery-ratelimit")["template"]["spec"];
    let arguments = control_plane::arguments(&pod["containers"][0]);
    let last = ["--state-dir=/var/lib/chancery", "--quota-token-file=/etc/chancery/quota/tokens"];
    assert_eq!(arguments[arguments.len() - 2..], last);
    let items = json!([{"key": "who", "path": "tokens"}]);
    let secret = json!({"secretName": "askers", "defaultMode": 0o440, "items": items});
    assert_eq!(volume(pod, "quota")["secret"], secret);
    let quota = json!({"name": "quota", "mountPath": "/etc/chancery/quota", "readOnly": true});
    assert_eq!(mounted(pod, "quota"), quota);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chancery"));
    run(command.args(arguments).arg("--help"), "");

    let made = objects(&run(&mut template(&["rateLimit.state.enabled=true"]), ""));
    let deployment = &control_plane::object(&made, "Deployment", "chancery-ratelimit")["spec"];
    assert_eq!(deployment["strategy"], json!({"rollingUpdate": {"maxUnavailable": 0}}));
    let pod = &deployment["template"]["spec"];
    assert_eq!(volume(pod, "state")["emptyDir"], json!({"sizeLimit": "64Mi"}));
    assert_eq!(mounted(pod, "state"), json!({"name": "state", "mountPath": "/var/lib/chancery"}));
}

/// The volume of this name, and where the first container has it.
fn volume(pod: &Value, name: &str) -> Value {
    named(&pod["volumes"], name)
}

fn mounted(pod: &Value, name: &str) -> Value {
    named(&pod["containers"][0]["volumeMounts"], name)
}

fn named(list: &Value, name: &str) -> Value {
    let found = list.as_array().unwrap().iter().find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("nothing is named {name} in {list}")).clone()
}

#[test]
fn an_api_server_takes_everything() {
    let cluster = Cluster::start();
    cluster.apply(&definitions_of_others());
    let (ours, istio) = ("--filename=manifests/crds", "--filename=manifests/istio-crds");
    run(cluster.kubectl().args(["apply", "--server-side", ours, istio]), "");
    let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
    run(cluster.kubectl().args(wait), "");
    cluster.apply(&std::fs::read_to_string(root().join("manifests/base/namespace.yaml")).unwrap());
    for variant in &VARIANTS {
        let folder = format!("--kustomize={}", variant.folder);
        // Fields that the API server does not know are errors.
        let apply = ["apply", "--server-side", "--validate=strict", "--force-conflicts", &folder];
        run(cluster.kubectl().args(apply).arg("--dry-run=server"), "");
        run(cluster.kubectl().args(apply), "");
        // The namespace admits restricted Pods only, and ServiceAccounts have to be there.
        for pod in pods(&objects(&variant.kustomized())) {
            run(cluster.kubectl().args(["create", "--dry-run=server", "-f", "-"]), &pod.to_string());
        }
    }
    for pod in pods(&objects(&run(&mut template(&KEPT), ""))) {
        run(cluster.kubectl().args(["create", "--dry-run=server", "-f", "-"]), &pod.to_string());
    }
    run(cluster.kubectl().args(["apply", "-f", "-", "--dry-run=server"]), &certificates());
    installed_by_helm(&cluster);
}

/// Beside what kustomize made, with other names; and again, which keeps the certificates that helm has made.
fn installed_by_helm(cluster: &Cluster) {
    let install = |more: &str| {
        let mut command = cluster.administered(helm());
        command.args(["upgrade", "--install", "other", "charts/chancery", "--namespace=elsewhere"]);
        command.args(["--create-namespace", "--skip-crds", "--set=ingressClass.name=other", more]);
        run(&mut command, "");
        let get = [
            "get",
            "secret",
            "other-xds",
            "other-envoy-xds",
            "other-ratelimit-xds",
            "--namespace=elsewhere",
            "-o",
            "jsonpath={.items[*].data}",
        ];
        run(cluster.kubectl().args(get), "")
    };
    let made = install("--set=monitoring.enabled=true");
    assert!(made.contains("ca.crt") && made.contains("tls.key"), "there are certificates");
    assert!(made == install("--set=envoy.kind=DaemonSet"), "they stay");
    // One folder is taken by one process: another strategy than the Deployments have by now.
    install(&format!("--set={}", KEPT.join(",")));
    let get = ["get", "deployment", "other", "other-ratelimit", "--namespace=elsewhere", "-o"];
    let form = "jsonpath={range .items[*]}{.spec.replicas} {.spec.strategy} {end}";
    let scaled = run(cluster.kubectl().args(get).arg(form), "");
    assert_eq!(scaled.trim(), r#"0 {"type":"Recreate"} 0 {"type":"Recreate"}"#);
}

/// The Secrets that `scripts/xds-certificates` makes.
fn certificates() -> String {
    run(&mut std::process::Command::new("scripts/xds-certificates"), "")
}

#[test]
fn rights_are_what_is_used() {
    let mut cluster = Cluster::start();
    run(cluster.kubectl().args(["apply", "--server-side", "--filename=manifests/istio-crds"]), "");
    run(cluster.kubectl().args(["apply", "--server-side", "--kustomize=manifests"]), "");
    cluster.apply(&certificates());
    let deployed = objects(&run(kubectl().args(["kustomize", "manifests"]), ""));

    let first = control_plane::ControlPlane::start(&cluster, &deployed, 1);
    first.follows(&cluster, "one.example");
    control_plane::leads(&cluster);
    fleet::takes_and_leaves(&cluster, &deployed, &first);
    drop(first);
    // As API servers before 1.32, which are listed page by page.
    cluster.serve(&["--feature-gates=WatchList=false"]);
    let second = control_plane::ControlPlane::start(&cluster, &deployed, 2);
    second.follows(&cluster, "two.example");
    control_plane::asked_for_what_it_may(&cluster, &deployed);
}
