//! The connected Envoys, and what each acknowledged or rejected.
//!
//! Each stream writes its own record; readers get copies. Times are given by the caller.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use dashmap::DashMap;
use imbl::OrdMap;
use serde::{Serialize, Serializer};
use tokio::sync::watch;

use crate::xds::message::Protocol;
use crate::xds::session::{Counts, Event, Progress};
use crate::xds::snapshot::Resources;
use crate::xds::{TypeUrl, Version};

/// How many steps of its progress a stream remembers.
const MARKS: usize = 512;

/// Resources that some connected Envoy rejects, by type and name.
pub type Rejections = OrdMap<(TypeUrl, Arc<str>), Rejection>;

/// A resource that some connected Envoy rejects.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rejection {
    /// The version that was rejected last.
    pub version: Version,
    /// Envoy's words.
    pub message: String,
    /// When it was rejected last.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// The streams that reject it now.
    pub streams: Vec<u64>,
}

/// All connected Envoys. A clone is another handle to the same.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    streams: DashMap<u64, Stream>,
    last_id: AtomicU64,
    rejections: watch::Sender<Rejections>,
}

impl Default for Fleet {
    fn default() -> Self {
        Fleet(Arc::new(Inner {
            streams: DashMap::new(),
            last_id: AtomicU64::new(0),
            rejections: watch::Sender::new(Rejections::new()),
        }))
    }
}

impl Fleet {
    /// Without any Envoy.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a stream; it leaves when the connection is dropped.
    pub fn connect(&self, protocol: Protocol, address: Option<SocketAddr>, now: SystemTime) -> Connection {
        let id = self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.streams.insert(id, Stream::new(protocol, address, now));
        Connection { fleet: self.clone(), id }
    }

    /// How many streams are connected.
    pub fn len(&self) -> usize {
        self.0.streams.len()
    }

    /// Whether no stream is connected.
    pub fn is_empty(&self) -> bool {
        self.0.streams.is_empty()
    }

    /// Every stream as it is now, oldest first.
    pub fn nodes(&self) -> Vec<NodeReport> {
        let mut nodes: Vec<_> = self.0.streams.iter().map(|s| s.report(*s.key())).collect();
        nodes.sort_by_key(|node| node.stream);
        nodes
    }

    /// What a stream's client accepted last, by the name that it asked; `None` if the stream is gone.
    pub fn held(&self, stream: u64, type_url: TypeUrl) -> Option<Resources> {
        self.0.streams.get(&stream).map(|stream| stream.held[type_url as usize].clone())
    }

    /// What is rejected now, and every change to it.
    pub fn rejections(&self) -> watch::Receiver<Rejections> {
        self.0.rejections.subscribe()
    }

    /// When each stream that was there already had all of a snapshot sent and acknowledged, oldest stream first.
    /// Streams that no longer remember are left out.
    pub fn timings(&self, sequence: u64) -> Vec<Timing> {
        let mut timings: Vec<_> =
            self.0.streams.iter().filter_map(|s| s.timing(*s.key(), sequence)).collect();
        timings.sort_by_key(|timing| timing.stream);
        timings
    }

    fn reject(&self, stream: u64, key: (TypeUrl, Arc<str>), version: Version, message: &str, at: SystemTime) {
        self.0.rejections.send_modify(|all| {
            let mut streams = all.get(&key).map_or_else(Vec::new, |old| old.streams.clone());
            if !streams.contains(&stream) {
                streams.push(stream);
            }
            all.insert(key, Rejection { version, message: message.to_owned(), at, streams });
        });
    }

    fn settle(&self, stream: u64, keys: impl IntoIterator<Item = (TypeUrl, Arc<str>)>) {
        self.0.rejections.send_if_modified(|all| {
            let mut modified = false;
            for key in keys {
                let Some(rejection) = all.get_mut(&key) else { continue };
                modified = true;
                rejection.streams.retain(|s| *s != stream);
                if rejection.streams.is_empty() {
                    all.remove(&key);
                }
            }
            modified
        });
    }
}

/// One stream's hold on its record.
pub struct Connection {
    fleet: Fleet,
    id: u64,
}

