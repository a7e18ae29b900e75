//! A request made ready to be sent any number of times.

use super::tls;
use crate::case::step::{HttpVersion, Request, Scheme};
use crate::certs::Identity;
use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE};
use hyper::{Method, Uri};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Where the Envoy of a case listens.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) ip: Ipv4Addr,
    pub(crate) http_port: u16,
    pub(crate) https_port: u16,
    /// Ports that Gateways of the case open.
    pub(crate) gateway_ports: BTreeSet<u16>,
}

/// Everything about a request but its id and its cookies.
pub(crate) struct Plan {
    pub(super) address: SocketAddr,
    pub(super) from: Option<Ipv4Addr>,
    pub(super) version: HttpVersion,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) is_grpc: bool,
    pub(super) is_websocket: bool,
    pub(super) keeps_cookies: bool,
    pub(super) timeout: Duration,
}

impl Plan {
    /// Makes `request` ready; `identity` is what its `client_cert` names.
    pub(crate) fn new(request: &Request, edge: &Edge, identity: Option<Identity>) -> Result<Plan> {
        let is_https = request.scheme == Scheme::Https;
        let version = match request.http {
            Some(version) => version,
            None if request.grpc.is_some() => HttpVersion::Http2,
            None => HttpVersion::Http1,
        };
        let host = request.host.clone().unwrap_or_else(|| edge.ip.to_string());
        let path = match &request.grpc {
            Some(grpc) => format!("/{}/{}", grpc.service, grpc.method),
            None => request.path.clone(),
        };
        let tls = match is_https {
            true => Some(client_tls(request, &host, edge.ip, version, identity)?),
            false => None,
        };
        Ok(Plan {
            address: SocketAddr::from((edge.ip, edge.port(&host, is_https))),
            from: request.from,
            version,
            tls,
            method: match request.grpc {
                Some(_) => Method::POST,
                None => Method::from_bytes(request.method.as_bytes()).context("request.method")?,
            },
            uri: uri(version, is_https, &host, &path)?,
            headers: headers(request, version, &host)?,
            body: body(request),
            is_grpc: request.grpc.is_some(),
            is_websocket: request.websocket,
            keeps_cookies: request.cookies,
            timeout: request.timeout.0,
        })
    }

    pub(crate) fn is_https(&self) -> bool {
        self.tls.is_some()
    }
}

impl Edge {
    /// A host's own port where a Gateway opens it, else the scheme's.
    fn port(&self, host: &str, is_https: bool) -> u16 {
        let own = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        match own {
            Some(port) if self.gateway_ports.contains(&port) => port,
            _ if is_https => self.https_port,
            _ => self.http_port,
        }
    }
}

fn client_tls(
    request: &Request,
    host: &str,
    edge: Ipv4Addr,
    version: HttpVersion,
    identity: Option<Identity>,
) -> Result<(Arc<ClientConfig>, ServerName<'static>)> {
    let alpn: &[u8] = if version == HttpVersion::Http2 { b"h2" } else { b"http/1.1" };
    let name = request.sni.as_deref().unwrap_or_else(|| host.split(':').next().unwrap_or(host));
    let name = match ServerName::try_from(name.to_owned()) {
        Ok(name @ ServerName::DnsName(_)) => Some(name),
        // An address is no server name, and no more is an empty text.
        _ if request.sni.as_deref().is_none_or(str::is_empty) => None,
        _ => anyhow::bail!("request.sni: `{name}` is not a host name"),
    };
    let config = tls::config(alpn, identity, name.is_some())?;
    Ok((Arc::new(config), name.unwrap_or(ServerName::IpAddress(IpAddr::V4(edge).into()))))
}

fn uri(version: HttpVersion, is_https: bool, host: &str, path: &str) -> Result<Uri> {
    let uri = match version {
        HttpVersion::Http1 => Uri::try_from(path),
        HttpVersion::Http2 => {
            let scheme = if is_https { "https" } else { "http" };
            return Uri::builder()
                .scheme(scheme)
                .authority(host)
                .path_and_query(path)
                .build()
                .with_context(|| format!("`{host}` and `{path}` make no request target"));
        }
    };
    uri.with_context(|| format!("request.path: `{path}`"))
}

fn headers(request: &Request, version: HttpVersion, host: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if version == HttpVersion::Http1 {
        headers.insert(HOST, HeaderValue::from_str(host).context("request.host")?);
    }
    if request.grpc.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    for (name, values) in &request.headers {
        let known = || format!("request.headers: `{name}`");
        let name = HeaderName::from_bytes(name.as_bytes()).with_context(known)?;
        headers.remove(&name);
        for value in &values.0 {
            headers.append(&name, HeaderValue::from_bytes(value.as_bytes()).with_context(known)?);
        }
    }
    Ok(headers)
}

fn body(request: &Request) -> Bytes {
    let plain = match (&request.body, request.body_size) {
        (Some(text), _) => Bytes::from(text.clone()),
        (None, Some(size)) => Bytes::from(vec![b'x'; size]),
        (None, None) => Bytes::new(),
    };
    if request.grpc.is_none() {
        return plain;
    }
    let mut frame = BytesMut::with_capacity(plain.len() + 5);
    frame.put_u8(0);
    frame.put_u32(plain.len() as u32);
    frame.put_slice(&plain);
    frame.freeze()
}
