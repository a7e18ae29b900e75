//! What policies do to a route: typed, merged by one rule a field, lowered to Envoy by `translate` alone.

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::auth_url::Question;
use super::backend_protocol::Protocol;
use super::cors::Cors;
use super::cost::Cost;
use super::fault::Fault;
use super::jwt::Token;
use super::retries::Retries;
pub use crate::values::Setting;
use crate::values::matching::HeaderMatch;
use crate::values::{LimitKey, Network, Origin, header};

/// One value a field. No two policies of an Ingress set the same one, which a law of the table holds; where two fields of
/// a VirtualService's rule mean the same, whoever sets the second asks first, and says which counts.
pub type Single<T> = Option<Setting<T>>;

/// Sets a field that nothing has set before.
pub fn set<T>(field: &mut Single<T>, value: T, origin: Origin) {
    debug_assert!(field.is_none(), "{origin} sets what is set");
    field.get_or_insert(Setting { value, origin });
}

/// Gives a field its default, unless a policy set it.
pub fn set_default<T>(field: &mut Single<T>, value: T, origin: Origin) {
    field.get_or_insert(Setting { value, origin });
}

/// Everything that policies do to a route.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Effects {
    /// Longest time for the whole answer; none means no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Single<Duration>,
    /// For gRPC requests, in place of `timeout`: what their `grpc-timeout` header asks for, up to this; 0 for any. None
    /// leaves the header to the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_timeout: Single<Duration>,
    /// Longest silence of the stream in both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Single<Duration>,
    /// Longest silence of the upstream once the request was sent; 504 before response headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_idle_timeout: Single<Duration>,
    /// When and how often a request is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Single<Retries>,
    /// What the upstream sees as path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_rewrite: Single<PathRewrite>,
    /// What the upstream sees as Host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_rewrite: Single<String>,
    /// Largest request body in bytes; more is answered 413.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_bytes: Single<u64>,
    /// Changes of request headers, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<HeaderOperation>,
    /// Changes of response headers, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<HeaderOperation>,
    /// Where copies go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Setting<MirrorTarget>>,
    /// Cross-origin rules of Envoy's `cors` filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Single<Cors>,
    /// Faults of Envoy's `fault` filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Single<Fault>,
    /// The service that is asked whether to let a request in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_auth: Single<ExternalAuth>,
    /// Limits that the rate limit service counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RouteLimit>,
    /// Answers given before the route's own, by phase.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<Guard>,
    /// How upstream connections are made: part of the cluster, not of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Single<Protocol>,
    /// Longest time for an upstream connection to be made: part of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Single<Duration>,
}

/// What the upstream sees as path; the query stays.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathRewrite {
    /// The matched prefix or path is replaced; after a regular expression, the whole path (Envoy's `prefix_rewrite`).
    Prefix(String),
    /// ingress-nginx's `rewrite-target`: the whole path is replaced, `$1` are captures of the route's own path.
    Target(String),
    /// What matches the pattern is replaced, `\1` are its captures (Envoy's `regex_rewrite`).
    Regex {
        /// RE2.
        pattern: String,
        /// The replacement.
        substitution: String,
    },
}

/// One change of a header. The value of one that holds secrets is not shown.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HeaderOperation {
    /// Replaces the header or adds it. The value is an Envoy format string: escape `%` in plain text.
    #[serde(serialize_with = "shown")]
    Set(String, String),
    /// Adds a value.
    #[serde(serialize_with = "shown")]
    Add(String, String),
    /// Takes the header away.
    Remove(String),
}

fn shown<S: Serializer>(name: &str, value: &str, serializer: S) -> Result<S::Ok, S::Error> {
    (name, header::shown(name, value)).serialize(serializer)
}

/// Where a copy of a request goes. `resolve` finds the backend behind it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirrorTarget {
    /// A Service's name in one of its forms, or a DNS name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether it is spoken to in TLS.
    pub tls: bool,
    /// Host of the copy, if it is not the request's own.
    pub host_rewrite: Option<String>,
    /// Share of requests copied, in millionths.
    pub millionths: u32,
}

/// A service that is asked whether to let a request in.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAuth {
    /// The name of its backend, one of the host's.
    pub cluster: Arc<str>,
    /// The Host that it sees.
    pub host: String,
    /// What it is asked, and what becomes of its answer.
    pub question: Arc<Question>,
    /// Of the headers of its answer those without which a request is answered 401, since it is counted by them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<Arc<str>>,
}

impl ExternalAuth {
    /// Whether a request header is set by the answer, whatever a client sends.
    pub fn sets(&self, header: &str) -> bool {
        self.question.response_headers.iter().any(|name| name.eq_ignore_ascii_case(header))
    }
}