impl Connection {
    /// The number of the stream, unique within the process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Notes who the client is, as it says itself.
    pub fn identify(&self, id: &str, cluster: &str, user_agent: String) {
        self.update(|stream| {
            stream.node_id = id.to_owned();
            stream.cluster = cluster.to_owned();
            stream.user_agent = user_agent;
        });
    }

    /// Notes a response that goes out.
    pub fn on_response(&self, type_url: TypeUrl, version: &str, size: ResponseSize, now: SystemTime) {
        self.update(|stream| {
            let of_type = &mut stream.types[type_url as usize];
            version.clone_into(&mut of_type.sent_version);
            of_type.responses += 1;
            of_type.resources += size.resources as u64;
            of_type.removed += size.removed as u64;
            of_type.bytes += size.bytes as u64;
            of_type.in_flight_since = Some(now);
        });
    }

    /// Notes what the client answered.
    pub fn on_event(&self, event: &Event, now: SystemTime) {
        match event {
            Event::Acked { type_url } => self.update(|stream| {
                let of_type = &mut stream.types[*type_url as usize];
                of_type.acks += 1;
                of_type.acked_version = of_type.sent_version.clone();
                of_type.in_flight_since = None;
            }),
            Event::Nacked { type_url, message } => self.update(|stream| {
                let of_type = &mut stream.types[*type_url as usize];
                of_type.nacks += 1;
                of_type.in_flight_since = None;
                of_type.last_nack = Some(Nack { message: message.clone(), at: now });
            }),
            Event::Rejected { type_url, name, version, message } => {
                let rejected = Rejected {
                    type_url: *type_url,
                    name: name.clone(),
                    version: *version,
                    message: message.clone(),
                    at: now,
                };
                let key = (*type_url, name.clone());
                self.update(|stream| stream.rejected.insert(key.clone(), rejected));
                self.fleet.reject(self.id, key, *version, message, now);
            }
            Event::Settled { type_url, name } => {
                let key = (*type_url, name.clone());
                self.update(|stream| stream.rejected.remove(&key));
                self.fleet.settle(self.id, [key]);
            }
        }
    }

    /// Notes how far the stream has come, after its responses were handed to the network.
    pub fn on_progress(
        &self,
        progress: Progress,
        types: [(Counts, Resources); TypeUrl::COUNT],
        now: SystemTime,
    ) {
        self.update(|stream| {
            if stream.joined.is_none() {
                stream.joined = Some(progress.seen);
            }
            stream.sent.advance(progress.sent, now);
            stream.acked.advance(progress.acked, now);
            stream.progress = progress;
            for (at, (counts, held)) in types.into_iter().enumerate() {
                stream.types[at].counts = counts;
                stream.held[at] = held;
            }
        });
    }

    fn update<T>(&self, change: impl FnOnce(&mut Stream) -> T) {
        if let Some(mut stream) = self.fleet.0.streams.get_mut(&self.id) {
            change(&mut stream);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some((id, stream)) = self.fleet.0.streams.remove(&self.id) {
            self.fleet.settle(id, stream.rejected.into_keys());
        }
    }
}

/// What a response holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseSize {
    /// Resources.
    pub resources: usize,
    /// Names that are gone.
    pub removed: usize,
    /// Size on the wire, without framing.
    pub bytes: usize,
}

/// One stream's record.
struct Stream {
    protocol: Protocol,
    address: Option<SocketAddr>,
    connected: SystemTime,
    node_id: String,
    cluster: String,
    user_agent: String,
    /// The snapshot that there was when it connected.
    joined: Option<u64>,
    progress: Progress,
    sent: Marks,
    acked: Marks,
    types: [TypeRecord; TypeUrl::COUNT],
    held: [Resources; TypeUrl::COUNT],
    rejected: BTreeMap<(TypeUrl, Arc<str>), Rejected>,
}

