//! Asks a control plane's debug endpoint, and the quota API that stands beside it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What goes with a question.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked<'a> {
    /// Says who asks.
    pub(super) token: Option<&'a str>,
    /// Makes it a POST.
    pub(super) body: Option<&'a serde_json::Value>,
}

/// The body of `GET http://SERVER/PATH`. `server` is HOST:PORT, with or without `http://` before it.
pub(super) async fn get(server: &str, path: &str) -> anyhow::Result<Bytes> {
    ask(server, path, Asked::default()).await
}

/// The body of the answer to a question at `http://SERVER/PATH`.
pub(super) async fn ask(server: &str, path: &str, asked: Asked<'_>) -> anyhow::Result<Bytes> {
    let authority = server.trim_start_matches("http://").trim_end_matches('/');
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path).build();
    let uri = uri.with_context(|| format!("`{server}` is not the HOST:PORT of a debug endpoint"))?;
    let body = asked.body.map(|body| Bytes::from(body.to_string()));
    let mut request = Request::new(Full::new(body.unwrap_or_default()));
    *request.uri_mut() = uri;
    if asked.body.is_some() {
        *request.method_mut() = Method::POST;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    if let Some(token) = asked.token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).context("the token is none")?;
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = async {
        let response = client.request(request).await.with_context(|| {
            format!("no control plane answers at {authority}; is it running, and is this its --admin-listen?")
        })?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .context("the control plane broke off its answer")?
            .to_bytes();
        if !status.is_success() {
            bail!("the control plane at {authority} answered {path} with {status}: {}", reason(&body));
        }
        Ok(body)
    };
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            bail!("the control plane at {authority} did not answer within {} s", ANSWER_WITHIN.as_secs())
        }
    }
}

/// The debug endpoint's own words, or else the body as it is.
fn reason(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let said = json.as_ref().and_then(|json| json["error"].as_str());
    said.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned)
}

/// A runtime for a command that waits for one thing at a time.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}
