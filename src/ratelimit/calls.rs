//! Connections of those who call: HTTP/2, on which RLS is answered here, and everything else by tonic.
//!
//! A call of RLS is one small message and one small answer. What tonic has around a call, for streams of messages each
//! way, any number of services and layers, takes longer than the call itself and its decision (`cargo bench --bench
//! ratelimit` tells how long a service of tonic's takes that decides nothing). So its frame, which is five bytes before
//! the message, is read and written here; HTTP/2 is hyper's.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use futures::{Stream, StreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::service::Routes;
use tower::Service as _;

use super::counters::Counters;
use super::service::RateLimit;
use super::text;

/// The one call of RLS.
const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// Open connections are pinged this often, so that those of an Envoy that vanished go.
const PING_EVERY: Duration = Duration::from_secs(30);

/// What comes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Bytes of a message that are read, as of tonic's services.
const LONGEST: usize = 4 * 1024 * 1024;

/// Answers calls on `connections` until there are no more or `end` ends, then finishes those under way.
pub(super) async fn serve<C: Counters, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connections: impl Stream<Item = io::Result<S>>,
    service: Arc<RateLimit<C>>,
    routes: Routes,
    end: impl Future,
) {
    let mut server = http2::Builder::new(TokioExecutor::new());
    // Nobody reads the date of an answer of gRPC.
    server.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).auto_date_header(false);
    // As of tonic's: an Envoy has as many calls under way as it has requests.
    server.max_concurrent_streams(None);
    let (shutdown, mut open) = (GracefulShutdown::new(), JoinSet::new());
    // Without a bound, since each call that is broken off was one under way.
    let (broken_off, mut calls_broken_off) = mpsc::unbounded_channel();
    let mut connections = pin!(connections.take_until(end));
    loop {
        let connection = tokio::select! {
            Some(_) = open.join_next() => continue,
            Some(request) = calls_broken_off.recv() => {
                let service = service.clone();
                open.spawn(async move { service.give_back(&request).await });
                continue;
            }
            connection = connections.next() => connection,
        };
        let connection = match connection {
            Some(Ok(connection)) => TokioIo::new(connection),
            Some(Err(error)) => {
                tracing::debug!("a connection of the rate limit service is gone: {error}");
                continue;
            }
            None => break,
        };
        let (service, routes, broken_off) = (service.clone(), routes.clone(), broken_off.clone());
        let answer = service_fn(move |request| answer(service.clone(), &routes, &broken_off, request));
        let connection = shutdown.watch(server.serve_connection(connection, answer));
        // Whoever breaks a connection has no use for what is said of it.
        open.spawn(async move { drop(connection.await) });
    }
    shutdown.shutdown().await;
}

/// The answer to one call, whatever it asks for.
fn answer<C: Counters>(
    service: Arc<RateLimit<C>>,
    routes: &Routes,
    broken_off: &BrokenOff,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> + use<C> {
    // Its future is large, and a decision need not carry it.
    let other = (request.uri().path() != SHOULD_RATE_LIMIT).then(|| routes.clone());
    let broken_off = broken_off.clone();
    async move {
        match other {
            Some(mut routes) => Box::pin(routes.call(request)).await.map(|answer| answer.map(Answer::Other)),
            None => Ok(match should_rate_limit(&service, request.into_body(), broken_off).await {
                Ok((message, call)) => {
                    let mut answer = Response::new(Answer::Message(message, call));
                    answer.headers_mut().insert(CONTENT_TYPE, GRPC);
                    answer
                }
                Err(status) => status.into_http(),
            }),
        }
    }
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

async fn should_rate_limit<C: Counters>(
    service: &RateLimit<C>,
    body: Incoming,
    broken_off: BrokenOff,
) -> Result<(Bytes, Call), Status> {
    let call =
        Call { request: decode(read(body).await?)?, begun: Instant::now(), broken_off: Some(broken_off) };
    match service.decide(&call.request).await {
        Ok(answer) => Ok((encode(&answer), call)),
        Err(status) => {
            call.end();
            Err(status)
        }
    }
}

type BrokenOff = mpsc::UnboundedSender<RateLimitRequest>;

/// A call whose answer has not been sent. Where it is dropped before that, Envoy has broken it off, since the request that it is
/// of is gone, and will say nothing of the end of that request.
struct Call {
    request: RateLimitRequest,
    begun: Instant,
    /// Who is told of it.
    broken_off: Option<BrokenOff>,
}

impl Call {
    /// It was answered.
    fn end(mut self) {
        self.broken_off = None;
    }
}

/// Envoy breaks a call off as well that it has waited for too long, and does say the end of its request. A test waits longer.
const WAITED_FOR: Duration = Duration::from_millis(if cfg!(test) { 600_000 } else { 50 });

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(broken_off) = self.broken_off.take()
            && self.begun.elapsed() < WAITED_FOR
        {
            // Nobody takes it at the end of the service.
            let _ = broken_off.send(std::mem::take(&mut self.request));
        }
    }
}

