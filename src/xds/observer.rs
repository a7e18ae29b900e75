//! Who is told what becomes of streams. Every call comes from the stream that it is about, and must not take long.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::message::{Protocol, Response};
use super::session::{Counts, Event, Progress};
use super::snapshot::Resources;
use super::{Audience, TypeUrl};

/// Is told of every stream.
pub trait Observer: Send + Sync {
    /// A client has connected; what is returned is dropped when it is gone.
    fn connect(
        &self,
        protocol: Protocol,
        address: Option<SocketAddr>,
        now: SystemTime,
    ) -> Box<dyn StreamObserver>;
}

/// Is told of one stream.
pub trait StreamObserver: Send {
    /// The number of the stream, unique within the process.
    fn id(&self) -> u64;
    /// Who the client is, as it says itself.
    fn identify(&self, id: &str, cluster: &str, user_agent: String);
    /// What the client is, once that is known.
    fn is(&self, audience: Audience);
    /// A response goes out, of this size on the wire, without framing.
    fn on_response(&self, response: &Response, bytes: usize, now: SystemTime);
    /// What the client has accepted by now.
    fn on_held(&self, held: [Resources; TypeUrl::COUNT]);
    /// What the client answered.
    fn on_event(&self, event: &Event, now: SystemTime);
    /// How far the stream has come, after its responses were handed to the network.
    fn on_progress(&self, progress: Progress, counts: [Counts; TypeUrl::COUNT], now: SystemTime);
}
