//! The connected Envoys and rate limit services, and what each acknowledged or rejected.
//!
//! Each stream writes its own record; readers get copies. Times are given by the caller.

mod observer;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use dashmap::DashMap;
use imbl::OrdSet;
use tokio::sync::watch;

pub use self::report::{
    Nack, NodeReport, Rejected, Rejection, Rejections, Timing, Totals, TypeRecord, changes,
};
use crate::xds::message::Protocol;
use crate::xds::session::{Counts, Event, Progress};
use crate::xds::snapshot::Resources;
use crate::xds::{Audience, TypeUrl, Version};

/// How many steps of its progress a stream remembers.
const MARKS: usize = 512;

/// All connected Envoys. A clone is another handle to the same.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    streams: DashMap<u64, Stream>,
    last_id: AtomicU64,
    rejections: watch::Sender<Rejections>,
    totals: Mutex<[Totals; TypeUrl::COUNT]>,
}

impl Default for Fleet {
    fn default() -> Self {
        Fleet(Arc::new(Inner {
            streams: DashMap::new(),
            last_id: AtomicU64::new(0),
            rejections: watch::Sender::new(Rejections::new()),
            totals: Mutex::default(),
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

    /// When the slowest of the streams that were there already had all of a snapshot sent, and acknowledged; none while
    /// that is not so of every one.
    pub fn slowest(&self, sequence: u64) -> Option<(SystemTime, SystemTime)> {
        let mut slowest = None;
        for stream in &self.0.streams {
            let Some((sent, acked)) = stream.reached(sequence) else { continue };
            let (last_sent, last_acked) = slowest.unwrap_or((SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH));
            slowest = Some((last_sent.max(sent?), last_acked.max(acked?)));
        }
        slowest
    }

    /// What all streams together have carried since the start, those that are gone too, by type.
    pub fn totals(&self) -> [Totals; TypeUrl::COUNT] {
        *self.0.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, type_url: TypeUrl, add: impl FnOnce(&mut Totals)) {
        let mut totals = self.0.totals.lock().unwrap_or_else(PoisonError::into_inner);
        add(&mut totals[type_url as usize]);
    }

    fn reject(&self, stream: u64, key: (TypeUrl, Arc<str>), version: Version, message: &str, at: SystemTime) {
        self.0.rejections.send_modify(|all| {
            let mut streams = all.get(&key).map_or_else(OrdSet::new, |old| old.streams.clone());
            streams.insert(stream);
            all.insert(key, Rejection { version, message: message.to_owned(), at, streams });
        });
    }

    fn settle(&self, stream: u64, keys: impl IntoIterator<Item = (TypeUrl, Arc<str>)>) {
        self.0.rejections.send_if_modified(|all| {
            let mut modified = false;
            for key in keys {
                let Some(rejection) = all.get_mut(&key) else { continue };
                modified = true;
                rejection.streams.remove(&stream);
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

    /// Notes what the client is.
    pub fn is(&self, audience: Audience) {
        self.update(|stream| stream.audience = audience);
    }

    /// Notes a response that goes out.
    pub fn on_response(&self, type_url: TypeUrl, size: ResponseSize, now: SystemTime) {
        self.update(|stream| {
            let of_type = &mut stream.types[type_url as usize];
            of_type.responses += 1;
            of_type.resources += size.resources as u64;
            of_type.removed += size.removed as u64;
            of_type.bytes += size.bytes as u64;
            of_type.in_flight_since = Some(now);
        });
        self.fleet.count(type_url, |total| {
            total.responses += 1;
            total.resources += size.resources as u64;
            total.removed += size.removed as u64;
            total.bytes += size.bytes as u64;
        });
    }

    /// Notes the version of a response that goes out.
    pub fn on_version(&self, type_url: TypeUrl, version: &str) {
        self.update(|stream| version.clone_into(&mut stream.types[type_url as usize].sent_version));
    }

    /// Notes what the client holds.
    pub fn on_held(&self, held: [Resources; TypeUrl::COUNT]) {
        self.update(|stream| stream.held = held);
    }

    /// Notes what the client answered.
    pub fn on_event(&self, event: &Event, now: SystemTime) {
        match event {
            Event::Acked { type_url } => self.fleet.count(*type_url, |total| total.acks += 1),
            Event::Nacked { type_url, .. } => self.fleet.count(*type_url, |total| total.nacks += 1),
            Event::Rejected { .. } | Event::Settled { .. } => {}
        }
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
    pub fn on_progress(&self, progress: Progress, counts: [Counts; TypeUrl::COUNT], now: SystemTime) {
        self.update(|stream| {
            if stream.joined.is_none() {
                stream.joined = Some(progress.seen);
            }
            stream.sent.advance(progress.sent, now);
            stream.acked.advance(progress.acked, now);
            stream.progress = progress;
            for (of_type, counts) in stream.types.iter_mut().zip(counts) {
                of_type.counts = counts;
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
    audience: Audience,
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
            audience: Audience::Envoy,
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
            audience: self.audience,
            address: self.address,
            protocol: self.protocol,
            connected: self.connected,
            progress: self.progress,
            types: TypeUrl::ALL.into_iter().zip(self.types.iter().cloned()).collect(),
            rejected: self.rejected.values().cloned().collect(),
        }
    }

    fn timing(&self, stream: u64, sequence: u64) -> Option<Timing> {
        let (sent, acked) = self.reached(sequence)?;
        Some(Timing { stream, id: self.node_id.clone(), sent, acked })
    }

    /// When all of a snapshot was sent and acknowledged. None if the stream was not there or no longer remembers.
    fn reached(&self, sequence: u64) -> Option<(Option<SystemTime>, Option<SystemTime>)> {
        if self.joined.is_none_or(|joined| sequence <= joined) || sequence <= self.sent.forgotten {
            return None;
        }
        Some((self.sent.when(sequence), self.acked.when(sequence)))
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