/// All of a body. Most come as one piece, which is not copied.
async fn read(mut body: Incoming) -> Result<Bytes, Status> {
    let (mut whole, mut pieces) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + pieces.len() + data.len() > PREFIX + LONGEST {
            return Err(Status::out_of_range(format!("a message is at most {LONGEST} bytes")));
        }
        if whole.is_empty() && pieces.is_empty() {
            whole = data;
        } else {
            pieces.put(std::mem::take(&mut whole));
            pieces.put(data);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
}

fn decode(mut body: Bytes) -> Result<RateLimitRequest, Status> {
    if body.len() < PREFIX {
        return Err(Status::internal("there is no message"));
    }
    let prefix = body.split_to(PREFIX);
    if prefix[0] != 0 {
        return Err(Status::unimplemented("messages that are compressed are not read"));
    }
    if u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize != body.len() {
        return Err(Status::internal("the message is not as long as it says"));
    }
    text::decode(body).map_err(|error| Status::internal(error.to_string()))
}

fn encode(answer: &RateLimitResponse) -> Bytes {
    let length = answer.encoded_len();
    let mut message = BytesMut::with_capacity(PREFIX + length);
    message.put_u8(0);
    message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    answer.encode_raw(&mut message);
    message.freeze()
}

/// The body of an answer.
#[derive(Default)]
enum Answer {
    /// One message, then the status that all is well.
    Message(Bytes, Call),
    Trailers(Call),
    #[default]
    Done,
    /// A service of tonic's.
    Other(tonic::body::Body),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Self::Other(body) = this {
            return Pin::new(body).poll_frame(context);
        }
        let (frame, next) = match std::mem::take(this) {
            Self::Message(message, call) => (Frame::data(message), Self::Trailers(call)),
            Self::Trailers(call) => {
                call.end();
                let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
                (Frame::trailers(trailers), Self::Done)
            }
            Self::Done | Self::Other(_) => return Poll::Ready(None),
        };
        *this = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Message(..) | Self::Trailers(_) => false,
            Self::Done => true,
            Self::Other(body) => body.is_end_stream(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test's tasks end with it")]
mod tests {
    use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
    use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
    use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::model::limit::{Algorithm, DOMAIN, Key, LIMIT_ENTRY, Limit, LimitSet};
    use crate::ratelimit::counters::{Ask, Hits, Outcome, Unavailable};

    /// Says what it is asked, and answers only what is given back.
    struct Silent(mpsc::UnboundedSender<Hits>);

    impl Counters for Silent {
        async fn decide(&self, asks: &[Ask<'_>]) -> Result<Vec<Outcome>, Unavailable> {
            asks.iter().for_each(|ask| self.0.send(ask.hits).unwrap());
            match asks[0].hits {
                Hits::Return(_) => Ok(vec![Outcome { allowed: true, remaining: 0, reset_ms: 0 }]),
                _ => std::future::pending().await,
            }
        }
    }

    #[tokio::test]
    async fn what_a_call_took_that_is_broken_off_is_given_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut limits = LimitSet::default();
        let gauge = Algorithm::Concurrency { limit: 3, lease_ms: 600_000 };
        let window = Algorithm::FixedWindow { requests: 3, window_ms: 600_000 };
        limits.insert(Limit::new("gauge".into(), Key::ClientAddress, gauge));
        limits.insert(Limit::new("window".into(), Key::ClientAddress, window));
        let (said, mut asked) = mpsc::unbounded_channel();
        let limits = watch::channel(Arc::new(limits)).1;
        let service = Arc::new(RateLimit::new(limits, Arc::new(Silent(said)), Arc::default()));
        let connections = TcpListenerStream::new(listener);
        tokio::spawn(serve(connections, service, Routes::default(), std::future::pending::<()>()));
        let mut client =
            RateLimitServiceClient::new(Endpoint::try_from(address).unwrap().connect().await.unwrap());
        let entry = |id: &str| Entry { key: LIMIT_ENTRY.into(), value: id.into() };
        let descriptor =
            |id| RateLimitDescriptor { entries: vec![entry(id)], ..RateLimitDescriptor::default() };
        let descriptors = ["window", "gauge"].map(descriptor).into();
        let request = RateLimitRequest { domain: DOMAIN.into(), descriptors, hits_addend: 2 };
        {
            let mut call = pin!(client.should_rate_limit(request));
            for taken in [Hits::Take(2), Hits::Take(2)] {
                tokio::select! {
                    _ = &mut call => panic!("nothing is answered"),
                    hits = asked.recv() => assert_eq!(hits, Some(taken)),
                }
            }
        }
        assert_eq!(asked.recv().await, Some(Hits::Return(2)), "and not of the window");
        assert!(asked.try_recv().is_err());
    }

    #[test]
    fn a_message_that_is_not_whole_is_told_apart() {
        let framed = |length: u32, rest: &[u8]| Bytes::from([&[0], &length.to_be_bytes()[..], rest].concat());
        let request = RateLimitRequest { domain: "d".into(), ..RateLimitRequest::default() };
        let message = request.encode_to_vec();
        assert_eq!(decode(framed(message.len() as u32, &message)).unwrap(), request);
        assert_eq!(decode(framed(0, &[])).unwrap(), RateLimitRequest::default());
        for (body, code) in [
            (Bytes::new(), tonic::Code::Internal),
            (Bytes::from_static(&[0, 0, 0]), tonic::Code::Internal),
            (framed(4, &message), tonic::Code::Internal),
            (framed(2, &message), tonic::Code::Internal),
            (framed(1, &[0xff]), tonic::Code::Internal),
            (Bytes::from_static(&[1, 0, 0, 0, 0]), tonic::Code::Unimplemented),
        ] {
            assert_eq!(decode(body.clone()).unwrap_err().code(), code, "{body:?}");
        }
    }
}
