//! Who may ask: whoever has a token, or, where there are none, whoever is on this machine.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{Extensions, HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tonic::Status;
use tonic::transport::server::TcpConnectInfo;

use super::http::error;

/// Who may ask.
#[derive(Clone, Debug)]
pub struct Access(Arc<Rule>);

#[derive(Debug)]
enum Rule {
    /// Whoever has one of the tokens in this file.
    Tokens(PathBuf),
    /// Whoever reaches the listener.
    All,
    /// Nobody.
    Nobody,
}

/// A file of tokens that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the tokens of the quota API in {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It holds none.
    #[error("there is no token in {path}: expected lines of TOKEN or NAME TOKEN, a token of 16 characters at least",
        path = path.display())]
    None {
        /// The file.
        path: PathBuf,
    },
}

/// Who asks, for the audit log.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The name of the token, or `local`.
    pub(super) name: Arc<str>,
    /// The address, if it is one.
    pub(super) peer: Option<SocketAddr>,
}

impl Access {
    /// By the tokens in a file, which is read anew for every call, so that they can be exchanged. Without one, those who
    /// reach a listener that is `local` (on loopback or a Unix socket); then nobody beyond.
    ///
    /// # Errors
    /// When the file cannot be used as it is now.
    pub fn new(tokens: Option<PathBuf>, local: bool) -> Result<Self, TokenError> {
        Ok(Self(Arc::new(match tokens {
            Some(path) => {
                let text = std::fs::read_to_string(&path);
                let text = text.map_err(|source| TokenError::Read { path: path.clone(), source })?;
                if parse(&text).next().is_none() {
                    return Err(TokenError::None { path });
                }
                Rule::Tokens(path)
            }
            None if local => Rule::All,
            None => Rule::Nobody,
        })))
    }

    async fn name(&self, uri: &Uri, headers: &HeaderMap) -> Result<Arc<str>, Refusal> {
        match &*self.0 {
            Rule::All if is_here(uri, headers) => Ok("local".into()),
            Rule::All => Err(Refusal::Host),
            Rule::Nobody => Err(Refusal::Closed),
            Rule::Tokens(path) => {
                let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
                let (scheme, token) = given.and_then(|value| value.split_once(' ')).ok_or(Refusal::Token)?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(Refusal::Token);
                }
                let known = known(path).await?;
                // All are compared, so that the time tells nothing of which is like it.
                let found =
                    parse(&known).fold(
                        None,
                        |found, (name, known)| {
                            if is_same(known, token.trim()) { Some(name) } else { found }
                        },
                    );
                found.map(Arc::from).ok_or(Refusal::Token)
            }
        }
    }
}

async fn known(path: &Path) -> Result<String, Refusal> {
    tokio::fs::read_to_string(path).await.map_err(|error| {
        tracing::warn!(path = %path.display(), %error, "cannot read the tokens of the quota API; nobody may ask");
        Refusal::Token
    })
}

/// Names and tokens: one a line, the name before the token; lines that are neither, and tokens that are too short to be
/// one, are none.
fn parse(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(|line| {
        let mut words = line.split_whitespace();
        let pair = match (words.next(), words.next(), words.next()) {
            (Some(token), None, _) => ("token", token),
            (Some(name), Some(token), None) => (name, token),
            _ => return None,
        };
        (pair.1.len() >= 16).then_some(pair)
    })
}

/// In a time that depends on the lengths alone.
fn is_same(a: &str, b: &str) -> bool {
    let differ = a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differ) == 0
}

/// Whether this machine is asked by a name that nobody else can have. A page in a browser on it can ask it too, by a name of
/// its own that it has led here.
fn is_here(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    let Some(host) = host.or(uri.authority().map(Authority::as_str)) else { return true };
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

enum Refusal {
    /// By a name that is not this machine's.
    Host,
    /// No token, or one that is not known.
    Token,
    /// Nobody may.
    Closed,
}

impl Refusal {
    fn words(&self) -> &'static str {
        match self {
            Self::Host => "without --quota-token-file the quota API is asked by an address, or as localhost",
            Self::Token => "a token of --quota-token-file is needed: authorization: Bearer TOKEN",
            Self::Closed => {
                "without --quota-token-file the quota API answers only where it is listened on for this machine alone"
            }
        }
    }

    fn answer(&self, grpc: bool) -> Response {
        let (status, code) = match self {
            Self::Token => (StatusCode::UNAUTHORIZED, tonic::Code::Unauthenticated),
            Self::Host | Self::Closed => (StatusCode::FORBIDDEN, tonic::Code::PermissionDenied),
        };
        if grpc {
            return Status::new(code, self.words()).into_http::<axum::body::Body>();
        }
        let mut answer = error(status, self.words());
        if matches!(self, Self::Token) {
            let challenge = header::HeaderValue::from_static("Bearer");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}

/// Lets those through who may ask, and says who they are.
pub(super) async fn guard(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    let peer = peer(request.extensions());
    match access.name(request.uri(), request.headers()).await {
        Ok(name) => {
            request.extensions_mut().insert(Caller { name, peer });
            next.run(request).await.into_response()
        }
        Err(refusal) => {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!(target: "audit", peer, path = request.uri().path(), "quota API refused");
            let kind = request.headers().get(header::CONTENT_TYPE);
            refusal.answer(kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")))
        }
    }
}

/// As axum's own server tells it, and as tonic's.
fn peer(extensions: &Extensions) -> Option<SocketAddr> {
    let axums = extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    axums.or_else(|| extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_lines() {
        let text =
            "# who may\n\nsixteen-characters\nalice  0123456789abcdef \nshort x\na b 0123456789abcdef\n";
        let tokens: Vec<_> = parse(text).collect();
        assert_eq!(tokens, [("token", "sixteen-characters"), ("alice", "0123456789abcdef")]);
        assert!(is_same("a", "a") && !is_same("a", "b") && !is_same("a", "ab") && !is_same("", "a"));
    }

    #[test]
    fn this_machine_is_asked_by_its_own_names() {
        let asked = |host: &'static str| {
            let headers = HeaderMap::from_iter([(header::HOST, header::HeaderValue::from_static(host))]);
            is_here(&Uri::from_static("/"), &headers)
        };
        for (host, expected) in [
            ("localhost:18001", true),
            ("127.0.0.1", true),
            ("[::1]:18001", true),
            ("rebound.example.com:18001", false),
            ("localhost.example.com", false),
            ("a b", false),
        ] {
            assert_eq!(asked(host), expected, "{host}");
        }
        assert!(!is_here(&Uri::from_static("http://rebound.example.com/"), &HeaderMap::new()));
    }

    #[test]
    fn a_file_without_a_token_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open =
            |path: &Path| Access::new(Some(path.to_owned()), true).map(|_| ()).map_err(|e| e.to_string());
        assert!(open(file.path()).unwrap_err().starts_with("there is no token in "));
        assert!(open(Path::new("/nowhere")).unwrap_err().starts_with("cannot read the tokens"));
        std::fs::write(file.path(), "0123456789abcdef").unwrap();
        assert_eq!(open(file.path()), Ok(()));
    }
}
