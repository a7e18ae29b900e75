//! VirtualServices in, one line a route out.

mod cases;
mod policies;
mod show;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use crate::crd::virtual_service::VirtualService;
use crate::resolve;
use crate::settings::Settings;
use crate::store::{Object, Store, Stored, View};
use crate::values::{Age, Findings, HostName};

/// Services that every case may refer to.
const SERVICES: &str = r#"[
    {"metadata": {"namespace": "shop", "name": "a"}, "spec": {"ports": [{"port": 80}]}},
    {"metadata": {"namespace": "shop", "name": "b"}, "spec": {"ports": [{"port": 80, "name": "grpc-web"}]}},
    {"metadata": {"namespace": "ml", "name": "c"}, "spec": {"ports": [{"port": 8080, "targetPort": 9000}]}},
    {"metadata": {"namespace": "shop", "name": "two"}, "spec": {"ports": [{"port": 80, "name": "http"}, {"port": 81, "name": "h2"}]}},
    {"metadata": {"namespace": "shop", "name": "out"},
     "spec": {"type": "ExternalName", "externalName": "api.example.net", "ports": [{"port": 443}]}}
]"#;

fn from_yaml<T: serde::de::DeserializeOwned>(yaml: &str) -> T {
    let value: serde_json::Value =
        serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{yaml}: {error}"))
}

fn apply(store: &mut Store, mut object: Object, position: usize) {
    object.metadata_mut().namespace.get_or_insert_with(|| "shop".to_owned());
    object.metadata_mut().name.get_or_insert_with(|| format!("vs{position}"));
    let age = Age { created: None, position: format!("{position}").into() };
    store.apply(Arc::new(Stored::new(object, age, Vec::new())));
}

/// The routes of a host and what was found, each as lines.
fn resolve(host: &str, specs: &[&str]) -> (Vec<String>, Vec<String>) {
    let mut store = Store::new("cluster.local");
    for service in from_yaml::<Vec<Service>>(SERVICES) {
        apply(&mut store, Object::Service(Box::new(service)), 0);
    }
    for (position, spec) in specs.iter().enumerate() {
        let service = VirtualService { spec: from_yaml(spec), ..VirtualService::default() };
        apply(&mut store, Object::VirtualService(Box::new(service)), position);
    }
    let settings = Settings { http_port: 8080, https_port: 8443, ..Settings::default() };
    let resolved = resolve::host(&View::new(&store), &settings, &HostName::parse(host).unwrap());
    (resolved.host.as_ref().map(show::routes).unwrap_or_default(), found(&resolved.findings))
}

#[test]
fn a_host_whose_rules_are_all_left_out_is_known() {
    let mut store = Store::new("cluster.local");
    let service =
        VirtualService { spec: from_yaml("{hosts: [x.io], http: [{}]}"), ..VirtualService::default() };
    apply(&mut store, Object::VirtualService(Box::new(service)), 0);
    let host =
        resolve::host(&View::new(&store), &Settings::default(), &HostName::parse("x.io").unwrap()).host;
    assert!(host.unwrap().answers(404));
}

/// Field and reason of each finding.
fn found(findings: &Findings) -> Vec<String> {
    findings.iter().map(|finding| format!("{} {}", finding.field, finding.reason)).collect()
}

/// The `http` section of one VirtualService with a gateway, and what comes of it.
#[track_caller]
fn check(name: &str, http: &str, routes: &[&str], findings: &[&str]) {
    let indented: String = http.trim().lines().map(|line| format!("  {line}\n")).collect();
    let spec = format!("hosts: [api.example.com]\ngateways: [gw]\nhttp:\n{indented}");
    let (lines, mut found) = resolve("api.example.com", &[&spec]);
    found.retain(|finding| finding != "spec.gateways GatewaysNotRead");
    assert_eq!(lines, routes, "{name}: routes");
    assert_eq!(found, findings, "{name}: findings");
}

/// The name, the `http` section, the routes, the findings.
type Case = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

#[track_caller]
fn table(cases: &[Case]) {
    for (name, http, routes, findings) in cases {
        check(name, http, routes, findings);
    }
}

#[test]
fn the_object_as_a_whole() {
    let a = "http: [{route: [{destination: {host: a}}]}]";
    for (host, spec, routes, findings) in [
        ("x.io", "hosts: [x.io]", 1, "spec.gateways MeshOnly"),
        ("x.io", "hosts: [x.io]\ngateways: [mesh]", 1, "spec.gateways MeshOnly"),
        ("x.io", "hosts: [x.io]\ngateways: [mesh, gw]", 1, "spec.gateways GatewaysNotRead"),
        ("X.IO", "hosts: [X.io]\ngateways: [gw]", 1, "spec.gateways GatewaysNotRead"),
        ("a.x.io", "hosts: ['*.x.io']\ngateways: [gw]", 0, ""),
        ("*.x.io", "hosts: ['*.x.io']\ngateways: [gw]", 1, "spec.gateways GatewaysNotRead"),
        ("*", "hosts: ['*']\ngateways: [gw]", 1, "spec.gateways GatewaysNotRead"),
        ("*", "hosts: ['']\ngateways: [gw]", 0, "spec.hosts[0] InvalidHost"),
        (
            "x.io",
            "hosts: [x.io, a/b]\ngateways: [gw]\ntls: [{}]\ntcp: []\nexportTo: [.]\nfoo: 1",
            1,
            "spec.foo UnknownField, spec.hosts[1] InvalidHost, spec.gateways GatewaysNotRead, \
             spec.exportTo NotSupported, spec.tls NotSupported",
        ),
    ] {
        let (lines, found) = resolve(host, &[&format!("{spec}\n{a}")]);
        assert_eq!(lines.len(), routes, "{spec}: {lines:?}");
        assert_eq!(found.join(", "), findings, "{spec}");
    }
}

#[test]
fn unknown_fields_are_named_wherever_they_are() {
    let http = "
- nme: x
  match: [{uri: {exact: /, exct: /}, headers: {x-y: {sufix: z}}}]
  route: [{destination: {host: a}}, {destination: {host: b, port: {nmber: 1}}, weight: 1, foo: 1}]
  retries: {atempts: 1}";
    let (_, found) = resolve("x.io", &[&format!("hosts: [x.io]\nhttp:{}", http.replace('\n', "\n  "))]);
    let mut unknown: Vec<_> =
        found.iter().filter_map(|finding| finding.strip_suffix(" UnknownField")).collect();
    unknown.sort_unstable();
    assert_eq!(
        unknown,
        [
            "spec.http[0].match[0].headers.x-y.sufix",
            "spec.http[0].match[0].uri.exct",
            "spec.http[0].nme",
            "spec.http[0].retries.atempts",
            "spec.http[0].route[1].destination.port.nmber",
            "spec.http[0].route[1].foo",
        ]
    );
}

#[test]
fn two_on_one_host_are_put_together_by_age() {
    let spec = |path: &str, to: &str| {
        format!("hosts: [x.io]\nhttp: [{{{path} route: [{{destination: {{host: {to}}}}}]}}]")
    };
    let (lines, _) = resolve(
        "x.io",
        &[
            &spec("", "a"),
            &spec("match: [{uri: {prefix: /demo/}}],", "b"),
            &spec("match: [{uri: {prefix: /demo/api/}}],", "a"),
        ],
    );
    assert_eq!(
        lines,
        ["prefix /demo/ -> shop/b/80", "prefix /demo/api/ -> shop/a/80", "prefix / -> shop/a/80"]
    );
}
