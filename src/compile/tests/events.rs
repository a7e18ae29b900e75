//! Random events over all kinds, with few names, so that objects find each other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::settings::RateLimitService;
use crate::source::kinds::WATCHED;
use crate::source::read::read;
use crate::store::{Change, Stored};
use crate::values::{Age, Finding, Findings, Kind, ObjectKey};

use super::certificates::pair;

static NAMESPACES: [&str; 2] = ["a", "b"];
/// The hosts of rules; the last two are the same as others, and none at all.
static HOSTS: [&str; 7] = ["x.io", "y.x.io", "z.io", "*.x.io", "", "Y.x.io", "no host"];

/// The names that objects of each kind have.
fn names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Ingress => &["i0", "i1", "i2", "i3"],
        Kind::VirtualService => &["v0", "v1"],
        Kind::RateLimitPolicy => &["r0", "r1"],
        Kind::IngressClass => &["nginx", "other"],
        Kind::Service => &["s0", "s1", "s2"],
        Kind::EndpointSlice => &["e0", "e1", "e2"],
        Kind::Secret => &["t0", "t1"],
        Kind::ConfigMap => &["defaults"],
        Kind::Manifest => &["a"],
    }
}

fn keys(kind: Kind) -> Vec<ObjectKey> {
    let namespaces = if kind.is_namespaced() { &NAMESPACES[..] } else { &[""] };
    let mut keys = Vec::new();
    for namespace in namespaces {
        keys.extend(names(kind).iter().map(|name| ObjectKey::new(kind, *namespace, *name)));
    }
    keys
}

/// Something that happens.
#[derive(Clone)]
pub(super) enum Event {
    /// An object as JSON, its age, and whether reading it found something.
    Applied(ObjectKey, Value, u8, bool),
    Deleted(ObjectKey),
    Listed(Kind, Vec<ObjectKey>),
    /// What is said of a file, as often.
    Findings(u8, usize),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied(key, value, age, found) => write!(f, "{key} = {value} (age {age}, found {found})"),
            Self::Deleted(key) => write!(f, "{key} deleted"),
            Self::Listed(kind, keys) => write!(f, "{kind} listed: {keys:?}"),
            Self::Findings(place, count) => write!(f, "file {place}: {count} findings"),
        }
    }
}

impl Event {
    pub(super) fn change(&self) -> Change {
        match self {
            Self::Applied(key, value, age, found) => {
                Change::Applied(Arc::new(applied(key, value, *age, *found)))
            }
            Self::Deleted(key) => Change::Deleted(key.clone()),
            Self::Listed(kind, keys) => Change::Listed(*kind, keys.clone()),
            Self::Findings(place, count) => {
                Change::Findings { place: format!("file {place}").into(), findings: found(*place, *count) }
            }
        }
    }
}

/// What there is after events.
#[derive(Debug, Default)]
pub(super) struct Remains {
    objects: BTreeMap<ObjectKey, Event>,
    places: BTreeMap<u8, Event>,
}

impl Remains {
    pub(super) fn after<'e>(events: impl IntoIterator<Item = &'e Event>) -> Self {
        let mut remains = Self::default();
        for event in events {
            match event {
                Event::Applied(key, ..) => drop(remains.objects.insert(key.clone(), event.clone())),
                Event::Deleted(key) => drop(remains.objects.remove(key)),
                Event::Listed(kind, keys) => {
                    remains.objects.retain(|key, _| key.kind != *kind || keys.contains(key));
                }
                Event::Findings(place, _) => drop(remains.places.insert(*place, event.clone())),
            }
        }
        remains
    }

    pub(super) fn changes(&self) -> Vec<Change> {
        self.objects.values().chain(self.places.values()).map(Event::change).collect()
    }

    /// The keys of a kind, as a source lists them.
    pub(super) fn listed(&self, kind: Kind) -> Change {
        Change::Listed(kind, self.objects.keys().filter(|key| key.kind == kind).cloned().collect())
    }

    /// Everything goes.
    pub(super) fn removal(&self) -> Vec<Change> {
        let objects = self.objects.keys().cloned().map(Change::Deleted);
        let places = self.places.keys().map(|place| Event::Findings(*place, 0).change());
        objects.chain(places).collect()
    }
}

