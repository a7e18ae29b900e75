//! No key shows anywhere but where it is needed: neither those of hosts nor those of xDS.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::service::status::v3::ClientStatusRequest;
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
use prost::Message as _;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::certificates::{Authority, Leaf};
use crate::process::until;
use crate::world::{ADDRESS, MANIFESTS, World, body};

const HOST: &str = "secure.example.com";

#[test]
fn keys_show_nowhere() {
    let authority = Authority::new(0x0a01);
    let mut world = World::new(&authority, 0x1001);
    let (host, broken) = (authority.sign(HOST, 0x2001), authority.sign("broken.example.com", 0x2002));
    world.route("api.example.com");
    world.write("secure.yaml", &secure(HOST, &host.certificate, &host.key));
    // As where lines were joined and dashes taken for something else.
    let joined = broken.key.replace('\n', "").replace("KEY-----", "KEY");
    world.write("broken.yaml", &secure("broken.example.com", &broken.certificate, &joined));
    world.start_control_plane(true);
    world.start_envoy();
    until("a request that is counted", || world.ask("api.example.com").ok());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let shown = until("the host's certificate", || {
        runtime.block_on(connect(world.https, HOST, &authority, None)).ok().map(drop)?;
        let status = runtime.block_on(client_status(&world, &authority));
        contains(&status, b"secure.example.com").then_some(status)
    });
    let mut places = pages(&world);
    places.push(("CSDS".into(), shown));
    places.push(("the log".into(), world.log("chancery.log").into_bytes()));
    places.push(("translate".into(), output(&world, "translate")));
    places.push(("check".into(), output(&world, "check")));
    let says = |place: &str, text: &str| {
        let (_, bytes) = places.iter().find(|(name, _)| name.starts_with(place)).unwrap();
        assert!(contains(bytes, text.as_bytes()), "{place} says nothing of {text}");
    };
    // That there is something to be seen.
    says("/debug/config_dump", HOST);
    says("/debug/findings", "is not a private key in PEM");
    says("check", "is not a private key in PEM");
    says("the log", "serving with a certificate");

    let own = Leaf { certificate: String::new(), key: read(&world, "control-plane/tls.key") };
    let envoys = Leaf { certificate: String::new(), key: read(&world, "envoy/tls.key") };
    for (whose, leaf) in
        [("the host's", &host), ("a broken", &broken), ("the control plane's", &own), ("Envoy's", &envoys)]
    {
        let forms = forms(&leaf.key);
        // What is looked for would be found.
        assert!(forms.iter().any(|form| contains(leaf.key.as_bytes(), form)));
        for (place, bytes) in &places {
            assert!(!forms.iter().any(|form| contains(bytes, form)), "{place} shows {whose} key");
        }
    }
}

/// An Ingress whose host has a certificate.
fn secure(host: &str, certificate: &str, key: &str) -> String {
    let name = host.split('.').next().unwrap();
    let data = json!({"tls.crt": STANDARD.encode(certificate), "tls.key": STANDARD.encode(key)});
    let service = json!({"name": "app", "port": {"number": 80}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": service}});
    let objects = [
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name, "namespace": "ml"}, "data": data}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "namespace": "ml"},
            "spec": {"ingressClassName": "nginx", "tls": [{"hosts": [host], "secretName": name}],
                "rules": [{"host": host, "http": {"paths": [path]}}]}}),
    ];
    objects.map(|object| object.to_string()).join("\n---\n")
}

fn read(world: &World, name: &str) -> String {
    fs::read_to_string(world.path(name)).unwrap()
}

/// Every page of the debug endpoint.
fn pages(world: &World) -> Vec<(String, Vec<u8>)> {
    let list = raw(world.admin, "/no-such-page");
    let list: Value = serde_json::from_str(&body(&list)).unwrap();
    let paths = list["paths"].as_array().unwrap().iter();
    let paths: Vec<String> =
        paths.map(|path| path.as_str().unwrap().split('?').next().unwrap().to_owned()).collect();
    assert!(paths.len() > 8, "{paths:?}");
    let node = "/debug/config_dump?type=Secret";
    let all = paths.into_iter().chain([node.to_owned(), format!("/debug/routes?host={HOST}")]);
    all.map(|path| (path.clone(), raw(world.admin, &path).into_bytes())).collect()
}

/// An answer, good or bad.
fn raw(port: u16, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect((ADDRESS, port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: it\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn output(world: &World, subcommand: &str) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
    let output = command.arg(subcommand).arg(world.path(MANIFESTS)).output().unwrap();
    [output.stdout, output.stderr].concat()
}

async fn connect(
    port: u16,
    name: &str,
    authority: &Authority,
    leaf: Option<&Leaf>,
) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority.pem)).domain_name(name);
    let tls = match leaf {
        Some(leaf) => tls.identity(Identity::from_pem(&leaf.certificate, &leaf.key)),
        None => tls,
    };
    let endpoint = Channel::from_shared(format!("https://{ADDRESS}:{port}")).unwrap();
    endpoint.tls_config(tls)?.connect().await
}

/// What the control plane says that its Envoys hold.
async fn client_status(world: &World, authority: &Authority) -> Vec<u8> {
    let leaf = authority.sign(ADDRESS, 0x3001);
    let channel = connect(world.xds, ADDRESS, authority, Some(&leaf)).await.unwrap();
    let mut client = ClientStatusDiscoveryServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let status = client.fetch_client_status(ClientStatusRequest::default()).await.unwrap();
    status.into_inner().encode_to_vec()
}

/// Parts of a key in every form that something could show it in: a line of PEM, which is base64 of DER too, that in
/// base64 once more, DER, and either as a list of numbers.
fn forms(key: &str) -> Vec<Vec<u8>> {
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let der = der.secret_der();
    let line = key.lines().nth(1).unwrap().as_bytes();
    let secret = &der[36..60];
    let numbers = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).as_bytes().to_vec();
    // Of base64, what does not depend on what stands before or after.
    let encoded = |from: usize| STANDARD.encode(&line[from..from + 24]).into_bytes();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    vec![
        line[40..].to_vec(),
        encoded(40),
        encoded(39),
        encoded(38),
        secret.to_vec(),
        numbers(secret),
        numbers(&line[40..]),
        hex.into_bytes(),
    ]
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
