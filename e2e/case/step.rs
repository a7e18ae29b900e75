//! Steps of a case: what is done, and what must be seen.

use super::values::{BackendKey, Contained, Counted, OneOrMany, Pattern, ServiceName, Span, Status};
use crate::manifest::ObjectRef;
use crate::yaml_de::Json;
use anyhow::{Result, bail};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// One step, with exactly one action.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) about: Option<String>,
    pub(crate) action: Action,
    pub(crate) expect: Option<Expect>,
    /// How long the first expecting step after a change is tried again.
    pub(crate) settle: Duration,
    pub(crate) during: Option<During>,
}

/// What a step does.
#[derive(Debug)]
pub(crate) enum Action {
    Request(Box<Request>),
    Apply(String),
    Delete(ObjectRef),
    Scale(BTreeMap<BackendKey, u32>),
    Restart(Component),
    Stop(Component),
    Start(Component),
    Wait(Duration),
    Admin(String),
    Command(Vec<String>),
    Status(ObjectRef),
}

impl Action {
    /// The key that the step is written with.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Action::Request(_) => "request",
            Action::Apply(_) => "apply",
            Action::Delete(_) => "delete",
            Action::Scale(_) => "scale",
            Action::Restart(_) => "restart",
            Action::Stop(_) => "stop",
            Action::Start(_) => "start",
            Action::Wait(_) => "wait",
            Action::Admin(_) => "admin",
            Action::Command(_) => "command",
            Action::Status(_) => "status",
        }
    }

    /// Whether the step changes what the next expecting step sees.
    pub(crate) fn is_change(&self) -> bool {
        matches!(self.key(), "apply" | "delete" | "scale" | "restart" | "stop" | "start")
    }
}

/// A part of the system that a step can stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Component {
    ControlPlane,
    Envoy,
    Ratelimit,
    KubeApiserver,
    Redis,
}

/// A request, or `count` equal ones.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) scheme: Scheme,
    pub(crate) host: Option<String>,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, OneOrMany<String>>,
    pub(crate) body: Option<String>,
    pub(crate) body_size: Option<usize>,
    pub(crate) count: usize,
    pub(crate) concurrency: usize,
    pub(crate) http: Option<HttpVersion>,
    pub(crate) from: Option<Ipv4Addr>,
    pub(crate) cookies: bool,
    pub(crate) sni: Option<String>,
    pub(crate) client_cert: Option<ServiceName>,
    pub(crate) timeout: Span,
    pub(crate) grpc: Option<Grpc>,
    pub(crate) websocket: bool,
}

impl Default for Request {
    fn default() -> Self {
        Request {
            method: "GET".to_owned(),
            scheme: Scheme::Http,
            host: None,
            path: "/".to_owned(),
            headers: BTreeMap::new(),
            body: None,
            body_size: None,
            count: 1,
            concurrency: 1,
            http: None,
            from: None,
            cookies: false,
            sni: None,
            client_cert: None,
            timeout: Span(Duration::from_secs(10)),
            grpc: None,
            websocket: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scheme {
    Http,
    Https,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum HttpVersion {
    #[serde(rename = "1.1")]
    Http1,
    #[serde(rename = "2")]
    Http2,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grpc {
    pub(crate) service: String,
    pub(crate) method: String,
}

/// A request sent all the while a change is made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct During {
    pub(crate) request: Request,
    pub(crate) expect: Expect,
    /// Requests a second.
    #[serde(default = "default_rate")]
    pub(crate) rate: f64,
}

fn default_rate() -> f64 {
    200.0
}

/// What must be seen; every key given must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    pub(crate) status: Option<OneOrMany<Status>>,
    pub(crate) statuses: Option<BTreeMap<Status, Counted>>,
    pub(crate) backend: Option<OneOrMany<ServiceName>>,
    pub(crate) share: Option<BTreeMap<ServiceName, f64>>,
    pub(crate) seen: Option<Seen>,
    pub(crate) headers: Option<BTreeMap<String, Option<Pattern>>>,
    pub(crate) body: Option<Pattern>,
    pub(crate) mirrored: Option<BTreeMap<ServiceName, f64>>,
    pub(crate) endpoints: Option<Counted>,
    pub(crate) sticky: Option<bool>,
    pub(crate) duration: Option<DurationBounds>,
    pub(crate) tls: Option<TlsSeen>,
    pub(crate) error: Option<ErrorKind>,
    pub(crate) json: Option<BTreeMap<String, JsonExpected>>,
    pub(crate) exit: Option<i32>,
    pub(crate) stdout: Option<Contained>,
    pub(crate) stderr: Option<Contained>,
}

/// What the backend that answered saw.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Seen {
    pub(crate) path: Option<Pattern>,
    pub(crate) host: Option<Pattern>,
    pub(crate) method: Option<Pattern>,
    pub(crate) headers: BTreeMap<String, Option<Pattern>>,
    pub(crate) body: Option<Pattern>,
    pub(crate) body_size: Option<Counted>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DurationBounds {
    pub(crate) min: Option<Span>,
    pub(crate) max: Option<Span>,
}

/// What the handshake must have shown.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsSeen {
    pub(crate) san: Option<String>,
    pub(crate) version: Option<TlsVersion>,
    pub(crate) alpn: Option<String>,
    #[serde(default)]
    pub(crate) verify: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// How a request can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ErrorKind {
    Refused,
    Reset,
    Tls,
    Timeout,
}

/// What stands at a JSON pointer.
#[derive(Clone, Debug)]
pub(crate) enum JsonExpected {
    Value(Value),
    Regex(Pattern),
}

impl<'de> Deserialize<'de> for JsonExpected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match Json::deserialize(deserializer)?.0 {
            Value::String(text) => match text.parse::<Pattern>().map_err(D::Error::custom)? {
                Pattern::Text(text) => Ok(JsonExpected::Value(Value::String(text))),
                regex => Ok(JsonExpected::Regex(regex)),
            },
            value => Ok(JsonExpected::Value(value)),
        }
    }
}

