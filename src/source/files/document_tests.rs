use super::*;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\n";

fn service(name: &str) -> String {
    SERVICE.replace("NAME", name)
}

/// What was read, a line each: objects with their age, broken objects, findings.
fn told(file: &str, text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for document in parse(file, text.as_bytes(), &[]).documents {
        let (items, findings) = match document.content {
            Content::Unchanged => panic!("nothing was known"),
            Content::Unreadable(findings) => (Vec::new(), findings),
            Content::Read(items, findings) => (items, findings),
        };
        for item in items {
            match item {
                Item::Applied(applied) => {
                    let age = (applied.age.created, applied.age.position.replace('\0', " "));
                    lines.push(format!("{} {age:?}", applied.key));
                    lines.extend(applied.findings.iter().map(ToString::to_string));
                }
                Item::Broken(key) => lines.push(format!("broken {key}")),
            }
        }
        lines.extend(findings.iter().map(ToString::to_string));
    }
    lines
}

#[test]
fn documents_are_split_at_their_marks() {
    let cases: [(&str, &[(&str, usize)]); 10] = [
        ("", &[]),
        ("# a\n\n---\n# b\n", &[]),
        ("a: 1", &[("a: 1", 1)]),
        ("---\na: 1\n", &[("---\na: 1\n", 1)]),
        ("a: 1\n---\nb: 2\n", &[("a: 1\n", 1), ("---\nb: 2\n", 2)]),
        ("a: 1\r\n--- # two\r\nb: 2\r\n---\r\n", &[("a: 1\r\n", 1), ("--- # two\r\nb: 2\r\n", 2)]),
        ("--- {a: 1}\n--- {b: 2}", &[("--- {a: 1}\n", 1), ("--- {b: 2}", 2)]),
        ("a: |\n  x\n  ---\n---x: 1\n", &[("a: |\n  x\n  ---\n---x: 1\n", 1)]),
        ("# one\n---\n# two\na: 1\n", &[("---\n# two\na: 1\n", 2)]),
        ("a: 1\n---\n%YAML 1.2\n---\nb: 2\n", &[("a: 1\n", 1), ("---\n%YAML 1.2\n---\nb: 2\n", 2)]),
    ];
    for (text, expected) in cases {
        let found: Vec<_> = split(text).iter().map(|chunk| (chunk.text, chunk.line(text))).collect();
        assert_eq!(found, expected, "{text:?}");
    }
}

#[test]
fn objects_and_their_ages() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n\
                - {apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: x}}\n";
    let typed = "apiVersion: networking.k8s.io/v1\nkind: IngressList\nitems: [{metadata: {name: a}}]\n";
    let stamped = "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: a, namespace: x, creationTimestamp: '1970-01-01T00:01:00Z'}}";
    let json = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"}}{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}"#;
    let two = format!("---\n{}---\n# nothing\n---\n{}", service("a"), service("b"));
    let cases: [(&str, &str, &[&str]); 7] = [
        ("a.yaml", &service("a"), &["Service/default/a (None, \"a.yaml 0000001.0000001\")"]),
        (
            "d/a.yml",
            &two,
            &[
                "Service/default/a (None, \"d/a.yml 0000001.0000001\")",
                "Service/default/b (None, \"d/a.yml 0000002.0000001\")",
            ],
        ),
        (
            "a.yaml",
            list,
            &[
                "Service/default/a (None, \"a.yaml 0000001.0000001\")",
                "ConfigMap/x/b (None, \"a.yaml 0000001.0000002\")",
            ],
        ),
        ("a.yaml", typed, &["Ingress/default/a (None, \"a.yaml 0000001.0000001\")"]),
        ("a.yaml", stamped, &["IngressClass/a (Some(60), \"a.yaml 0000001.0000001\")"]),
        (
            "a.json",
            json,
            &[
                "Service/default/a (None, \"a.json 0000001.0000001\")",
                "ConfigMap/default/b (None, \"a.json 0000002.0000002\")",
            ],
        ),
        ("a.json", " \n", &[]),
    ];
    for (file, text, expected) in cases {
        assert_eq!(told(file, text), expected, "{text}");
    }
}

#[test]
fn findings_name_file_document_object_and_field() {
    let cases = [
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: http}]}}",
            "broken Service/default/a|error Service/default/a spec.ports[0].port: invalid type: string \"http\", \
             expected a whole number from -2147483648 to 2147483647 (F, document 2) (Malformed)",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}, sepc: {}}",
            "Service/default/a (None, \"F 0000002.0000001\")|warning Service/default/a sepc: is not known and has no \
             effect (F, document 2) (UnknownField)",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {generateName: a}}",
            "error Manifest/F#2 metadata.name: is missing: the Service is left out (InvalidName)",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: A/b}}",
            "error Manifest/F#2 metadata.name: \"A/b\" is not a name: the Service is left out (InvalidName)",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: a.b}}",
            "error Manifest/F#2 metadata.namespace: \"a.b\" is not a name: the Service is left out (InvalidName)",
        ),
        (
            "{apiVersion: extensions/v1beta1, kind: Ingress, metadata: {name: a}}",
            "error Ingress/default/a apiVersion: extensions/v1beta1 is not read, write networking.k8s.io/v1 \
             (F, document 2) (UnknownVersion)",
        ),
        (
            "{apiVersion: traefik.io/v1alpha1, kind: IngressRoute, metadata: {name: a}}",
            "info Manifest/F#2 kind: IngressRoute a (traefik.io/v1alpha1) is not routed by Chancery (NotRouted)",
        ),
        ("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}", ""),
        (
            "replicas: 2",
            "warning Manifest/F#2 is no Kubernetes object: it has no apiVersion and kind (NotAnObject)",
        ),
        ("text", "warning Manifest/F#2 is no Kubernetes object: it has no apiVersion and kind (NotAnObject)"),
        ("{apiVersion: v1, kind: List, items: 1}", "error Manifest/F#2 items: is not a list (Malformed)"),
        (
            "a: 1\na: 2",
            "error Manifest/F#2 is not YAML: line 6, column 1: the key `a` stands twice (Unreadable)",
        ),
    ];
    for (text, expected) in cases {
        let found = told("F", &format!("{}---\n{text}\n", service("first")));
        assert_eq!(found[0], "Service/default/first (None, \"F 0000001.0000001\")");
        assert_eq!(found[1..].join("|"), expected, "{text}");
    }
    let found = told("a.json", "{\"a\": 1,}");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("error Manifest/a.json#1 is not JSON: trailing comma at line 1"),
        "{found:?}"
    );
    let found = parse("F", b"\xff", &[]);
    assert!(found.is_broken());
}

#[test]
fn what_is_known_is_not_read_again() {
    let text = |b: &str| format!("{}---\n{}---\n{}", service("a"), service(b), service("c"));
    let known: Vec<u64> =
        parse("F", text("b").as_bytes(), &[]).documents.iter().map(|document| document.hash).collect();
    let again = parse("F", text("x").as_bytes(), &known);
    let unchanged: Vec<bool> =
        again.documents.iter().map(|document| matches!(document.content, Content::Unchanged)).collect();
    assert_eq!(unchanged, [true, false, true]);
}

#[test]
fn places_are_read_back() {
    let age = Age { created: None, position: position("a/b.yaml", 12, 3) };
    assert_eq!(place(&age), Some(("a/b.yaml", 12)));
    assert_eq!(place(&Age::default()), None);
    assert!(position("a", 2, 1) < position("a", 10, 1) && position("a", 9, 9) < position("a.", 1, 1));
}
