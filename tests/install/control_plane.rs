//! The control plane as it is deployed, under its own ServiceAccount.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::process::{Program, free_port, get, until};
use crate::cluster::{Asked, Cluster};
use crate::tools::{Objects, run};

const NAMESPACE: &str = "chancery-system";

/// What a load balancer gives the Service of Envoy.
const ADDRESS: &str = "192.0.2.1";

/// A control plane that runs, and where it listens.
pub(crate) struct ControlPlane {
    _program: Program,
    pub(crate) xds: u16,
    pub(crate) admin: u16,
    pub(crate) health: u16,
    pub(crate) http: u16,
}

/// The object of a kind with a name, in the namespace of the installation or in none.
pub(crate) fn object<'a>(objects: &'a Objects, kind: &str, name: &str) -> &'a Value {
    let named = |namespace: &str| objects.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned()));
    named(NAMESPACE).or_else(|| named("")).unwrap_or_else(|| panic!("no {kind} is named {name}"))
}

/// The arguments of a container, as a kubelet gives them.
pub(crate) fn arguments(container: &Value) -> Vec<String> {
    let arguments = container["args"].as_array().unwrap();
    arguments.iter().map(|it| it.as_str().unwrap().replace("$(POD_NAMESPACE)", NAMESPACE)).collect()
}

/// Writes the files of a Secret into a folder of the cluster, as a volume has them.
pub(crate) fn mount(cluster: &Cluster, secret: &str) -> String {
    let folder = cluster.path(secret);
    fs::create_dir_all(&folder).unwrap();
    for key in ["ca.crt", "tls.crt", "tls.key"] {
        let data = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
        let get = ["get", "secret", secret, "--namespace", NAMESPACE, "-o", &data];
        fs::write(folder.join(key), run(cluster.kubectl().args(get), "")).unwrap();
    }
    folder.display().to_string()
}

impl ControlPlane {
    /// Starts it with the arguments of its Deployment and a token of its ServiceAccount, and waits until it is ready.
    pub(crate) fn start(cluster: &Cluster, deployed: &Objects, number: u8) -> Self {
        let deployment = object(deployed, "Deployment", "chancery");
        let pod = &deployment["spec"]["template"]["spec"];
        let account = pod["serviceAccountName"].as_str().unwrap();
        let token = run(cluster.kubectl().args(["create", "token", account, "--namespace", NAMESPACE]), "");
        let kubeconfig = cluster.path("kubeconfig");
        fs::write(&kubeconfig, cluster.kubeconfig(token.trim())).unwrap();
        let secrets = mount(cluster, "chancery-xds");
        let (xds, admin, health, http) = (free_port(), free_port(), free_port(), free_port());
        let state = cluster.path(&format!("state-{number}"));
        let own = |argument: String| {
            argument
                .replace("0.0.0.0:18000", &format!("127.0.0.1:{xds}"))
                .replace("0.0.0.0:18003", &format!("127.0.0.1:{health}"))
                .replace("/etc/chancery/xds", &secrets)
                .replace("/etc/envoy/bootstrap", &cluster.path("").display().to_string())
                .replace("/var/lib/chancery", &state.display().to_string())
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
        command.args(arguments(&pod["containers"][0]).into_iter().map(own));
        command.arg(format!("--admin-listen=127.0.0.1:{admin}"));
        command.arg("--kubeconfig").arg(&kubeconfig).arg("--envoy-address=127.0.0.1");
        command.arg(format!("--http-port={http}")).arg(format!("--https-port={}", free_port()));
        command.env("POD_NAME", format!("chancery-{number}")).env("POD_NAMESPACE", NAMESPACE);
        let mut program = Program::start(&mut command, cluster.path("chancery.log"));
        until("a control plane that is ready", || {
            if let Some(end) = program.ended() {
                panic!("the control plane ended: {end}");
            }
            refused_nothing(cluster);
            // What it kept from before says nothing of what it may read.
            get(health, "/readyz").filter(|answer| answer.contains("sources"))
        });
        Self { _program: program, xds, admin, health, http }
    }

    /// Sees it follow an Ingress and a VirtualService that come now.
    pub(crate) fn follows(&self, cluster: &Cluster, host: &str) {
        let service = json!({"name": "models", "port": {"number": 80}});
        let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": service}});
        let ingress = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "models", "namespace": "default"},
            "spec": {"ingressClassName": "chancery", "rules": [{"host": host, "http": {"paths": [path]}}]},
        });
        let virtual_host = format!("vs-{host}");
        let virtual_service = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "models", "namespace": "default"},
            "spec": {"hosts": [virtual_host], "http": [{"directResponse": {"status": 204}}]},
        });
        for (host, object) in [(host, ingress), (&virtual_host, virtual_service)] {
            cluster.apply(&object.to_string());
            let page = format!("/debug/routes?host={host}");
            until("a route", || get(self.admin, &page).filter(|answer| answer.contains("\"models\"")));
        }
    }
}