/// A step as written: every key optional, [`RawStep::checked`] sorts it out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawStep {
    about: Option<String>,
    expect: Option<Expect>,
    settle: Option<Span>,
    during: Option<During>,
    request: Option<Request>,
    apply: Option<String>,
    delete: Option<ObjectRef>,
    scale: Option<BTreeMap<BackendKey, u32>>,
    restart: Option<Component>,
    stop: Option<Component>,
    start: Option<Component>,
    wait: Option<Span>,
    admin: Option<String>,
    command: Option<Vec<String>>,
    status: Option<ObjectRef>,
}

impl RawStep {
    /// The step, if it has one action and nothing beside it that does not belong there.
    pub(crate) fn checked(self) -> Result<Step> {
        let actions = [
            self.request.map(|request| Action::Request(Box::new(request))),
            self.apply.map(Action::Apply),
            self.delete.map(Action::Delete),
            self.scale.map(Action::Scale),
            self.restart.map(Action::Restart),
            self.stop.map(Action::Stop),
            self.start.map(Action::Start),
            self.wait.map(|span| Action::Wait(span.0)),
            self.admin.map(Action::Admin),
            self.command.map(Action::Command),
            self.status.map(Action::Status),
        ];
        let mut given = actions.into_iter().flatten();
        let Some(action) = given.next() else { bail!("a step needs an action, such as request or apply") };
        if let Some(other) = given.next() {
            bail!("one action a step, but `{}` and `{}` are given", action.key(), other.key());
        }
        if let Action::Request(request) = &action {
            request.check()?;
        }
        if let Some(expect) = &self.expect {
            expect.check(action.key())?;
        }
        if let Some(during) = &self.during {
            if !action.is_change() {
                bail!("`during` belongs to a changing step, not to `{}`", action.key());
            }
            during.check()?;
        }
        let settle = self.settle.map_or(Duration::from_secs(10), |span| span.0);
        Ok(Step { about: self.about, action, expect: self.expect, settle, during: self.during })
    }
}

impl Request {
    fn check(&self) -> Result<()> {
        if self.count == 0 || self.concurrency == 0 {
            bail!("`count` and `concurrency` are at least 1");
        }
        if self.body.is_some() && self.body_size.is_some() {
            bail!("`body` and `body_size` exclude each other");
        }
        if self.websocket && (self.grpc.is_some() || self.http == Some(HttpVersion::Http2)) {
            bail!("a `websocket` request is HTTP/1.1");
        }
        if self.grpc.is_some() && self.http == Some(HttpVersion::Http1) {
            bail!("a `grpc` request is HTTP/2");
        }
        match self.from {
            Some(from) if !from.is_loopback() => bail!("`from: {from}` is not in 127.0.0.0/8"),
            _ => Ok(()),
        }
    }
}

impl During {
    fn check(&self) -> Result<()> {
        self.request.check()?;
        self.expect.check("request")?;
        if self.request.count != 1 || self.request.concurrency != 1 {
            bail!("during: `rate` says how much is sent, not `count` or `concurrency`");
        }
        if !self.rate.is_finite() || self.rate <= 0.0 {
            bail!("during: `rate` is a number of requests a second");
        }
        Ok(())
    }
}

impl Expect {
    /// Refuses keys that say nothing about the action they stand beside.
    fn check(&self, action: &str) -> Result<()> {
        let allowed: &[&str] = match action {
            "request" => &[
                "status",
                "statuses",
                "backend",
                "share",
                "seen",
                "headers",
                "body",
                "mirrored",
                "endpoints",
                "sticky",
                "duration",
                "tls",
                "error",
            ],
            "admin" => &["json", "status", "headers", "body"],
            "command" => &["exit", "stdout", "stderr"],
            "status" => &["json"],
            other => bail!("`expect` does not belong to `{other}`"),
        };
        if let Some(key) = self.given().into_iter().find(|key| !allowed.contains(key)) {
            bail!("`expect.{key}` does not belong to `{action}`");
        }
        if self.sticky == Some(false) {
            bail!("`expect.sticky` can only be true");
        }
        match &self.tls {
            Some(tls) if tls.verify && tls.san.is_none() => bail!("`expect.tls.verify` stands beside `san`"),
            _ => Ok(()),
        }
    }

    /// The keys that are given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let keys = [
            ("status", self.status.is_some()),
            ("statuses", self.statuses.is_some()),
            ("backend", self.backend.is_some()),
            ("share", self.share.is_some()),
            ("seen", self.seen.is_some()),
            ("headers", self.headers.is_some()),
            ("body", self.body.is_some()),
            ("mirrored", self.mirrored.is_some()),
            ("endpoints", self.endpoints.is_some()),
            ("sticky", self.sticky.is_some()),
            ("duration", self.duration.is_some()),
            ("tls", self.tls.is_some()),
            ("error", self.error.is_some()),
            ("json", self.json.is_some()),
            ("exit", self.exit.is_some()),
            ("stdout", self.stdout.is_some()),
            ("stderr", self.stderr.is_some()),
        ];
        keys.into_iter().filter_map(|(key, given)| given.then_some(key)).collect()
    }
}
