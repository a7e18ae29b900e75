use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};

use futures::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use http_body_util::StreamBody;
use k8s_pb::api::networking::v1::IngressClass;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as pb;
use k8s_pb::apimachinery::pkg::runtime::{RawExtension, TypeMeta, Unknown};
use kube::api::{Api, WatchParams};
use kube::core::WatchEvent;
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::source::kubernetes::raw::Raw;
use crate::values::Kind;

fn classes() -> &'static Watched {
    WATCHED.iter().find(|watched| watched.kind == Kind::IngressClass).unwrap()
}

fn class(name: &str) -> IngressClass {
    let metadata = pb::ObjectMeta {
        name: Some(name.into()),
        resource_version: Some("7".into()),
        ..pb::ObjectMeta::default()
    };
    IngressClass { metadata: Some(metadata), spec: None }
}

fn bookmark() -> IngressClass {
    let mut bookmark = class("");
    let metadata = bookmark.metadata.as_mut().unwrap();
    metadata.annotations.insert("k8s.io/initial-events-end".into(), "true".into());
    bookmark
}

fn gone() -> pb::Status {
    pb::Status {
        status: Some("Failure".into()),
        message: Some("too old".into()),
        reason: Some("Expired".into()),
        code: Some(410),
        ..pb::Status::default()
    }
}

fn envelope(kind: &str, message: Vec<u8>) -> Vec<u8> {
    let types = TypeMeta { api_version: Some("networking.k8s.io/v1".into()), kind: Some(kind.into()) };
    let unknown = Unknown { type_meta: Some(types), raw: Some(message), ..Unknown::default() };
    [b"k8s\0", unknown.encode_to_vec().as_slice()].concat()
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&u32::try_from(frame.len()).unwrap().to_be_bytes(), frame].concat()
}