fn applied(key: &ObjectKey, value: &Value, age: u8, is_found: bool) -> Stored {
    let watched = WATCHED.iter().find(|watched| watched.kind == key.kind).expect("a kind that is read");
    let mut value = value.clone();
    value["metadata"]["name"] = json!(&*key.name);
    if key.kind.is_namespaced() {
        value["metadata"]["namespace"] = json!(&*key.namespace);
    }
    if key.kind == Kind::Secret {
        value["data"] = pair(value["data"].as_str().unwrap_or_default());
    }
    let object = read(watched, value.clone(), None).unwrap_or_else(|error| panic!("{value}: {error}"));
    // The younger half comes from files, which have no time of creation.
    let age = match age {
        0..4 => Age { created: Some(age.into()), position: "".into() },
        _ => Age { created: None, position: format!("f{age}").into() },
    };
    Stored::new(object, age, if is_found { found(9, 1) } else { Vec::new() })
}

fn found(place: u8, count: usize) -> Vec<Finding> {
    let mut findings = Findings::default();
    for number in 0..count {
        let key = ObjectKey::new(Kind::Manifest, "", format!("{place}.yaml#{number}"));
        findings.warning(&key, "", "Unreadable", "is not an object");
    }
    findings.into_vec()
}

/// What most sequences begin with, so that routes have somewhere to go.
pub(super) fn base() -> Vec<Event> {
    let mut events = Vec::new();
    for namespace in NAMESPACES {
        for (index, name) in names(Kind::Service).iter().enumerate() {
            let service = json!({"spec": {"ports": [{"port": 80}]}});
            let slice = json!({
                "metadata": {"labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
                "ports": [{"name": "", "port": 8080}],
                "endpoints": [{"addresses": [format!("10.0.0.{index}")], "conditions": {}}],
            });
            let slice_name = names(Kind::EndpointSlice)[index];
            let key = |kind, name: &str| ObjectKey::new(kind, namespace, name);
            events.push(Event::Applied(key(Kind::Service, name), service, 0, false));
            events.push(Event::Applied(key(Kind::EndpointSlice, slice_name), slice, 0, false));
        }
    }
    events
}

/// Batches of events as a source might send them.
pub(super) fn batches() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let batch = prop::collection::vec(event(), 1..4);
    (prop::bool::weighted(0.8), prop::collection::vec(batch, 1..9)).prop_map(|(with_base, mut batches)| {
        if with_base {
            batches.insert(0, base());
        }
        batches
    })
}

fn event() -> impl Strategy<Value = Event> {
    let any_key = select(Kind::ALL.iter().flat_map(|kind| keys(*kind)).collect::<Vec<_>>());
    let listed = select(Kind::ALL.to_vec()).prop_flat_map(|kind| {
        let keys = keys(kind);
        let count = keys.len();
        subsequence(keys, 0..=count).prop_map(move |keys| Event::Listed(kind, keys))
    });
    prop_oneof![
        9 => object(Kind::Ingress, ingress()),
        4 => object(Kind::VirtualService, virtual_service()),
        2 => object(Kind::RateLimitPolicy, rate_limit_policy()),
        1 => object(Kind::IngressClass, ingress_class()),
        3 => object(Kind::Service, service()),
        4 => object(Kind::EndpointSlice, endpoint_slice()),
        2 => object(Kind::Secret, secret()),
        2 => object(Kind::ConfigMap, config_map()),
        5 => any_key.prop_map(Event::Deleted),
        1 => listed,
        1 => (0..2_u8, 0..3_usize).prop_map(|(place, count)| Event::Findings(place, count)),
    ]
}

fn object(kind: Kind, value: impl Strategy<Value = Value>) -> impl Strategy<Value = Event> {
    (select(keys(kind)), value, 0..8_u8, prop::bool::weighted(0.1))
        .prop_map(|(key, value, age, found)| Event::Applied(key, value, age, found))
}

fn text(options: &'static [&'static str]) -> impl Strategy<Value = Value> {
    select(options).prop_map(Value::from)
}

/// JSON texts, since that is how they are read best.
fn jsons(options: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let parse = |text: &&str| -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    let values: Vec<Value> = options.iter().map(parse).collect();
    select(values)
}

fn list(item: impl Strategy<Value = Value>, count: std::ops::Range<usize>) -> impl Strategy<Value = Value> {
    prop::collection::vec(item, count).prop_map(Value::from)
}

