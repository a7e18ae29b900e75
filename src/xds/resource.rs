//! One resource: a name, a version and the encoded message.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::BufMut;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::TypeUrl;

/// Hexadecimal digits of a version.
const VERSION_LEN: usize = 16;

/// What a resource was made from, hashed by its maker: equal input, equal version, on every replica and after every
/// restart. Not a hash of the encoded bytes, since maps in them have no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Version> {
        if text.len() != VERSION_LEN || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0VERSION_LEN$x}", self.0)
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One immutable resource, to be shared as `Arc<Resource>`.
///
/// Its message is encoded once, and every stream sends the same bytes. What a response puts around them says little that
/// is not known, so it is written when it is sent: kept, it would be half the size of a small resource.
///
/// A `Secret` is kept without its name, since it is served under whatever name a client asks (see
/// [`Snapshot::find`](super::Snapshot::find)), which is written then too.
pub struct Resource {
    type_url: TypeUrl,
    name: Arc<str>,
    version: Version,
    /// Shared by the names of one Secret.
    body: Arc<[u8]>,
    requires: Box<[Arc<str>]>,
}

impl Resource {
    /// Encodes a message.
    pub fn new(
        type_url: TypeUrl,
        name: impl Into<Arc<str>>,
        version: Version,
        message: &impl Message,
    ) -> Self {
        Self::from_bytes(type_url, name, version, &message.encode_to_vec())
    }

    /// Takes a message that is encoded already: the value of the `Any`.
    pub fn from_bytes(type_url: TypeUrl, name: impl Into<Arc<str>>, version: Version, body: &[u8]) -> Self {
        let body = if type_url == TypeUrl::Secret { without_name(body) } else { body };
        Resource { type_url, name: name.into(), version, body: body.into(), requires: Box::default() }
    }

    /// Names what this resource refers to, and what therefore outlives it: of a scope its route configuration, else
    /// clusters. A resource also waits for its clusters; a scope does not wait, since a client asks for routes only when
    /// a scope names them. Of no use on clusters and endpoints.
    #[must_use]
    pub fn requiring(mut self, names: impl IntoIterator<Item = Arc<str>>) -> Self {
        self.requires = names.into_iter().collect();
        self
    }

    /// The same `Secret` under another name; both share their bytes.
    #[must_use]
    pub fn secret_under(&self, name: impl Into<Arc<str>>) -> Self {
        debug_assert_eq!(self.type_url, TypeUrl::Secret, "the bytes of others hold their name");
        Resource { name: name.into(), body: self.body.clone(), requires: self.requires.clone(), ..*self }
    }

    /// The type.
    pub fn type_url(&self) -> TypeUrl {
        self.type_url
    }

    /// The name, unique within the type.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What this resource refers to, of the type [`TypeUrl::requires`].
    pub fn requires(&self) -> &[Arc<str>] {
        &self.requires
    }

    /// The encoded message; a `Secret` lacks its name.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Encoded size of the message in bytes.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether nothing is encoded, which holds for an empty message only.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Length of what [`put_entry`](Self::put_entry) writes.
    pub fn entry_len(&self, asked: &str) -> usize {
        field_len(VERSION_LEN) + field_len(self.any_len(asked)) + field_len(asked.len())
    }

    /// Writes the `envoy.service.discovery.v3.Resource`, under the name that the client asked.
    pub fn put_entry(&self, asked: &str, buf: &mut impl BufMut) {
        put_field(buf, 1, self.version.to_string().as_bytes());
        put_key(buf, 2, self.any_len(asked));
        self.put_any(asked, buf);
        put_field(buf, 3, asked.as_bytes());
    }

    /// Length of what [`put_any`](Self::put_any) writes.
    pub(super) fn any_len(&self, asked: &str) -> usize {
        field_len(self.type_url.as_str().len()) + field_len(self.message_len(asked))
    }

