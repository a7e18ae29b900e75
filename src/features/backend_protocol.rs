//! `backend-protocol`: how the upstream is spoken to. Service ports say the same by `appProtocol`.

use serde::Serialize;

use super::effects::set;
use super::{Annotation, Effects, Feature, Reader};
use crate::values::Origin;

const BACKEND_PROTOCOL: Annotation = Annotation {
    name: "backend-protocol",
    value: "HTTP, HTTPS, GRPC, GRPCS or AUTO_HTTP, in any letter case",
    default: "HTTP, or what the Service port's appProtocol says",
    example: "GRPC",
    text: "How the upstream is spoken to: HTTP/1.1, HTTP/1.1 in TLS, HTTP/2, HTTP/2 in TLS, or as the client came \
           (AUTO_HTTP). Certificates of upstreams are not verified, as in ingress-nginx.",
    config_map: None,
};

/// How an upstream is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// HTTP/1.1
    #[default]
    Http,
    /// HTTP/1.1 in TLS
    Https,
    /// HTTP/2 without TLS
    Grpc,
    /// HTTP/2 in TLS
    Grpcs,
    /// [`Protocol::Http`] for clients that came by http, [`Protocol::Https`] for those that came by https.
    AutoHttp,
}

impl Protocol {
    /// Whether connections are made in TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs)
    }

    /// Whether HTTP/2 is spoken.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Grpc | Self::Grpcs)
    }

    /// What a Service port's `appProtocol` says (Kubernetes' standard names and the common bare ones).
    pub fn from_app_protocol(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "http" | "kubernetes.io/ws" | "ws" => Some(Self::Http),
            "https" | "kubernetes.io/wss" | "wss" => Some(Self::Https),
            "grpc" | "h2c" | "http2" | "kubernetes.io/h2c" => Some(Self::Grpc),
            "grpcs" => Some(Self::Grpcs),
            _ => None,
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        match text.trim().to_ascii_uppercase().as_str() {
            "HTTP" => Ok(Self::Http),
            "HTTPS" => Ok(Self::Https),
            "GRPC" => Ok(Self::Grpc),
            "GRPCS" => Ok(Self::Grpcs),
            "AUTO_HTTP" => Ok(Self::AutoHttp),
            _ => Err("HTTP, HTTPS, GRPC, GRPCS or AUTO_HTTP (Envoy does not speak FastCGI)"),
        }
    }
}

/// The annotation's value.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct BackendProtocol {
    /// The protocol.
    pub protocol: Protocol,
    /// The annotation.
    pub origin: Origin,
}

impl Feature for BackendProtocol {
    const ANNOTATIONS: &'static [Annotation] = &[BACKEND_PROTOCOL];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(&BACKEND_PROTOCOL, Protocol::parse).map(|(protocol, origin)| Self { protocol, origin })
    }

    fn apply(&self, effects: &mut Effects) {
        set(&mut effects.protocol, self.protocol, self.origin.clone());
    }
}