fn ingress() -> impl Strategy<Value = Value> {
    let class = prop_oneof![8 => text(&["nginx"]), 1 => text(&["other", "absent"]), 1 => Just(Value::Null)];
    let default = prop_oneof![4 => Just(Value::Null), 1 => ingress_backend()];
    (annotations(), class, default, list(rule(), 0..3), tls()).prop_map(
        |(annotations, class, default, rules, tls)| {
            json!({
                "metadata": {"annotations": annotations},
                "spec": {"ingressClassName": class, "defaultBackend": default, "rules": rules, "tls": tls},
            })
        },
    )
}

fn rule() -> impl Strategy<Value = Value> {
    let path_type = text(&["Prefix", "Prefix", "Exact", "ImplementationSpecific", "Regex"]);
    let path = text(&["/", "/", "/p", "/p/", "/p/q", "/re/(.*)", "/bad(", "none"]);
    let path = (path, path_type, ingress_backend()).prop_map(
        |(path, path_type, backend)| json!({"path": path, "pathType": path_type, "backend": backend}),
    );
    (text(&HOSTS), list(path, 0..3)).prop_map(|(host, paths)| json!({"host": host, "http": {"paths": paths}}))
}

fn ingress_backend() -> impl Strategy<Value = Value> {
    let port = jsons(&[r#"{"number": 80}"#, r#"{"number": 80}"#, r#"{"number": 81}"#, r#"{"name": "http"}"#]);
    let name = text(&["s0", "s1", "s2", "s0", "s1", "absent"]);
    prop_oneof![
        12 => (name, port).prop_map(|(name, port)| json!({"service": {"name": name, "port": port}})),
        1 => Just(json!({"resource": {"kind": "Bucket", "name": "b"}})),
    ]
}

fn tls() -> impl Strategy<Value = Value> {
    let secret = text(&["t0", "t1", "t0", "absent", ""]);
    let entry = (list(text(&HOSTS[..4]), 0..2), secret)
        .prop_map(|(hosts, secret)| json!({"hosts": hosts, "secretName": secret}));
    prop_oneof![2 => Just(json!([])), 1 => list(entry, 1..3)]
}

fn annotations() -> impl Strategy<Value = Value> {
    let canary = jsons(&[
        r#"{"canary": "true", "canary-weight": "10"}"#,
        r#"{"canary": "true", "canary-weight": "0", "canary-by-header": "x-c", "canary-by-cookie": "c"}"#,
        r#"{"canary": "true", "canary-by-header": "x-c", "canary-by-header-value": "on", "canary-weight": "100"}"#,
        r#"{"canary": "true", "canary-by-header": "x-c", "canary-by-header-pattern": "^b("}"#,
        r#"{"canary-weight": "20"}"#,
    ]);
    let other = jsons(&[
        r#"{"use-regex": "true"}"#,
        r#"{"rewrite-target": "/$1"}"#,
        r#"{"ssl-redirect": "false"}"#,
        r#"{"force-ssl-redirect": "true"}"#,
        r#"{"proxy-read-timeout": "300"}"#,
        r#"{"proxy-read-timeout": "5m", "proxy-connect-timeout": "7"}"#,
        r#"{"proxy-body-size": "0"}"#,
        r#"{"proxy-body-size": "9m"}"#,
        r#"{"mirror-target": "http://s1.a:80$request_uri"}"#,
        r#"{"mirror-target": "https://shadow.example.net"}"#,
        r#"{"auth-url": "http://s1.a:80/check", "auth-response-headers": "x-user"}"#,
        r#"{"auth-url": "https://$host/check"}"#,
        r#"{"upstream-vhost": "inner.io"}"#,
        r#"{"backend-protocol": "GRPC"}"#,
        r#"{"backend-protocol": "AUTO_HTTP"}"#,
        r#"{"limit-rps": "5"}"#,
        r#"{"limit-rps": "7", "limit-rpm": "100", "limit-burst-multiplier": "2"}"#,
        r#"{"whitelist-source-range": "10.0.0.0/8"}"#,
        r#"{"server-snippet": "return 200;"}"#,
        r#"{"use-regx": "true"}"#,
    ]);
    let class =
        jsons(&[r#"{"kubernetes.io/ingress.class": "nginx"}"#, r#"{"kubernetes.io/ingress.class": "x"}"#]);
    let canary = prop_oneof![3 => Just(json!({})), 1 => canary];
    let class = prop_oneof![9 => Just(json!({})), 1 => class];
    (canary, prop::collection::vec(other, 0..3), class).prop_map(|(canary, others, class)| {
        let mut all = serde_json::Map::new();
        for (key, value) in [canary].into_iter().chain(others).flat_map(fields) {
            all.insert(format!("nginx.ingress.kubernetes.io/{key}"), value);
        }
        all.extend(fields(class));
        Value::Object(all)
    })
}

fn fields(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is not an object"),
    }
}

fn virtual_service() -> impl Strategy<Value = Value> {
    let hosts = list(text(&["x.io", "y.x.io", "z.io", "*.x.io", "*", "a/b"]), 0..3);
    (hosts, list(http_route(), 0..3))
        .prop_map(|(hosts, http)| json!({"spec": {"hosts": hosts, "gateways": ["gw"], "http": http}}))
}

fn http_route() -> impl Strategy<Value = Value> {
    let destination = jsons(&[
        r#"{"destination": {"host": "s0"}, "weight": 3}"#,
        r#"{"destination": {"host": "s1.a.svc.cluster.local"}, "weight": 1}"#,
        r#"{"destination": {"host": "s2.b", "port": {"number": 81}}, "weight": 2}"#,
        r#"{"destination": {"host": "absent"}, "weight": 1}"#,
        r#"{"destination": {"host": "api.example.net", "port": {"number": 443}}, "weight": 0}"#,
        r#"{"destination": {"host": "s0", "subset": "v1"},
            "headers": {"request": {"set": {"host": "h.io", "x-a": "1"}, "remove": ["x-b"]}}}"#,
    ]);
    let action = prop_oneof![
        5 => list(destination, 1..3).prop_map(|route| json!({"route": route})),
        1 => Just(json!({"redirect": {"uri": "/to", "derivePort": "FROM_REQUEST_PORT", "scheme": "https"}})),
        1 => Just(json!({"directResponse": {"status": 418, "body": {"string": "tea"}}})),
        1 => Just(json!({"delegate": {"name": "v1"}})),
        1 => Just(json!({})),
    ];
    let matches = jsons(&[
        "[]",
        r#"[{"uri": {"prefix": "/p"}}, {"uri": {"exact": "/e"}, "method": {"exact": "POST"}}]"#,
        r#"[{"uri": {"regex": "/r/[0-9]+"}, "ignoreUriCase": true}]"#,
        r#"[{"uri": {"regex": "/r("}}]"#,
        r#"[{"headers": {"x-a": {"exact": "1"}}, "withoutHeaders": {"x-b": {}}, "queryParams": {"q": {"prefix": "a"}}}]"#,
        r#"[{"scheme": {"exact": "https"}}, {"port": 80}, {"authority": {"prefix": "x"}}]"#,
    ]);
    let extra = jsons(&[
        "{}",
        r#"{"timeout": "3s", "retries": {"attempts": 2, "perTryTimeout": "1s", "retryOn": "5xx,503"}}"#,
        r#"{"timeout": "soon", "retries": {"attempts": 0}}"#,
        r#"{"mirror": {"host": "s1"}, "mirrorPercentage": {"value": 12.5}}"#,
        r#"{"mirrors": [{"destination": {"host": "absent"}}, {"destination": {"host": "s0.b"}, "percentage": {"value": 1}}]}"#,
        r#"{"fault": {"delay": {"fixedDelay": "2s", "percentage": {"value": 10}}, "abort": {"httpStatus": 503, "percentage": {"value": 1}}}}"#,
        r#"{"corsPolicy": {"allowOrigins": [{"exact": "https://a.io"}, {"regex": ".*b"}], "allowMethods": ["GET"], "maxAge": "1h"}}"#,
        r#"{"headers": {"response": {"add": {"x-r": "100%"}}, "request": {"set": {"x-q": "%START_TIME%"}}}}"#,
        r#"{"rewrite": {"uri": "/w", "authority": "w.io"}}"#,
        r#"{"rewrite": {"uriRegexRewrite": {"match": "/(.*)", "rewrite": "/x/\\1"}}, "bogus": 1}"#,
    ]);
    (action, matches, extra).prop_map(|(action, matches, extra)| {
        let mut rule = fields(action);
        rule.insert("match".to_owned(), matches);
        rule.extend(fields(extra));
        Value::Object(rule)
    })
}

fn rate_limit_policy() -> impl Strategy<Value = Value> {
    let target = jsons(&[
        r#"{"kind": "Ingress", "name": "i0"}"#,
        r#"{"kind": "Ingress", "name": "i1"}"#,
        r#"{"kind": "VirtualService", "name": "v0"}"#,
        r#"{"kind": "Gateway", "name": "gw"}"#,
    ]);
    let limit = jsons(&[
        r#"{"key": {"header": "x-api-key"}, "requests": 5, "window": "1m"}"#,
        r#"{"key": {"clientAddress": {}}, "requests": 9, "window": "1s"}"#,
        r#"{"key": {"header": "no name"}, "requests": 9, "window": "1s"}"#,
        r#"{"key": {"clientAddress": {}}, "requests": 9, "window": "soon", "unit": 1}"#,
    ]);
    (target, list(limit, 0..3))
        .prop_map(|(target, limits)| json!({"spec": {"targetRef": target, "limits": limits}}))
}

fn ingress_class() -> impl Strategy<Value = Value> {
    let controller = text(&["k8s.io/ingress-nginx", "chancery.dev/ingress", "example.com/foreign"]);
    (controller, text(&["true", "false"])).prop_map(|(controller, default)| {
        json!({
            "metadata": {"annotations": {"ingressclass.kubernetes.io/is-default-class": default}},
            "spec": {"controller": controller},
        })
    })
}

fn service() -> impl Strategy<Value = Value> {
    let spec = jsons(&[
        r#"{"ports": [{"port": 80}]}"#,
        r#"{"ports": [{"port": 80}]}"#,
        r#"{"ports": [{"name": "http", "port": 80}, {"name": "grpc", "port": 81, "appProtocol": "grpc"}]}"#,
        r#"{"ports": [{"name": "http", "port": 81, "targetPort": 80}]}"#,
        r#"{"ports": []}"#,
        r#"{"type": "ExternalName", "externalName": "api.example.net", "ports": [{"port": 80}]}"#,
        r#"{"type": "ExternalName", "externalName": "s1.a.svc.cluster.local", "ports": [{"port": 80}]}"#,
        r#"{"type": "ExternalName", "externalName": "s0.b", "ports": [{"port": 80}]}"#,
    ]);
    spec.prop_map(|spec| json!({"spec": spec}))
}

fn endpoint_slice() -> impl Strategy<Value = Value> {
    let conditions = jsons(&[
        "{}",
        r#"{"ready": true}"#,
        r#"{"ready": false}"#,
        r#"{"ready": false, "serving": true, "terminating": true}"#,
    ]);
    let address = text(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "nowhere"]);
    let endpoint = (address, conditions)
        .prop_map(|(address, conditions)| json!({"addresses": [address], "conditions": conditions}));
    let ports = jsons(&[
        r#"[{"name": "", "port": 8080}]"#,
        r#"[{"port": 8081}]"#,
        r#"[{"name": "http", "port": 8080}, {"name": "grpc", "port": 9090}]"#,
    ]);
    (text(&["s0", "s1", "s2"]), ports, list(endpoint, 0..3)).prop_map(|(service, ports, endpoints)| {
        json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        })
    })
}

