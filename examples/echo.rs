//! Backends for trying Chancery: model servers that only say who they are and what reached them.
//!
//! `echo sentiment:v1=127.0.0.11:18080 sentiment:v2=127.0.0.12:18080` serves each model on its address. Every request
//! is answered with one line of JSON: the model, its version, and the method, path, host and headers that it saw.
//! `GET /_seen` answers how many requests the model has had, which is how a mirrored copy can be seen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// One model server, as the command line names it: `MODEL:VERSION=ADDRESS`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    name: String,
    version: String,
    address: SocketAddr,
}

impl FromStr for Model {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || format!("{text:?}: want MODEL:VERSION=ADDRESS, such as sentiment:v1=127.0.0.11:18080");
        let (model, address) = text.split_once('=').with_context(form)?;
        let (name, version) = model.split_once(':').with_context(form)?;
        let address = address.parse().with_context(form)?;
        Ok(Self { name: name.to_owned(), version: version.to_owned(), address })
    }
}

/// What the handlers of one model share.
struct Server {
    model: Model,
    requests: AtomicU64,
}

/// The answer to every request but `/_seen`. Field order is the order of the line.
#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    version: &'a str,
    method: &'a str,
    path: String,
    host: String,
    headers: BTreeMap<&'a str, String>,
}

/// The answer to `/_seen`.
#[derive(Serialize)]
struct Seen<'a> {
    model: &'a str,
    version: &'a str,
    requests: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let models = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<Vec<Model>, _>>()?;
    anyhow::ensure!(!models.is_empty(), "no model to serve: give some as MODEL:VERSION=ADDRESS");

    let mut servers = JoinSet::new();
    for model in models {
        let listener = TcpListener::bind(model.address)
            .await
            .with_context(|| format!("cannot listen on {}", model.address))?;
        println!("{} {} on {}", model.name, model.version, model.address);
        servers.spawn(async move { axum::serve(listener, router(model)).await });
    }
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}

fn router(model: Model) -> Router {
    let server = Arc::new(Server { model, requests: AtomicU64::new(0) });
    Router::new().route("/_seen", get(seen)).fallback(echo).with_state(server)
}

async fn echo(State(server): State<Arc<Server>>, request: Request) -> Response {
    server.requests.fetch_add(1, Ordering::Relaxed);
    let headers = request.headers();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    json_line(&Answer {
        model: &server.model.name,
        version: &server.model.version,
        method: request.method().as_str(),
        path: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        // HTTP/2 carries the host in the request line.
        host: headers.get("host").map(text).or(request.uri().host().map(str::to_owned)).unwrap_or_default(),
        headers: headers
            .iter()
            .filter(|(name, _)| *name != "host")
            .map(|(name, v)| (name.as_str(), text(v)))
            .collect(),
    })
}

async fn seen(State(server): State<Arc<Server>>) -> Response {
    let Model { name, version, .. } = &server.model;
    json_line(&Seen { model: name, version, requests: server.requests.load(Ordering::Relaxed) })
}

/// One line, so that answers can be counted with grep and uniq.
fn json_line(value: &impl Serialize) -> Response {
    let line = serde_json::to_string(value).map(|json| json + "\n");
    match line {
        Ok(line) => ([(CONTENT_TYPE, "application/json")], line).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
