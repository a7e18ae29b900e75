//! An Envoy as it is deployed, beside the control plane: it finds it, shows its metrics, and leaves when told to.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cluster::process::{Program, envoy, free_port, get, until};
use crate::control_plane::{ControlPlane, arguments, mount, object};
use crate::tools::{Objects, root, run};

/// Where an Envoy of the tests listens in place of the ports of its manifest.
struct Ports {
    admin: u16,
    stats: u16,
}

impl Ports {
    fn put_into(&self, text: &str) -> String {
        text.replace("9901", &self.admin.to_string()).replace("9902", &self.stats.to_string())
    }
}

/// The bootstrap that the initContainer writes, for a control plane that has no DNS name here.
fn bootstrap(cluster: &Cluster, container: &Value, control_plane: &ControlPlane, ports: &Ports) -> PathBuf {
    let path = cluster.path("bootstrap.json");
    let secrets = mount(cluster, "chancery-envoy-xds");
    let own = |argument: String| {
        argument
            .replace("/etc/envoy/bootstrap/bootstrap.json", &path.display().to_string())
            .replace("/etc/envoy/xds", &secrets)
            .replace(":18000", &format!(":{}", control_plane.xds))
            .replace("$(POD_NAME)", "envoy-0")
            .replace("$(ENVOY_MEMORY)", "1073741824")
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
    command.args(arguments(container).into_iter().map(own));
    command.arg(format!("--admin-address=127.0.0.1:{}", ports.admin));
    run(&mut command, "");
    let mut bootstrap: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let cluster = &mut bootstrap["static_resources"]["clusters"][0];
    assert_eq!(cluster["type"], "STRICT_DNS");
    cluster["type"] = json!("STATIC");
    let endpoint = &mut cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    endpoint["address"]["socket_address"]["address"] = json!("127.0.0.1");
    fs::write(&path, bootstrap.to_string()).unwrap();
    path
}

/// Starts an Envoy as its manifest says, sees it take what the control plane has, and sees it leave.
pub(crate) fn takes_and_leaves(cluster: &Cluster, deployed: &Objects, control_plane: &ControlPlane) {
    let pod = &object(deployed, "Deployment", "chancery-envoy")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let ports = Ports { admin: free_port(), stats: free_port() };
    let path = bootstrap(cluster, &pod["initContainers"][0], control_plane, &ports);
    let own = |argument: String| {
        let argument = argument.replace("/etc/envoy/bootstrap/bootstrap.json", &path.display().to_string());
        ports.put_into(&argument.replace("$(ENVOY_CONCURRENCY)", "2"))
    };
    let mut command = Command::new(envoy());
    command.args(arguments(container).into_iter().map(own));
    let mut program = Program::start(&mut command, cluster.path("envoy.log"));
    until("an Envoy that is ready", || {
        if let Some(end) = program.ended() {
            panic!("Envoy ended: {end}");
        }
        get(ports.stats, "/ready").filter(|answer| answer.contains("LIVE"))
    });
    assert_eq!(get(ports.stats, "/config_dump"), None, "the admin interface is for its own machine");
    let client = Client::of(control_plane.http);
    shows_what_is_watched(control_plane, &ports);
    let hook = container["lifecycle"]["preStop"]["exec"]["command"].as_array().unwrap();
    // There is no load balancer that has to learn of it, so nothing but the client keeps it.
    let own = |argument: &Value| ports.put_into(argument.as_str().unwrap()).replace("sleep 10", "sleep 0");
    drains(&hook.iter().map(own).collect::<Vec<_>>(), client);
}

/// A client with an open connection.
struct Client(TcpStream);

impl Client {
    fn of(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut this = Self(stream);
        assert!(this.ask().starts_with("HTTP/1.1 204"), "the VirtualService's answer");
        this
    }

    fn ask(&mut self) -> String {
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: vs-one.example\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(self.0.read(&mut byte).unwrap(), 1, "the connection is open");
            answer.push(byte[0]);
        }
        String::from_utf8(answer).unwrap()
    }
}

/// The hook waits for a connection that is used, tells its client to leave, and ends when it has.
fn drains(hook: &[String], mut client: Client) {
    let mut hook = Command::new(&hook[0]).args(&hook[1..]).spawn().unwrap();
    until("the end of the connection", || client.ask().contains("connection: close").then_some(()));
    assert_eq!(hook.try_wait().unwrap(), None, "it ends before it is over");
    drop(client);
    assert!(until("the hook's end", || hook.try_wait().unwrap()).success());
}

/// Every metric that an alert or the dashboard reads is one.
fn shows_what_is_watched(control_plane: &ControlPlane, ports: &Ports) {
    let shown =
        get(control_plane.health, "/metrics").unwrap() + &get(ports.stats, "/stats/prometheus").unwrap();
    let shown: BTreeSet<&str> = words(&shown).collect();
    // A cluster's statistics come with its first request.
    let of_clusters = |name: &str| name.starts_with("envoy_cluster_upstream_");
    let folder = root().join("manifests/components/monitoring");
    let texts = ["alerts.yaml", "chancery.json"].map(|name| fs::read_to_string(folder.join(name)).unwrap());
    let read: BTreeSet<&str> =
        texts.iter().flat_map(|text| words(text)).filter(|word| is_metric(word)).collect();
    assert!(read.len() > 15, "{read:?}");
    let missing: Vec<_> = read.iter().filter(|name| !shown.contains(*name) && !of_clusters(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// Whether a word names a metric, not a label or a cluster.
fn is_metric(word: &str) -> bool {
    const LABELS: [&str; 4] = [
        "envoy_response_code_class",
        "envoy_http_conn_manager_prefix",
        "envoy_cluster_name",
        "chancery_ratelimit",
    ];
    (word.starts_with("chancery_") || word.starts_with("envoy_")) && !LABELS.contains(&word)
}
