//! What readers are given: plain values, ready to be written as JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use serde::{Serialize, Serializer};

use crate::xds::message::Protocol;
use crate::xds::session::{Counts, Progress};
use crate::xds::{Audience, TypeUrl, Version};

/// Resources that some connected Envoy rejects, by type and name.
pub type Rejections = OrdMap<(TypeUrl, Arc<str>), Rejection>;

/// What is rejected that was not before, or with other words, by type and name; without words what is rejected no more.
/// The cost is that of what differs.
pub fn changes<'r>(
    before: &'r Rejections,
    now: &'r Rejections,
) -> impl Iterator<Item = (TypeUrl, &'r str, Option<&'r str>)> {
    before.diff(now).filter_map(|item| {
        let ((type_url, name), message) = match item {
            DiffItem::Add(key, rejection) => (key, Some(&*rejection.message)),
            // Another Envoy rejects it too, say.
            DiffItem::Update { old, new } if old.1.message == new.1.message => return None,
            DiffItem::Update { new: (key, rejection), .. } => (key, Some(&*rejection.message)),
            DiffItem::Remove(key, _) => (key, None),
        };
        Some((*type_url, &**name, message))
    })
}

/// A resource that some connected Envoy rejects.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// The version that was rejected last.
    pub version: Version,
    /// Envoy's words.
    pub message: String,
    /// When it was rejected last.
    pub at: SystemTime,
    /// The streams that reject it now.
    pub streams: OrdSet<u64>,
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

/// What streams have carried, of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
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

/// One connected Envoy, or rate limit service.
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
    /// What it is sent.
    pub audience: Audience,
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