impl Stream {
    fn new(protocol: Protocol, address: Option<SocketAddr>, now: SystemTime) -> Self {
        Stream {
            protocol,
            address,
            connected: now,
            node_id: String::new(),
            cluster: String::new(),
            user_agent: String::new(),
            joined: None,
            progress: Progress::default(),
            sent: Marks::default(),
            acked: Marks::default(),
            types: Default::default(),
            held: Default::default(),
            rejected: BTreeMap::new(),
        }
    }

    fn report(&self, stream: u64) -> NodeReport {
        NodeReport {
            stream,
            id: self.node_id.clone(),
            cluster: self.cluster.clone(),
            user_agent: self.user_agent.clone(),
            address: self.address,
            protocol: self.protocol,
            connected: self.connected,
            progress: self.progress,
            types: TypeUrl::ALL.into_iter().zip(self.types.iter().cloned()).collect(),
            rejected: self.rejected.values().cloned().collect(),
        }
    }

    fn timing(&self, stream: u64, sequence: u64) -> Option<Timing> {
        if self.joined.is_none_or(|joined| sequence <= joined) || sequence <= self.sent.forgotten {
            return None;
        }
        let sent = self.sent.when(sequence);
        let acked = self.acked.when(sequence);
        Some(Timing { stream, id: self.node_id.clone(), sent, acked })
    }
}

/// When each sequence was reached.
#[derive(Default)]
struct Marks {
    marks: VecDeque<(u64, SystemTime)>,
    /// Of sequences up to this one the time is no longer known.
    forgotten: u64,
}

impl Marks {
    /// Never goes back: what is sent once more because it was asked does not undo what was reached.
    fn advance(&mut self, sequence: u64, now: SystemTime) {
        if self.marks.back().is_some_and(|(last, _)| *last >= sequence) {
            return;
        }
        self.marks.push_back((sequence, now));
        if self.marks.len() > MARKS {
            self.forgotten = self.marks.pop_front().map_or(0, |(oldest, _)| oldest);
        }
    }

    fn when(&self, sequence: u64) -> Option<SystemTime> {
        let at = self.marks.partition_point(|(reached, _)| *reached < sequence);
        self.marks.get(at).map(|(_, at)| *at)
    }
}

/// One type of one stream, in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TypeRecord {
    /// What the client asked, holds and waits for.
    #[serde(flatten)]
    pub counts: Counts,
    /// The version of the response that was sent last: of a delta stream the snapshot's sequence, else a hash of the set.
    pub sent_version: String,
    /// The version of the response that was accepted last.
    pub acked_version: String,
    /// Responses sent.
    pub responses: u64,
    /// Resources sent.
    pub resources: u64,
    /// Removals sent.
    pub removed: u64,
    /// Bytes sent, without framing.
    pub bytes: u64,
    /// Responses accepted.
    pub acks: u64,
    /// Responses rejected.
    pub nacks: u64,
    /// When the response was sent that is not answered yet.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339_option")]
    pub in_flight_since: Option<SystemTime>,
    /// The latest response that was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_nack: Option<Nack>,
}

/// A response that was rejected.
#[derive(Clone, Debug, Serialize)]
pub struct Nack {
    /// Envoy's words.
    pub message: String,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
}

/// A resource that an Envoy rejects: it holds the version that it accepted last, or none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rejected {
    /// The resource's type.
    pub type_url: TypeUrl,
    /// The resource's name.
    pub name: Arc<str>,
    /// The version that is rejected.
    pub version: Version,
    /// Envoy's words.
    pub message: String,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
}

/// One connected Envoy.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// The number of its stream, unique within the process.
    pub stream: u64,
    /// `node.id`.
    pub id: String,
    /// `node.cluster`.
    pub cluster: String,
    /// The name and version of its software: `envoy 1.40.0`.
    pub user_agent: String,
    /// Where it connected from.
    pub address: Option<SocketAddr>,
    /// The variant of the protocol that it speaks.
    pub protocol: Protocol,
    /// When it connected.
    #[serde(serialize_with = "rfc3339")]
    pub connected: SystemTime,
    /// How far it has come, in sequences of snapshots.
    pub progress: Progress,
    /// Each type in numbers.
    pub types: BTreeMap<TypeUrl, TypeRecord>,
    /// What it rejects.
    pub rejected: Vec<Rejected>,
}

