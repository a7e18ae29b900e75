use serde_json::json;

use super::*;
use crate::source::kinds::WATCHED;
use crate::source::yaml;
use crate::values::Kind;

fn of(kind: Kind) -> &'static Watched {
    WATCHED.iter().find(|watched| watched.kind == kind).unwrap()
}

/// The object and the fields that are not known.
fn read_yaml(kind: Kind, text: &str) -> Result<(Object, Unknown), ReadError> {
    let mut unknown = Unknown::new();
    let value = yaml::parse(text).unwrap().remove(0);
    read(of(kind), value, Some(&mut unknown)).map(|object| (object, unknown))
}

#[test]
fn errors_name_the_field() {
    let ingress = "metadata: {name: a}\nspec: {rules: [{host: a, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: a, port: {number: http}}}}]}}]}";
    let cases = [
        (Kind::Ingress, ingress, "spec.rules[0].http.paths[0].backend.service.port.number"),
        (
            Kind::Ingress,
            "metadata: {name: a, annotations: {a.b/limit-rps: 10}}",
            "metadata.annotations.a.b/limit-rps",
        ),
        (Kind::Ingress, "metadata: {name: a, creationTimestamp: then}", "metadata.creationTimestamp"),
        (Kind::Ingress, "metadata: {name: a}\nspec: {rules: {}}", "spec.rules"),
        (Kind::Secret, "metadata: {name: a}\ndata: {tls.crt: '%'}", "data.tls.crt"),
        (Kind::VirtualService, "spec: {hosts: [a], http: [{timeout: 5}]}", "spec.http[0].timeout"),
        (
            Kind::VirtualService,
            "spec: {http: [{route: [{destination: {host: a}, weight: x}, {destination: {host: a}}]}]}",
            "spec.http[0].route[0].weight",
        ),
        (
            Kind::EndpointSlice,
            "addressType: IPv4\nendpoints: [{addresses: 10.0.0.1}]",
            "endpoints[0].addresses",
        ),
    ];
    for (kind, text, field) in cases {
        let error = read_yaml(kind, text).expect_err(text);
        assert_eq!(error.field, field, "{text}: {error}");
        assert!(!error.message.is_empty());
    }
}

/// Its target would be open without it.
#[test]
fn a_policy_that_cannot_be_read_is_there_all_the_same() {
    for (limit, field) in [
        ("{key: {}, requests: 1}", "spec.limits[0].window"),
        ("{key: {}, requests: -1, window: 1s}", "spec.limits[0].requests"),
        ("{key: {}, window: 1s, requets: 1}", "spec.limits[0].requests"),
        ("{key: {}, window: 1s, requests: 1, shadow: 'false'}", "spec.limits[0].shadow"),
    ] {
        let text = format!("spec: {{targetRef: {{kind: Ingress, name: a}}, limits: [{limit}]}}");
        let object = read_yaml(Kind::RateLimitPolicy, &text).unwrap().0;
        let Object::RateLimitPolicy(policy) = object else { panic!("{object:?}") };
        assert_eq!(policy.spec.target_ref.name, "a");
        assert_eq!(policy.spec.unreadable.unwrap().field, field, "{text}");
    }
}

#[test]
fn nothing_where_a_section_is_expected() {
    for watched in &WATCHED {
        for text in ["metadata: {name: a, annotations: , labels: }", "metadata: {name: a}\nspec:\nstatus:\n"]
        {
            let result = read_yaml(watched.kind, text);
            assert!(result.is_ok(), "{}: {text} {result:?}", watched.kind);
        }
    }
}

#[test]
fn fields_that_are_not_known_are_named() {
    let text = "apiVersion: v1\nkind: x\nmetadata: {name: a, nmespace: b}\nstatus: {x: y}\n\
                spec: {rules: [{hots: a, http: {paths: [{path: /, pathType: Prefix, bakend: {}, backend: {}}]}}]}";
    let (_, unknown) = read_yaml(Kind::Ingress, text).unwrap();
    assert_eq!(unknown, ["metadata.nmespace", "spec.rules[0].hots", "spec.rules[0].http.paths[0].bakend"]);
}

#[test]
fn what_nobody_reads_is_dropped() {
    let with = json!({
        "apiVersion": "v1", "kind": "x",
        "metadata": {
            "name": "a", "uid": "u", "resourceVersion": "7", "selfLink": "x", "managedFields": [{"manager": "m"}],
            "annotations": {
                "a": null, "b": "c", "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "endpoints.kubernetes.io/last-change-trigger-time": "now",
            },
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n", "targetRef": {"resourceVersion": "7"}}],
    });
    let without = json!({
        "metadata": {"name": "a", "uid": "u", "annotations": {"a": "", "b": "c"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}],
    });
    let slice = of(Kind::EndpointSlice);
    assert_eq!(read(slice, with, None).unwrap(), read(slice, without, None).unwrap());
}

#[test]
fn plain_text_of_a_secret_becomes_data() {
    let text = "metadata: {name: a}\ndata: {tls.crt: YQ==, tls.key: YQ==}\nstringData: {tls.key: c}";
    let (Object::Secret(secret), _) = read_yaml(Kind::Secret, text).unwrap() else { panic!() };
    let data: Vec<_> = secret.data.unwrap().into_iter().map(|(key, bytes)| (key, bytes.0)).collect();
    assert_eq!(data, [("tls.crt".into(), b"a".to_vec()), ("tls.key".into(), b"c".to_vec())]);
    assert_eq!(secret.string_data, None);
}

#[test]
fn words_that_types_leave_open_are_kept() {
    let text = "metadata: {name: a}\nspec: {type: Peculiar, sessionAffinity: Odd, ports: [{port: 1, protocol: QUIC}]}";
    let (Object::Service(service), _) = read_yaml(Kind::Service, text).unwrap() else { panic!() };
    assert_eq!(service.spec.unwrap().type_.as_deref(), Some("Peculiar"));
}

/// Whatever else is in a Secret is nobody's business here; of an Opaque one the digests of lines are kept.
#[test]
fn of_a_secret_the_certificate_is_kept() {
    let text = "metadata: {name: a}\ntype: kubernetes.io/tls\ndata: {tls.crt: YQ==, password: YQ==, ca.crt: YQ==}\nstringData: {tls.key: a, token: a}";
    let (Object::Secret(secret), _) = read_yaml(Kind::Secret, text).unwrap() else { panic!() };
    let keys: Vec<_> = secret.data.unwrap().into_keys().collect();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
    let text = "metadata: {name: a}\nstringData: {password: hunter2, tls.key: a}";
    let (Object::Secret(secret), _) = read_yaml(Kind::Secret, text).unwrap() else { panic!() };
    let lengths: Vec<_> = secret.data.unwrap().into_values().map(|bytes| bytes.0.len()).collect();
    assert_eq!(lengths, [16, 1]);
}