fn event(kind: &str, object: Vec<u8>) -> Vec<u8> {
    let object = Some(RawExtension { raw: Some(object) });
    framed(&pb::WatchEvent { r#type: Some(kind.into()), object }.encode_to_vec())
}

fn added(name: &str) -> Vec<u8> {
    event("ADDED", envelope("IngressClass", class(name).encode_to_vec()))
}

type Chunks = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, BoxError>>>>;

/// Says one thing, once, and remembers what it was asked to accept.
struct Server {
    answer: Option<Response<Chunks>>,
    accepts: Arc<Mutex<Option<HeaderValue>>>,
}

impl Server {
    fn new(status: StatusCode, content: &str, chunks: Vec<Vec<u8>>) -> Self {
        let chunks: Vec<_> = chunks.into_iter().map(|chunk| Ok(Frame::data(Bytes::from(chunk)))).collect();
        let answer = Response::builder().status(status).header(CONTENT_TYPE, content);
        let answer = answer.body(StreamBody::new(stream::iter(chunks))).unwrap();
        Self { answer: Some(answer), accepts: Arc::default() }
    }
}

impl Service<Request<Body>> for Server {
    type Response = Response<Chunks>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Chunks>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        *self.accepts.lock().unwrap() = request.headers().get(ACCEPT).cloned();
        ready(Ok(self.answer.take().unwrap()))
    }
}

const WATCH: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// The lines that come, and how it ends.
async fn lines(chunks: Vec<Vec<u8>>) -> (Vec<Value>, Option<String>) {
    let client = client(Client::new(Server::new(StatusCode::OK, WATCH, chunks), "default"));
    let request = Request::get("/apis/networking.k8s.io/v1/ingressclasses?watch=true");
    let answer = client.send(request.body(Body::empty()).unwrap()).await.unwrap();
    let (mut told, mut error) = (Vec::new(), None);
    let mut stream = answer.into_body().into_data_stream();
    while let Some(line) = stream.next().await {
        assert_eq!(error, None, "nothing comes behind an error");
        match line {
            Ok(line) => told.push(serde_json::from_slice(line.strip_suffix(b"\n").unwrap()).unwrap()),
            Err(said) => error = Some(cause(said).to_string()),
        }
    }
    (told, error)
}

#[tokio::test]
async fn events_become_lines_wherever_they_are_torn() {
    let object =
        |name| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, class(name).encode_to_vec());
    let of_class = |message: &IngressClass| envelope("IngressClass", message.encode_to_vec());
    let said = [
        added("one"),
        event("BOOKMARK", of_class(&bookmark())),
        event("MODIFIED", of_class(&class("two"))),
        event("DELETED", of_class(&class("one"))),
        event("ERROR", envelope("Status", gone().encode_to_vec())),
    ]
    .concat();
    let metadata = json!({"resourceVersion": "7", "annotations": {"k8s.io/initial-events-end": "true"}});
    let expected = [
        json!({"type": "ADDED", "object": object("one")}),
        json!({"type": "BOOKMARK", "object":
            {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": metadata}}),
        json!({"type": "MODIFIED", "object": object("two")}),
        json!({"type": "DELETED", "object": object("one")}),
        json!({"type": "ERROR", "object":
            {"status": "Failure", "code": 410, "message": "too old", "reason": "Expired"}}),
    ];
    let torn = (0..=said.len()).map(|at| vec![said[..at].to_vec(), said[at..].to_vec()]);
    let bytes = said.iter().map(|byte| vec![*byte]).collect();
    for chunks in torn.chain([bytes]) {
        let (lines, error) = lines(chunks).await;
        assert_eq!((lines.as_slice(), error), (&expected[..], None));
    }
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_watch() {
    let long = u32::try_from(LONGEST + 1).unwrap().to_be_bytes().to_vec();
    // A field of a wire type that does not exist; a name that is a number.
    let (junk, misnamed) = (vec![0x0f], vec![0x0a, 0x02, 0x08, 0x01]);
    let message = "failed to decode Protobuf message";
    let cases = [
        (long, "a frame of 16777217 bytes, above the limit of 16777216"),
        (framed(&junk), message),
        (framed(b""), "an event of no known type"),
        (event("RENAMED", envelope("IngressClass", Vec::new())), "an event of no known type"),
        (event("ADDED", class("b").encode_to_vec()), "an object without the mark of Kubernetes's messages"),
        (event("ADDED", [b"k8s\0", junk.as_slice()].concat()), message),
        (event("ADDED", envelope("Ingress", Vec::new())), "an object of another kind than was asked for"),
        (event("ADDED", envelope("IngressClass", misnamed)), message),
        (event("BOOKMARK", envelope("IngressClass", junk.clone())), message),
        (event("ERROR", envelope("Status", junk.clone())), message),
        (vec![0], "the watch ended within a frame"),
        (added("b")[..40].to_vec(), "the watch ended within a frame"),
    ];
    for (bad, expected) in cases {
        let torn = expected.contains("within");
        let rest = if torn { Vec::new() } else { added("c") };
        let (lines, error) = lines(vec![[added("a"), bad, rest].concat()]).await;
        assert_eq!(lines.len(), 1, "{expected}");
        let error = error.expect(expected);
        assert!(error.starts_with(expected), "{error}, not {expected}");
    }
}

#[test]
fn what_is_asked_for_in_protobuf() {
    let cases = [
        ("GET", "/apis/networking.k8s.io/v1/ingresses?&watch=true&resourceVersion=0", Some(Kind::Ingress)),
        ("GET", "/api/v1/namespaces/a/secrets?watch=true", Some(Kind::Secret)),
        (
            "GET",
            "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices?watch=true",
            Some(Kind::EndpointSlice),
        ),
        ("GET", "/api/v1/services?&resourceVersion=0", None),
        ("GET", "/api/v1/services?watch=false", None),
        ("POST", "/api/v1/services?watch=true", None),
        ("GET", "/api/v2/services?watch=true", None),
        ("GET", "/api/v1/pods?watch=true", None),
        ("GET", "/apis/networking.istio.io/v1/virtualservices?watch=true", None),
        ("GET", "/apis/example.com/v1/services?watch=true", None),
        ("GET", "/readyz?watch=true", None),
    ];
    for (method, uri, expected) in cases {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        assert_eq!(watched(&request).map(|watched| watched.kind), expected, "{method} {uri}");
    }
}

/// What kube makes of an answer.
async fn watch(status: StatusCode, content: &str, said: Vec<u8>) -> Result<Vec<String>, kube::Error> {
    let server = Server::new(status, content, vec![said]);
    let accepts = server.accepts.clone();
    let client = client(Client::new(server, "default"));
    let api: Api<Raw> = Api::all_with(client, &classes().resource("v1"));
    let events = api.watch(&WatchParams::default(), "0").await;
    assert_eq!(*accepts.lock().unwrap(), Some(ACCEPTED));
    let told = |event| match event {
        WatchEvent::Added(raw) => format!("added {raw:?}"),
        other => format!("{other:?}"),
    };
    events?.map_ok(told).try_collect().await
}

#[tokio::test]
async fn answers_as_kube_reads_them() {
    let json = br#"{"type": "ADDED", "object": {"metadata": {"name": "a"}}}"#.to_vec();
    for (content, said) in [(WATCH, added("a")), ("application/json", json)] {
        assert_eq!(watch(StatusCode::OK, content, said).await.unwrap(), ["added /a"], "{content}");
    }
    let error = watch(StatusCode::OK, WATCH, [added("a"), framed(&[0x0f])].concat()).await.unwrap_err();
    assert!(matches!(error, kube::Error::ReadEvents(_)), "{error:?}");
    // A connection that ends is no error.
    let torn = [added("a"), vec![0]].concat();
    assert_eq!(watch(StatusCode::OK, WATCH, torn).await.unwrap(), ["added /a"]);
    let status = envelope("Status", gone().encode_to_vec());
    let refused = watch(StatusCode::GONE, PROTOBUF, status).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused:?}") };
    assert_eq!((status.code, &*status.reason, &*status.message), (410, "Expired", "too old"));
}
