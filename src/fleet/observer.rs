//! Sessions tell the fleet what becomes of them.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::{Connection, Fleet, ResponseSize};
use crate::xds::message::{Protocol, Response};
use crate::xds::observer::{Observer, StreamObserver};
use crate::xds::session::{Counts, Event, Progress};
use crate::xds::snapshot::Resources;
use crate::xds::{Audience, TypeUrl};

impl Observer for Fleet {
    fn connect(
        &self,
        protocol: Protocol,
        address: Option<SocketAddr>,
        now: SystemTime,
    ) -> Box<dyn StreamObserver> {
        Box::new(Fleet::connect(self, protocol, address, now))
    }
}

impl StreamObserver for Connection {
    fn id(&self) -> u64 {
        Connection::id(self)
    }

    fn identify(&self, id: &str, cluster: &str, user_agent: String) {
        Connection::identify(self, id, cluster, user_agent);
    }

    fn is(&self, audience: Audience) {
        Connection::is(self, audience);
    }

    fn on_response(&self, response: &Response, bytes: usize, now: SystemTime) {
        let (resources, removed) = (response.resources.len(), response.removed.len());
        self.on_version(response.type_url, &response.version);
        Connection::on_response(self, response.type_url, ResponseSize { resources, removed, bytes }, now);
    }

    fn on_held(&self, held: [Resources; TypeUrl::COUNT]) {
        Connection::on_held(self, held);
    }

    fn on_event(&self, event: &Event, now: SystemTime) {
        Connection::on_event(self, event, now);
    }

    fn on_progress(&self, progress: Progress, counts: [Counts; TypeUrl::COUNT], now: SystemTime) {
        Connection::on_progress(self, progress, counts, now);
    }
}
