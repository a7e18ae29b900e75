//! Istio's VirtualService, its `http` section (`networking.istio.io/v1`, `v1beta1`, `v1alpha3`: one schema).
//!
//! Fields that are not honoured are kept under `unknown`, so that they can be named in findings. A field may also be
//! written by its name in Istio's .proto, as in protobuf's JSON: `mirror_percent` is `mirrorPercent`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::proto_names::ProtoNames;

/// Fields that nobody asked for, by name.
pub type Unknown = BTreeMap<String, Value>;

/// A VirtualService.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "Istio's own fields under Istio's own names")]
pub struct VirtualService {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: VirtualServiceSpec,
}

impl VirtualService {
    /// The paths of all fields that nobody asked for, such as `spec.http[0].route[1].foo`.
    pub fn unknown_paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.spec.unknowns("spec", &mut found);
        found
    }
}

/// Finds fields that nobody asked for.
trait Unknowns {
    fn unknowns(&self, path: &str, found: &mut Vec<String>);
}

macro_rules! leaves {
    ($($leaf:ty),*) => {
        $(impl Unknowns for $leaf {
            fn unknowns(&self, _: &str, _: &mut Vec<String>) {}
        })*
    };
}

leaves!(bool, u32, i64, f64, String, Value);

impl<T: Unknowns> Unknowns for Option<T> {
    fn unknowns(&self, path: &str, found: &mut Vec<String>) {
        if let Some(value) = self {
            value.unknowns(path, found);
        }
    }
}

impl<T: Unknowns> Unknowns for Vec<T> {
    fn unknowns(&self, path: &str, found: &mut Vec<String>) {
        for (index, value) in self.iter().enumerate() {
            value.unknowns(&format!("{path}[{index}]"), found);
        }
    }
}

impl<T: Unknowns> Unknowns for BTreeMap<String, T> {
    fn unknowns(&self, path: &str, found: &mut Vec<String>) {
        for (key, value) in self {
            value.unknowns(&format!("{path}.{key}"), found);
        }
    }
}

/// The field's name in an object: `redirect_code` is `redirectCode`.
pub(super) fn json_name(field: &str) -> String {
    let mut words = field.trim_start_matches("r#").split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        name.push_str(&word[..1].to_ascii_uppercase());
        name.push_str(&word[1..]);
    }
    name
}

macro_rules! istio {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
        #[serde(remote = "Self", rename_all = "camelCase", default)]
        #[allow(missing_docs, reason = "Istio's own fields under Istio's own names")]
        pub struct $name {
            $($(#[$attribute])* pub $field: $type,)*
            #[serde(flatten)]
            pub unknown: Unknown,
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(ProtoNames::new(deserializer, &[$(stringify!($field)),*]))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, serializer)
            }
        }

        impl Unknowns for $name {
            fn unknowns(&self, path: &str, found: &mut Vec<String>) {
                $(self.$field.unknowns(&format!("{path}.{}", json_name(stringify!($field))), found);)*
                found.extend(self.unknown.keys().map(|name| format!("{path}.{name}")));
            }
        }
    };
}