/// When one Envoy had a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// The number of its stream.
    pub stream: u64,
    /// `node.id`.
    pub id: String,
    /// When all changes up to the snapshot were sent; `None` if they are not.
    #[serde(serialize_with = "rfc3339_option")]
    pub sent: Option<SystemTime>,
    /// When all changes up to the snapshot were answered; `None` if they are not.
    #[serde(serialize_with = "rfc3339_option")]
    pub acked: Option<SystemTime>,
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    match jiff::Timestamp::try_from(*at) {
        Ok(at) => serializer.collect_str(&at),
        Err(error) => Err(serde::ser::Error::custom(error)),
    }
}

fn rfc3339_option<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn progress(seen: u64, sent: u64, acked: u64) -> Progress {
        Progress { seen, sent, acked }
    }

    #[test]
    fn timings_are_of_streams_that_were_there() {
        let fleet = Fleet::new();
        let connection = fleet.connect(Protocol::Delta, None, at(0));
        connection.identify("a", "edge", "envoy 1.40.0".into());
        let types = || Default::default();
        connection.on_progress(progress(3, 3, 3), types(), at(1));
        connection.on_progress(progress(5, 5, 3), types(), at(2));
        connection.on_progress(progress(5, 2, 2), types(), at(3));
        connection.on_progress(progress(6, 5, 5), types(), at(4));
        let timing = |sent, acked| vec![Timing { stream: 1, id: "a".into(), sent, acked }];
        assert_eq!(fleet.timings(3), []);
        assert_eq!(fleet.timings(4), timing(Some(at(2)), Some(at(4))));
        assert_eq!(fleet.timings(6), timing(None, None));
        drop(connection);
        assert_eq!(fleet.timings(4), []);
    }

    #[test]
    fn marks_are_bounded_and_say_what_they_forgot() {
        let mut marks = Marks::default();
        for i in 1..=MARKS as u64 + 2 {
            marks.advance(i * 2, at(i));
        }
        assert_eq!((marks.marks.len(), marks.forgotten), (MARKS, 4));
        assert_eq!(marks.when(5), Some(at(3)));
    }

    #[test]
    fn rejections_last_until_the_last_stream_settles_or_leaves() {
        let fleet = Fleet::new();
        let rejections = fleet.rejections();
        let streams = [(); 2].map(|()| fleet.connect(Protocol::Delta, None, at(0)));
        let key: (TypeUrl, Arc<str>) = (TypeUrl::Cluster, "c".into());
        let rejected = Event::Rejected {
            type_url: key.0,
            name: key.1.clone(),
            version: Version(1),
            message: "no".into(),
        };
        for stream in &streams {
            stream.on_event(&rejected, at(1));
        }
        assert_eq!(rejections.borrow().get(&key).map(|r| r.streams.len()), Some(2));
        assert_eq!(fleet.nodes()[0].rejected.len(), 1);
        streams[0].on_event(&Event::Settled { type_url: key.0, name: key.1.clone() }, at(2));
        assert_eq!(rejections.borrow().get(&key).map(|r| r.streams.clone()), Some(vec![2]));
        assert!(fleet.nodes()[0].rejected.is_empty());
        drop(streams);
        assert!(rejections.borrow().is_empty() && fleet.is_empty());
    }

    #[test]
    fn reports_are_readable() {
        let fleet = Fleet::new();
        let connection = fleet.connect(Protocol::Sotw, None, at(0));
        connection.on_response(
            TypeUrl::Cluster,
            "5",
            ResponseSize { resources: 2, removed: 0, bytes: 9 },
            at(1),
        );
        let report = serde_json::to_value(fleet.nodes()).unwrap();
        assert_eq!(report[0]["connected"], "1970-01-01T00:00:00Z");
        assert_eq!(report[0]["protocol"], "sotw");
        assert_eq!(report[0]["types"]["Cluster"]["resources"], 2);
        assert_eq!(report[0]["types"]["Cluster"]["sent_version"], "5");
        assert_eq!(report[0]["types"]["Cluster"]["in_flight_since"], "1970-01-01T00:00:01Z");
    }
}
