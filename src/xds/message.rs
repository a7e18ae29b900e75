//! Requests and responses, the same for the delta and the state-of-the-world variant of the protocol.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, skip_field};

use super::{Resource, TypeUrl};

/// A variant of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `DeltaAggregatedResources`: only what changed, and what is gone, by name.
    Delta,
    /// `StreamAggregatedResources`: whole sets, or whole resources of the names asked.
    Sotw,
}

/// What a client asks and answers in one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The type it is about.
    pub type_url: TypeUrl,
    /// The response that it answers; empty if none.
    pub nonce: String,
    /// Why the client rejected that response; `None` if it accepted it.
    pub error: Option<String>,
    /// What the client wants from now on.
    pub ask: Ask,
}

/// What the client wants from now on.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// A change to what it asked before.
    Delta {
        /// Names it wants as well; `*` means all.
        subscribe: Vec<String>,
        /// Names it wants no longer.
        unsubscribe: Vec<String>,
        /// What it holds from an earlier stream, by name; of meaning only in a stream's first request of a type.
        initial_versions: HashMap<String, String>,
    },
    /// All that it wants.
    Sotw {
        /// Names; none at all in the first request of a type means all.
        names: Vec<String>,
    },
}

impl TryFrom<discovery::DeltaDiscoveryRequest> for Request {
    /// The URL of a type that is not served.
    type Error = String;

    fn try_from(message: discovery::DeltaDiscoveryRequest) -> Result<Self, String> {
        Ok(Request {
            type_url: TypeUrl::parse(&message.type_url).ok_or(message.type_url)?,
            nonce: message.response_nonce,
            error: message.error_detail.map(|status| status.message),
            ask: Ask::Delta {
                subscribe: message.resource_names_subscribe,
                unsubscribe: message.resource_names_unsubscribe,
                initial_versions: message.initial_resource_versions,
            },
        })
    }
}

impl TryFrom<discovery::DiscoveryRequest> for Request {
    /// The URL of a type that is not served.
    type Error = String;

    fn try_from(message: discovery::DiscoveryRequest) -> Result<Self, String> {
        Ok(Request {
            type_url: TypeUrl::parse(&message.type_url).ok_or(message.type_url)?,
            nonce: message.response_nonce,
            error: message.error_detail.map(|status| status.message),
            ask: Ask::Sotw { names: message.resource_names },
        })
    }
}

/// What a client is sent in one message.
#[derive(Clone, Debug)]
pub struct Response {
    /// The type it is about.
    pub type_url: TypeUrl,
    /// Unique within the stream; the client's answer repeats it.
    pub nonce: String,
    /// In the delta variant for people only: the snapshot's sequence. In the other one a stable hash of the set.
    pub version: String,
    /// Resources under the names that the client asked.
    pub resources: Vec<(Arc<str>, Arc<Resource>)>,
    /// Names that are gone, or never were. Empty in the state-of-the-world variant, which cannot say it.
    pub removed: Vec<Arc<str>>,
}

/// A resource as an entry of a response: `envoy.service.discovery.v3.Resource`, or `google.protobuf.Any` where `BARE`.
/// Its bytes go from the snapshot to the stream's buffer without another copy.
#[derive(Clone, Debug, Default)]
struct Entry<const BARE: bool> {
    asked: Arc<str>,
    resource: Option<Arc<Resource>>,
}

impl<const BARE: bool> Entry<BARE> {
    fn all(response: &Response) -> Vec<Self> {
        let entry = |(asked, resource): &(Arc<str>, Arc<Resource>)| Entry {
            asked: asked.clone(),
            resource: Some(resource.clone()),
        };
        response.resources.iter().map(entry).collect()
    }
}

impl<const BARE: bool> PartialEq for Entry<BARE> {
    fn eq(&self, other: &Self) -> bool {
        let version = |entry: &Self| entry.resource.as_ref().map(|resource| resource.version());
        self.asked == other.asked && version(self) == version(other)
    }
}

impl<const BARE: bool> prost::Message for Entry<BARE> {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        match &self.resource {
            Some(resource) if BARE => resource.put_any(&self.asked, buf),
            Some(resource) => resource.put_entry(&self.asked, buf),
            None => {}
        }
    }

    fn encoded_len(&self) -> usize {
        let len = |resource: &Arc<Resource>| match BARE {
            true => resource.any_len(&self.asked),
            false => resource.entry_len(&self.asked),
        };
        self.resource.as_ref().map_or(0, len)
    }

    /// Responses are never read.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buf, context)
    }

    fn clear(&mut self) {
        self.resource = None;
    }
}

/// `DeltaDiscoveryResponse` on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DeltaFrame {
    #[prost(string, tag = "1")]
    system_version_info: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Entry<false>>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
    #[prost(string, repeated, tag = "6")]
    removed_resources: Vec<String>,
}

impl From<&Response> for DeltaFrame {
    fn from(response: &Response) -> Self {
        DeltaFrame {
            system_version_info: response.version.clone(),
            resources: Entry::all(response),
            type_url: response.type_url.as_str().to_owned(),
            nonce: response.nonce.clone(),
            removed_resources: response.removed.iter().map(|name| name.to_string()).collect(),
        }
    }
}

/// `DiscoveryResponse` on the wire, likewise.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SotwFrame {
    #[prost(string, tag = "1")]
    version_info: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Entry<true>>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

impl From<&Response> for SotwFrame {
    fn from(response: &Response) -> Self {
        SotwFrame {
            version_info: response.version.clone(),
            resources: Entry::all(response),
            type_url: response.type_url.as_str().to_owned(),
            nonce: response.nonce.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::Version;
    use prost::Message;

    fn response() -> Response {
        let resource = |name: &str| {
            let resource = Resource::from_bytes(TypeUrl::Cluster, name, Version(1), &[0x0a, 1, b'a']);
            (Arc::from(name), Arc::new(resource))
        };
        Response {
            type_url: TypeUrl::Cluster,
            nonce: "3".into(),
            version: "5".into(),
            resources: vec![resource("a"), resource("b")],
            removed: vec!["c".into()],
        }
    }

    #[test]
    fn frames_are_the_messages_of_the_protocol() {
        let bytes = DeltaFrame::from(&response()).encode_to_vec();
        let delta = discovery::DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
        assert_eq!(delta.resources.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(delta.removed_resources, ["c"]);
        assert_eq!((delta.nonce.as_str(), delta.system_version_info.as_str()), ("3", "5"));
        assert_eq!(delta.type_url, TypeUrl::Cluster.as_str());

        let bytes = SotwFrame::from(&response()).encode_to_vec();
        let sotw = discovery::DiscoveryResponse::decode(bytes.as_slice()).unwrap();
        assert_eq!(
            sotw.resources,
            delta.resources.into_iter().filter_map(|r| r.resource).collect::<Vec<_>>()
        );
        assert_eq!((sotw.nonce.as_str(), sotw.version_info.as_str()), ("3", "5"));
        assert_eq!(sotw.type_url, TypeUrl::Cluster.as_str());
    }
}