istio!(
    /// `spec`
    VirtualServiceSpec {
        #[serde(deserialize_with = "null_is_empty")]
        hosts: Vec<String>,
        gateways: Option<Vec<String>>,
        #[serde(deserialize_with = "null_is_empty")]
        http: Vec<HttpRoute>,
        tls: Option<Value>,
        tcp: Option<Value>,
        export_to: Option<Vec<String>>,
    }
);
istio!(
    /// `spec.http[]`
    HttpRoute {
        name: Option<String>,
        #[serde(deserialize_with = "null_is_empty")]
        r#match: Vec<HttpMatchRequest>,
        #[serde(deserialize_with = "null_is_empty")]
        route: Vec<HttpRouteDestination>,
        redirect: Option<HttpRedirect>,
        direct_response: Option<HttpDirectResponse>,
        delegate: Option<Value>,
        rewrite: Option<HttpRewrite>,
        timeout: Option<String>,
        retries: Option<HttpRetry>,
        fault: Option<HttpFaultInjection>,
        mirror: Option<Destination>,
        mirrors: Option<Vec<HttpMirrorPolicy>>,
        mirror_percent: Option<u32>,
        mirror_percentage: Option<Percent>,
        cors_policy: Option<CorsPolicy>,
        headers: Option<Headers>,
    }
);
istio!(
    /// `spec.http[].match[]`
    HttpMatchRequest {
        name: Option<String>,
        uri: Option<StringMatch>,
        scheme: Option<StringMatch>,
        method: Option<StringMatch>,
        authority: Option<StringMatch>,
        headers: Option<BTreeMap<String, StringMatch>>,
        without_headers: Option<BTreeMap<String, StringMatch>>,
        query_params: Option<BTreeMap<String, StringMatch>>,
        ignore_uri_case: bool,
        port: Option<u32>,
        source_labels: Option<BTreeMap<String, String>>,
        source_namespace: Option<String>,
        gateways: Option<Vec<String>>,
        stat_prefix: Option<String>,
    }
);
istio!(
    /// `exact`, `prefix` or `regex`; none of them means presence where that has a meaning.
    StringMatch {
        exact: Option<String>,
        prefix: Option<String>,
        regex: Option<String>,
    }
);
istio!(
    /// `spec.http[].route[]`
    HttpRouteDestination {
        destination: Destination,
        weight: Option<i64>,
        headers: Option<Headers>,
    }
);
istio!(
    /// A Service, by short or full name, and its port.
    Destination {
        host: String,
        subset: Option<String>,
        port: Option<PortSelector>,
    }
);
istio!(
    /// A Service port by number.
    PortSelector {
        number: i64,
    }
);
istio!(
    /// `redirect`
    HttpRedirect {
        uri: Option<String>,
        authority: Option<String>,
        port: Option<u32>,
        derive_port: Option<String>,
        scheme: Option<String>,
        redirect_code: Option<u32>,
    }
);
istio!(
    /// `directResponse`
    HttpDirectResponse {
        status: u32,
        body: Option<HttpBody>,
    }
);
istio!(
    /// `directResponse.body`; `bytes` is base64.
    HttpBody {
        string: Option<String>,
        bytes: Option<String>,
    }
);
istio!(
    /// `rewrite`
    HttpRewrite {
        uri: Option<String>,
        authority: Option<String>,
        uri_regex_rewrite: Option<RegexRewrite>,
    }
);
istio!(
    /// `rewrite.uriRegexRewrite`, with `\1` for captures.
    RegexRewrite {
        r#match: String,
        rewrite: String,
    }
);
istio!(
    /// `retries`
    HttpRetry {
        attempts: Option<i64>,
        per_try_timeout: Option<String>,
        retry_on: Option<String>,
        retry_remote_localities: Option<bool>,
        retry_ignore_previous_hosts: Option<bool>,
        backoff: Option<String>,
    }
);
istio!(
    /// `fault`
    HttpFaultInjection {
        delay: Option<Delay>,
        abort: Option<Abort>,
    }
);
istio!(
    /// `fault.delay`
    Delay {
        fixed_delay: Option<String>,
        percentage: Option<Percent>,
        percent: Option<u32>,
    }
);
istio!(
    /// `fault.abort`
    Abort {
        http_status: Option<u32>,
        grpc_status: Option<String>,
        percentage: Option<Percent>,
    }
);
istio!(
    /// A percentage from 0 to 100, with decimals.
    Percent {
        value: f64,
    }
);
istio!(
    /// `mirrors[]`
    HttpMirrorPolicy {
        destination: Destination,
        percentage: Option<Percent>,
    }
);
istio!(
    /// `corsPolicy`; `maxAge` is a duration.
    CorsPolicy {
        allow_origin: Option<Vec<String>>,
        allow_origins: Option<Vec<StringMatch>>,
        allow_methods: Option<Vec<String>>,
        allow_headers: Option<Vec<String>>,
        expose_headers: Option<Vec<String>>,
        max_age: Option<String>,
        allow_credentials: Option<bool>,
        unmatched_preflights: Option<String>,
    }
);
istio!(
    /// `headers`
    Headers {
        request: Option<HeaderOperations>,
        response: Option<HeaderOperations>,
    }
);
istio!(
    /// `headers.request`, `headers.response`
    HeaderOperations {
        set: Option<BTreeMap<String, String>>,
        add: Option<BTreeMap<String, String>>,
        remove: Option<Vec<String>>,
    }
);

/// A list written as `null` (a key whose lines are all comments) is an empty one.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}
