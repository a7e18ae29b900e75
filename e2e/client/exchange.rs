//! One request and its answer.

use super::connection::Connection;
use super::{Client, Handshake, Plan, Reply};
use crate::echo::ID_HEADER;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, COOKIE, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    /// Sends the request and reads the whole answer; `answered` says from when on there was a head of one.
    pub(super) async fn exchange(
        &mut self,
        id: &str,
        answered: &AtomicBool,
        handshake: &mut Option<Arc<Handshake>>,
    ) -> Result<Reply, Error> {
        let plan = self.plan.clone();
        let response = self.respond(&plan, id, handshake).await?;
        answered.store(true, Ordering::Relaxed);
        if plan.keeps_cookies {
            let mut jar = self.jar.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            jar.store(response.headers(), plan.uri.path());
        }
        if plan.is_websocket {
            // The connection is the websocket's now, or of no further use.
            self.connection = None;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return echoed(response, id).await;
            }
        }
        read(response, plan.is_grpc).await
    }

    /// Sends, on the open connection if the server has not closed it meanwhile.
    async fn respond(
        &mut self,
        plan: &Plan,
        id: &str,
        handshake: &mut Option<Arc<Handshake>>,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = self.request(plan, id)?;
        if let Some(mut connection) = self.connection.take()
            && connection.is_ready().await
        {
            handshake.clone_from(&connection.handshake);
            match connection.send(request).await {
                Ok(response) => {
                    self.connection = Some(connection);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut connection = Connection::open(plan).await?;
        handshake.clone_from(&connection.handshake);
        let response = connection.send(request).await.map_err(|error| error.into_error())?;
        self.connection = Some(connection);
        Ok(response)
    }

    fn request(&self, plan: &Plan, id: &str) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::new(Full::new(plan.body.clone()));
        *request.method_mut() = plan.method.clone();
        *request.uri_mut() = plan.uri.clone();
        let headers = request.headers_mut();
        headers.clone_from(&plan.headers);
        headers.insert(ID_HEADER, HeaderValue::from_str(id)?);
        if plan.is_websocket {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&generate_key())?);
        }
        if plan.keeps_cookies {
            let jar = self.jar.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Some(kept) = jar.header(plan.uri.path(), plan.is_https()) {
                let all = match headers.get(COOKIE).and_then(|value| value.to_str().ok()) {
                    Some(given) => format!("{given}; {kept}"),
                    None => kept,
                };
                headers.insert(COOKIE, HeaderValue::from_str(&all)?);
            }
        }
        Ok(request)
    }
}

async fn read(response: Response<Incoming>, is_grpc: bool) -> Result<Reply, Error> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?;
    let mut headers = listed(&parts.headers);
    if let Some(trailers) = body.trailers() {
        headers.extend(listed(trailers));
    }
    let mut body = body.to_bytes();
    if is_grpc {
        body = body.slice(body.len().min(5)..);
    }
    Ok(Reply { status: parts.status.as_u16(), headers, body })
}

/// Sends a message through the websocket and wants it back.
async fn echoed(response: Response<Incoming>, message: &str) -> Result<Reply, Error> {
    let headers = listed(response.headers());
    let upgraded = hyper::upgrade::on(response).await?;
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
    socket.send(Message::text(message)).await?;
    let echo = match socket.next().await {
        Some(echo) => echo?.into_data(),
        None => {
            return Err(std::io::Error::new(
                ErrorKind::UnexpectedEof,
                "the websocket closed without an echo",
            )
            .into());
        }
    };
    if echo != message.as_bytes() {
        return Err(format!("the websocket answered {echo:?} instead of an echo").into());
    }
    let _ = socket.close(None).await;
    Ok(Reply { status: StatusCode::SWITCHING_PROTOCOLS.as_u16(), headers, body: echo })
}

fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
