//! What an echo server does with a request: note it, and say what was seen.

use super::{ID_HEADER, RECORD_HEADER, Record, Shared, websocket};
use crate::case::Protocol;
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) type Body = BoxBody<Bytes, Infallible>;

/// How much of a request's body is kept and shown.
const SHOWN_BODY: usize = 64 * 1024;

pub(super) async fn answer(
    shared: Arc<Shared>,
    endpoint: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    if shared.options.protocol == Protocol::Ws && websocket::is_upgrade(&request) {
        let record = note(
            &shared,
            endpoint,
            request.headers(),
            request.uri(),
            "GET",
            &[],
            StatusCode::SWITCHING_PROTOCOLS,
        );
        return Ok(finish(&shared, websocket::accept(request), &record));
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let is_grpc =
        header(&parts.headers, CONTENT_TYPE).is_some_and(|value| value.starts_with("application/grpc"));
    let message = if is_grpc { body.get(5..).unwrap_or_default() } else { &body };
    let (status, extra) = decide(&shared, &parts);
    let record = note(&shared, endpoint, &parts.headers, &parts.uri, parts.method.as_str(), message, status);
    if let Some(delay) = shared.options.delay {
        tokio::time::sleep(delay.0).await;
    }
    let text = shared.options.body.clone().unwrap_or_else(|| seen(&record).to_string());
    let mut response = match is_grpc && status.is_success() {
        true => grpc_response(&text),
        false => plain_response(status, text, shared.options.body.is_some()),
    };
    response.headers_mut().extend(extra);
    Ok(finish(&shared, response, &record))
}

/// The status, and headers of an auth decision.
fn decide(shared: &Shared, parts: &Parts) -> (StatusCode, HeaderMap) {
    let options = &shared.options;
    if shared.requests.fetch_add(1, Ordering::Relaxed) < options.fail_first {
        return (StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new());
    }
    if let Some(auth) = &options.auth {
        let given = parts.headers.get(&auth.header).and_then(|value| value.to_str().ok());
        return match given.and_then(|value| auth.allow.get(value)) {
            Some(headers) => {
                (StatusCode::OK, headers.iter().filter_map(|(name, value)| pair(name, value)).collect())
            }
            None => (StatusCode::UNAUTHORIZED, HeaderMap::new()),
        };
    }
    let status =
        options.status.and_then(|status| StatusCode::from_u16(status.0).ok()).unwrap_or(StatusCode::OK);
    (status, HeaderMap::new())
}

/// Writes the request down; requests without an id (health checks) are told apart from all others only by that.
fn note(
    shared: &Shared,
    endpoint: SocketAddr,
    headers: &HeaderMap,
    uri: &hyper::Uri,
    method: &str,
    body: &[u8],
    status: StatusCode,
) -> Record {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let host = uri.authority().map(ToString::to_string).or_else(|| headers.get(HOST).map(text));
    let record = Record {
        number: shared.records.next_number(),
        service: shared.key.service.clone(),
        endpoint,
        is_auth: shared.options.auth.is_some(),
        status: status.as_u16(),
        method: method.to_owned(),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        host: host.unwrap_or_default(),
        headers: headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: String::from_utf8_lossy(&body[..body.len().min(SHOWN_BODY)]).into_owned(),
        body_size: body.len() as u64,
    };
    if let Some(id) = header(headers, ID_HEADER) {
        shared.records.add(id, record.clone());
    }
    record
}

/// The JSON body of an answer.
fn seen(record: &Record) -> Value {
    let mut headers = serde_json::Map::new();
    for (name, value) in &record.headers {
        let values = headers.entry(name).or_insert_with(|| json!([]));
        values.as_array_mut().expect("just made an array").push(json!(value));
    }
    json!({
        "service": record.service.to_string(),
        "endpoint": record.endpoint.to_string(),
        "method": record.method,
        "path": record.path,
        "host": record.host,
        "headers": headers,
        "body_size": record.body_size,
        "body": record.body,
    })
}

fn plain_response(status: StatusCode, text: String, is_replaced: bool) -> Response<Body> {
    let has_body = !matches!(status.as_u16(), 100..=199 | 204 | 304);
    let body = if has_body { Bytes::from(text) } else { Bytes::new() };
    let mut response = Response::new(Full::new(body).boxed());
    *response.status_mut() = status;
    if has_body {
        let kind = if is_replaced { "text/plain; charset=utf-8" } else { "application/json" };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

fn grpc_response(message: &str) -> Response<Body> {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message.as_bytes());
    let trailers = async { Some(Ok(HeaderMap::from_iter(pair("grpc-status", "0")))) };
    let mut response = Response::new(Full::new(frame.freeze()).with_trailers(trailers).boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Adds the case's own response headers, and the mark by which the runner knows who answered. An auth service's answer
/// has no mark: what a proxy copies of it into its own answer would look like the service's.
fn finish(shared: &Shared, mut response: Response<Body>, record: &Record) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, values) in &shared.options.response_headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            headers.remove(name);
        }
        for (name, value) in values.0.iter().filter_map(|value| pair(name, value)) {
            headers.append(name, value);
        }
    }
    if !record.is_auth {
        headers.insert(RECORD_HEADER, HeaderValue::from(record.number));
    }
    response
}

fn pair(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
}

fn header(headers: &HeaderMap, name: impl hyper::header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