/// Their data is the name of a pair.
fn secret() -> impl Strategy<Value = Value> {
    let pair = text(&["x", "x", "x renewed", "wildcard", "wildcard", "of another key", "not PEM", "no key"]);
    pair.prop_map(|pair| json!({"type": "kubernetes.io/tls", "data": pair}))
}

fn config_map() -> impl Strategy<Value = Value> {
    let data = jsons(&[
        r#"{"proxy-read-timeout": "120"}"#,
        r#"{"ssl-redirect": "false", "proxy-body-size": "2m"}"#,
        r#"{"proxy-read-timeout": "1h", "hsts": "false"}"#,
        "{}",
    ]);
    data.prop_map(|data| json!({"data": data}))
}

/// The settings that decide how the above is read.
pub(super) fn settings() -> impl Strategy<Value = crate::settings::Settings> {
    (0..4_usize, any::<bool>(), any::<bool>()).prop_map(|(on_demand_threshold, default, classless)| {
        crate::settings::Settings {
            on_demand_threshold,
            default_ssl_certificate: default.then(|| ("a".to_owned(), "t1".to_owned())),
            watch_ingress_without_class: classless,
            config_map: ("a".to_owned(), "defaults".to_owned()),
            ratelimit: ratelimit(),
            ..crate::settings::Settings::default()
        }
    })
}

/// Where the rate limit service is.
pub(super) fn ratelimit() -> Option<RateLimitService> {
    Some(RateLimitService { host: "127.0.0.1".to_owned(), port: 9000, secrets: None })
}