/// A limit as a route refers to it; the limit itself is in the host model's `limits`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteLimit {
    /// The limit's id.
    pub id: Arc<str>,
    /// What each counter stands for.
    pub key: LimitKey,
    /// The tokens of the claims in the key, in the order of its parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<Token>,
    /// Clients that are not counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exempt: Vec<Network>,
    /// Whether it counts requests under way: each is given back when it ends.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub under_way: bool,
    /// What a request counts for.
    #[serde(skip_serializing_if = "Cost::is_one")]
    pub cost: Cost,
    /// Whether it counts what another service has let in, and not what comes before that is asked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub after_auth: bool,
    /// The request header that says another rate for the key; the service that lets requests in sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Arc<str>>,
    /// What a request above it is answered.
    pub refusal: Refusal,
    /// The policy or annotation.
    pub origin: Origin,
}

impl RouteLimit {
    /// Whether a filter with its answer stands in every chain, at its place.
    pub fn is_usual(&self) -> bool {
        self.refusal.headers.is_empty() && Refusal::usual(self.after_auth).contains(&self.refusal.status)
    }
}

/// What a request above a limit is answered. It is the filter's, not the route's: `translate` finds one of the answer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// 400 to 599.
    pub status: u16,
    /// Headers and their values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Whether requests are answered 503, rather than let through, while the rate limit service cannot be asked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fail_closed: bool,
    /// Whether Envoy does not tell clients what is left.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub untold: bool,
}

impl Refusal {
    /// An answer with this status, and requests let through while the service cannot be asked.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), fail_closed: false, untold: false }
    }

    /// The statuses with which filters stand in every chain, before other services are asked or after.
    pub fn usual(after_auth: bool) -> &'static [u16] {
        if after_auth { &[429] } else { &[503, 429] }
    }
}

/// An answer given before the route's own, to requests that the route matches.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// Guards of earlier phases come first.
    pub phase: Phase,
    /// The listeners on which it stands.
    pub listeners: Listeners,
    /// Further conditions.
    pub when: Vec<HeaderMatch>,
    /// The answer.
    pub answer: Answer,
    /// Why it is there.
    pub origin: Origin,
}

impl Guard {
    /// Nothing is let through: what should keep somebody out cannot.
    pub fn unavailable(origin: Origin) -> Self {
        Self::everything(Phase::Unavailable, 503, origin)
    }

    /// All requests get this status.
    pub fn everything(phase: Phase, status: u16, origin: Origin) -> Self {
        let answer = Answer::Direct { status, body: Vec::new() };
        Self { phase, listeners: Listeners::All, when: Vec::new(), answer, origin }
    }
}

/// The order of guards: that of nginx's phases.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// What a snippet answers.
    Rewrite,
    /// To https.
    Redirect,
    /// A backend that cannot serve.
    Unavailable,
    /// A request that cannot be counted.
    Limits,
    /// A request that cannot be let in.
    Auth,
    /// A body that is too large.
    Body,
}

/// The listeners on which something stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Listeners {
    /// Both.
    #[default]
    All,
    /// The http listener.
    Http,
    /// The https listener.
    Https,
}

impl Listeners {
    /// The listeners that are in both.
    pub fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::All, either) | (either, Self::All) => Some(either),
            (one, same) if one == same => Some(one),
            _ => None,
        }
    }

    /// Those that are not in the other.
    pub fn without(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::All, Self::Http) => Some(Self::Https),
            (Self::All, Self::Https) => Some(Self::Http),
            (one, other) if other == Self::All || one == other => None,
            (one, _) => Some(one),
        }
    }
}

/// An answer that Envoy gives by itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// A status and a body.
    Direct {
        /// 200 to 599.
        status: u16,
        /// The body, as bytes.
        body: Vec<u8>,
    },
    /// A redirect.
    Redirect(Box<Redirect>),
}

/// A redirect; what is not given stays as the request had it, the query too.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host, with a port if need be.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Whether the request's host is given without the port that stands behind it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub without_port: bool,
    /// Path.
    pub path: RedirectPath,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// The path of a redirect.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RedirectPath {
    /// The request's own.
    #[default]
    Keep,
    /// This one.
    Whole(String),
    /// The request's own without its last slash.
    WithoutTrailingSlash,
    /// The request's own, where what matches the pattern is replaced; `\1` are its captures.
    Regex {
        /// RE2.
        pattern: String,
        /// The replacement.
        substitution: String,
    },
    /// None, and no query either: the location ends with the host.
    Nothing,
}