    /// Writes the `google.protobuf.Any`, the message bearing the name that the client asked.
    pub(super) fn put_any(&self, asked: &str, buf: &mut impl BufMut) {
        put_field(buf, 1, self.type_url.as_str().as_bytes());
        put_key(buf, 2, self.message_len(asked));
        if self.type_url == TypeUrl::Secret {
            put_field(buf, 1, asked.as_bytes());
        }
        buf.put_slice(&self.body);
    }

    fn message_len(&self, asked: &str) -> usize {
        self.body.len() + if self.type_url == TypeUrl::Secret { field_len(asked.len()) } else { 0 }
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}@{} ({} bytes)", self.type_url, self.name, self.version, self.body.len())
    }
}

/// Field 1 of a `Secret` is its name, and encoders write it first.
fn without_name(secret: &[u8]) -> &[u8] {
    let mut rest = secret;
    if rest.first() != Some(&0x0a) {
        return secret;
    }
    rest = &rest[1..];
    match prost::encoding::decode_varint(&mut rest) {
        Ok(len) if len <= rest.len() as u64 => &rest[len as usize..],
        _ => secret,
    }
}

/// Every field number here fits one byte of key.
fn field_len(value: usize) -> usize {
    1 + encoded_len_varint(value as u64) + value
}

fn put_key(buf: &mut impl BufMut, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, buf);
    encode_varint(len as u64, buf);
}

fn put_field(buf: &mut impl BufMut, tag: u32, value: &[u8]) {
    put_key(buf, tag, value.len());
    buf.put_slice(value);
}

/// Lower-cases only when there is something to lower-case.
pub(super) fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{GenericSecret, Secret, secret};
    use envoy_types::pb::envoy::service::discovery::v3 as discovery;
    use envoy_types::pb::google::protobuf::Any;

    fn entry(resource: &Resource, asked: &str) -> discovery::Resource {
        let (mut entry, mut any) = (Vec::new(), Vec::new());
        resource.put_entry(asked, &mut entry);
        resource.put_any(asked, &mut any);
        assert_eq!((entry.len(), any.len()), (resource.entry_len(asked), resource.any_len(asked)));
        let entry = discovery::Resource::decode(entry.as_slice()).unwrap();
        assert_eq!(entry.resource, Some(Any::decode(any.as_slice()).unwrap()));
        entry
    }

    #[test]
    fn an_entry_is_what_envoy_reads() {
        let cluster = Cluster { name: "a".into(), alt_stat_name: "b".repeat(200), ..Default::default() };
        let resource = Resource::new(TypeUrl::Cluster, "a", Version(7), &cluster);
        let entry = entry(&resource, "a");
        assert_eq!((entry.name.as_str(), entry.version.as_str()), ("a", "0000000000000007"));
        let any = entry.resource.unwrap();
        assert_eq!(any.type_url, TypeUrl::Cluster.as_str());
        assert_eq!(any.value, cluster.encode_to_vec());
        assert_eq!(resource.body(), any.value);
    }

    #[test]
    fn a_secret_bears_the_name_that_was_asked() {
        let kind = secret::Type::GenericSecret(GenericSecret::default());
        for name in ["", "*.example.com"] {
            let message = Secret { name: name.into(), r#type: Some(kind.clone()) };
            let resource = Resource::new(TypeUrl::Secret, "*.example.com", Version(1), &message);
            let entry = entry(&resource, "a.example.com");
            assert_eq!(entry.name, "a.example.com");
            let secret = Secret::decode(entry.resource.unwrap().value.as_slice()).unwrap();
            assert_eq!(secret, Secret { name: "a.example.com".into(), r#type: Some(kind.clone()) });
        }
    }

    #[test]
    fn versions_are_read_as_written() {
        for v in [0, 1, u64::MAX] {
            assert_eq!(Version::parse(&Version(v).to_string()), Some(Version(v)));
        }
        assert_eq!(Version::parse("1"), None);
        assert_eq!(Version::parse("+00000000000000a"), None);
    }
}
