//! One route: what it matches, and what happens then.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use thin_vec::ThinVec;

use crate::features::Effects;
use crate::features::effects::{Answer, HeaderOperation, Listeners};
use crate::values::matching::{HeaderMatch, NamedMatch, TextMatch};
use crate::values::{Origin, text};

/// One route.
///
/// Its lists are [`ThinVec`]s: they are nearly always empty, and there may be millions of them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The object and field that it came from.
    pub origin: Origin,
    /// What tells it from other routes of the same origin.
    #[serde(skip_serializing_if = "Variant::is_main")]
    pub variant: Variant,
    /// The listeners on which it stands.
    pub listeners: Listeners,
    /// What it matches.
    #[serde(rename = "match")]
    pub matches: Match,
    /// What happens.
    pub action: Action,
    /// What policies do to it, shared by the routes of an object.
    pub effects: Arc<Effects>,
    /// Copies: an index into the host's backends for each of the effects' mirrors that could be resolved.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub mirrors: ThinVec<MirrorBackend>,
}

impl Route {
    /// The name by which access logs and the debug endpoint call it.
    pub fn name(&self) -> String {
        match self.variant {
            Variant::Main => text::of(format_args!("{}", self.origin)),
            other => text::of(format_args!("{} {other}", self.origin)),
        }
    }
}

/// What a route is of what one origin makes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Variant {
    /// What was declared.
    #[default]
    Main,
    /// The same, where no backend can serve.
    Unavailable,
    /// To the canary by a header.
    CanaryByHeader,
    /// Past the canary by a header.
    MainByHeader,
    /// To the canary by a cookie.
    CanaryByCookie,
    /// Past the canary by a cookie.
    MainByCookie,
    /// A redirect from the path without the slash that the declared one ends in.
    ToSlash,
    /// What ends a host that nothing else ends.
    NotFound,
}

impl Variant {
    /// Whether it is what was declared, and nothing else needs to be told.
    pub fn is_main(&self) -> bool {
        *self == Self::Main
    }

    /// Whether somebody declared the route, so that it matters to them if it is never reached.
    pub fn is_declared(self) -> bool {
        matches!(self, Self::Main | Self::Unavailable)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main",
            Self::Unavailable => "unavailable",
            Self::CanaryByHeader => "canary by header",
            Self::MainByHeader => "main by header",
            Self::CanaryByCookie => "canary by cookie",
            Self::MainByCookie => "main by cookie",
            Self::ToSlash => "to the path with a slash",
            Self::NotFound => "not found",
        })
    }
}

impl Serialize for Variant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A resolved mirror.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirrorBackend {
    /// Index into `effects.mirrors`.
    pub mirror: usize,
    /// Index into the host's backends.
    pub backend: usize,
}

/// What a route matches: all of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// The path, without query.
    pub path: PathMatch,
    /// Headers.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub headers: ThinVec<HeaderMatch>,
    /// Query parameters.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub query_parameters: ThinVec<NamedMatch>,
    /// Cookies.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub cookies: ThinVec<NamedMatch>,
}

impl Match {
    /// A match of the path alone.
    pub fn path(path: PathMatch) -> Self {
        Self { path, headers: ThinVec::new(), query_parameters: ThinVec::new(), cookies: ThinVec::new() }
    }

    /// Whether it asks for nothing but the path.
    pub fn is_path_only(&self) -> bool {
        self.headers.is_empty() && self.query_parameters.is_empty() && self.cookies.is_empty()
    }
}

/// How the path is compared.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// The whole path, byte by byte.
    Exact(String),
    /// The whole path in any letter case.
    ExactIgnoreCase(String),
    /// Begins so, segment or not (VirtualService).
    Prefix(String),
    /// Begins so, in any letter case.
    PrefixIgnoreCase(String),
    /// The path itself or what is below it; without a slash at the end, and never `/` (Ingress `Prefix`).
    Segments(String),
    /// RE2 over the whole path (VirtualService).
    Regex(String),
    /// nginx's `location ~*`: case-insensitive, anchored at the start only.
    NginxRegex(String),
}

impl PathMatch {
    /// What an Ingress `Prefix` path means on a host without regular expressions.
    pub fn segments(path: &str) -> Self {
        match path.trim_end_matches('/') {
            "" => Self::Prefix("/".to_owned()),
            trimmed => Self::Segments(trimmed.to_owned()),
        }
    }

    /// The text compared with.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text)
            | Self::ExactIgnoreCase(text)
            | Self::Prefix(text)
            | Self::PrefixIgnoreCase(text)
            | Self::Segments(text)
            | Self::Regex(text)
            | Self::NginxRegex(text) => text,
        }
    }
}

/// What happens to a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// It goes to one of these backends, by weight; one alone takes all.
    Forward(Vec<Destination>),
    /// Envoy answers it.
    Answer(Answer),
}

/// A backend's share.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// Index into the host's backends.
    pub backend: usize,
    /// Its share of the sum of all weights; more than 0 where there are several.
    pub weight: u32,
    /// Changes of request headers for this backend.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub request_headers: ThinVec<HeaderOperation>,
    /// Changes of response headers from this backend.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub response_headers: ThinVec<HeaderOperation>,
}

impl Destination {
    /// All of the requests.
    pub fn only(backend: usize) -> Self {
        Self::weighted(backend, 1)
    }

    /// A share of the requests.
    pub fn weighted(backend: usize, weight: u32) -> Self {
        Self { backend, weight, request_headers: ThinVec::new(), response_headers: ThinVec::new() }
    }
}

/// A text match that asks for a value.
pub fn exact(text: &str) -> TextMatch {
    TextMatch::Exact(text.to_owned())
}