/// Sees the replica that leads write all that it may: statuses, Events, each for the first time and again, and its Lease.
pub(crate) fn leads(cluster: &Cluster) {
    let balanced = json!({"status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}}).to_string();
    let patch =
        ["patch", "service", "chancery-envoy", "--subresource=status", "--type=merge", "-p", &balanced];
    run(cluster.kubectl().args(["--namespace", NAMESPACE]).args(patch), "");
    let shown = |object: &str, path: &str| {
        let get = ["get", object, "--namespace=default", "-o", &format!("jsonpath={{{path}}}")];
        run(cluster.kubectl().args(get), "")
    };
    until("the status of an Ingress", || {
        (shown("ingress/models", ".status.loadBalancer.ingress[*].ip") == ADDRESS).then_some(())
    });
    // Its status says when the leader has seen a finding, and when it has seen that it is gone.
    let absent = json!({"route": [{"destination": {"host": "absent"}}]});
    for http in [&absent, &json!({"directResponse": {"status": 204}}), &absent] {
        let flawed = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "flawed", "namespace": "default"},
            "spec": {"hosts": ["flawed.example"], "http": [http]},
        });
        cluster.apply(&flawed.to_string());
        until("the status of a VirtualService", || {
            let observed = shown("virtualservice/flawed", ".status.observedGeneration");
            let said =
                shown("virtualservice/flawed", ".status.validationMessages").contains("ServiceNotFound");
            let now = shown("virtualservice/flawed", ".metadata.generation") == observed;
            (now && said == (http == &absent)).then_some(())
        });
    }
    let policy = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "RateLimitPolicy",
        "metadata": {"name": "quota", "namespace": "default"},
        "spec": {
            "targetRef": {"kind": "Ingress", "name": "models"},
            "limits": [{"key": {"clientAddress": true}, "requests": 1000, "window": "1s"}],
        },
    });
    cluster.apply(&policy.to_string());
    until("the status of a RateLimitPolicy", || {
        (shown("ratelimitpolicy/quota", ".status.conditions[*].reason") == "Accepted").then_some(())
    });
    let used = |verb: &str, group: &str, resource: &str| {
        until(&format!("{verb} of {resource}"), || {
            refused_nothing(cluster).contains(&(verb.into(), group.into(), resource.into())).then_some(())
        });
    };
    // They are written after the status, and each two seconds.
    used("patch", "", "events");
    used("update", "coordination.k8s.io", "leases");
}

/// What rules of roles grant.
fn granted<'a>(rules: impl IntoIterator<Item = &'a Value>) -> Asked {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let mut granted = Asked::new();
    for rule in rules {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                granted.extend(
                    texts(&rule["verbs"]).into_iter().map(|verb| (verb, group.clone(), resource.clone())),
                );
            }
        }
    }
    granted
}

/// Holds that it has not asked for what it may not; says the rest that it has asked for.
fn refused_nothing(cluster: &Cluster) -> Asked {
    let (asked, refused) = cluster.asked_by("system:serviceaccount:chancery-system:chancery");
    assert_eq!(refused, Asked::new(), "it asks for what it may not");
    asked
}

/// Holds the API server's audit log against the roles.
pub(crate) fn asked_for_what_it_may(cluster: &Cluster, deployed: &Objects) {
    let rules = |kind: &str| object(deployed, kind, "chancery")["rules"].as_array().unwrap().iter();
    let granted = granted(rules("ClusterRole").chain(rules("Role")));
    let asked = refused_nothing(cluster);
    let unused: BTreeSet<_> = granted.difference(&asked).collect();
    assert!(unused.is_empty(), "it may do what it never does: {unused:?}");
}
