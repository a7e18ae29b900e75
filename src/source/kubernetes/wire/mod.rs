//! Below kube's client, which speaks JSON: watches of built-in kinds ask for protobuf, and what answers in it is made the
//! lines that kube reads. Answers in JSON, as from servers that know no other form, pass as they are.

mod events;
mod frames;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::{Body, DynBody};
use tower::{BoxError, Service};

use self::frames::{Frames, LONGEST};
use crate::source::kinds::{WATCHED, Watched};

/// What is asked for. Whoever knows no protobuf takes the second.
const ACCEPTED: HeaderValue =
    HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch, application/json");

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why what a server says is no watch. Never with contents: they may be a Secret's.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("a frame of {0} bytes, above the limit of {LONGEST}")]
    TooLong(usize),
    #[error("the watch ended within a frame")]
    Torn,
    #[error("an object without the mark of Kubernetes's messages")]
    Mark,
    #[error("an object of another kind than was asked for")]
    Kind,
    #[error("an event of no known type")]
    Type,
    #[error(transparent)]
    Message(#[from] prost::DecodeError),
}

/// A client whose watches of built-in kinds come in protobuf. Nothing but [`Raw`](super::raw::Raw) reads what they give.
pub(super) fn client(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(Wire(client), namespace)
}

/// The service that asks and translates.
struct Wire(Client);

impl Service<Request<Body>> for Wire {
    type Response = Response<Box<DynBody>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Whether the client is ready, it finds out when it sends.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let client = self.0.clone();
        let watched = watched(&request);
        if watched.is_some() {
            request.headers_mut().insert(ACCEPT, ACCEPTED);
        }
        Box::pin(async move {
            match (client.send(request).await.map_err(cause)?, watched) {
                (answer, Some(watched)) => translated(answer, watched).await,
                (answer, None) => Ok(answer.map(unchanged)),
            }
        })
    }
}

/// What a request watches, if it has protobuf messages.
fn watched<B>(request: &Request<B>) -> Option<&'static Watched> {
    let uri = request.uri();
    let watches = uri.query().is_some_and(|query| query.split('&').any(|it| it == "watch=true"));
    if !watches || request.method() != Method::GET {
        return None;
    }
    let path: Vec<&str> = uri.path().split('/').skip(1).collect();
    let (group, version, plural) = match path[..] {
        ["api", version, plural] | ["api", version, "namespaces", _, plural] => ("", version, plural),
        ["apis", group, version, plural] | ["apis", group, version, "namespaces", _, plural] => {
            (group, version, plural)
        }
        _ => return None,
    };
    let mut kinds = WATCHED.iter().filter(|it| it.protobuf.is_some() && it.versions.contains(&version));
    kinds.find(|it| it.group == group && it.plural == plural)
}

async fn translated(
    answer: Response<Body>,
    watched: &'static Watched,
) -> Result<Response<Box<DynBody>>, BoxError> {
    let content = answer.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let mut content = content.split(';').map(str::trim);
    if content.next() != Some(PROTOBUF) {
        return Ok(answer.map(unchanged));
    }
    let streams = content.any(|parameter| parameter == "stream=watch");
    let (mut head, body) = answer.into_parts();
    head.headers.insert(CONTENT_TYPE, JSON);
    head.headers.remove(CONTENT_LENGTH);
    if streams {
        let lines = Lines { body, frames: Frames::default(), watched, over: false };
        return Ok(Response::from_parts(head, Box::new(lines)));
    }
    let said = Limited::new(body, LONGEST).collect().await?.to_bytes();
    let status = serde_json::to_vec(&events::status(&said)?)?;
    Ok(Response::from_parts(head, unchanged(status.into())))
}

fn unchanged(body: Body) -> Box<DynBody> {
    Box::new(body.map_err(cause))
}

/// An error as it was before the client wrapped it, which will do so again.
fn cause(error: kube::Error) -> BoxError {
    match error {
        kube::Error::Service(error) => error,
        other => other.into(),
    }
}

/// About what a line takes beside its object.
const ROOM: usize = 64;

/// A watch in lines of JSON, one a piece.
struct Lines {
    body: Body,
    frames: Frames,
    watched: &'static Watched,
    over: bool,
}

impl Lines {
    fn next(&mut self) -> Result<Option<Bytes>, BoxError> {
        let Some(frame) = self.frames.next()? else { return Ok(None) };
        let mut line = Vec::with_capacity(frame.len() * 4 / 3 + ROOM);
        serde_json::to_writer(&mut line, &events::event(&frame, self.watched)?)?;
        line.push(b'\n');
        Ok(Some(line.into()))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BoxError>> {
        loop {
            if let Some(line) = self.next()? {
                return Poll::Ready(Ok(Some(line)));
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context).map_err(cause)?) else {
                return Poll::Ready(match self.frames.is_torn() {
                    true => Err(io::Error::new(io::ErrorKind::UnexpectedEof, Unreadable::Torn).into()),
                    false => Ok(None),
                });
            };
            // Trailers say nothing.
            if let Ok(chunk) = frame.into_data() {
                self.frames.push(chunk);
            }
        }
    }
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let line = ready!(self.poll(context));
        // Behind what cannot be read nothing can: where the next frame begins is not known.
        self.over = !matches!(line, Ok(Some(_)));
        Poll::Ready(line.transpose().map(|line| line.map(Frame::data)))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
