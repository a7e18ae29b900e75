//! One resource: a name, a version and the encoded message.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::TypeUrl;

/// What a resource was made from, hashed by its maker: equal input, equal version, on every replica and after every
/// restart. Not a hash of the encoded bytes, since maps in them have no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Version> {
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One immutable resource, to be shared as `Arc<Resource>`.
///
/// It is encoded once, as the entry of a response; every stream sends the same bytes.
///
/// A `Secret` is kept without its name, since it is served under whatever name a client asks (see
/// [`Snapshot::find`](super::Snapshot::find)); its entry is put together for each name.
pub struct Resource {
    type_url: TypeUrl,
    name: Arc<str>,
    version: Version,
    /// `envoy.service.discovery.v3.Resource`; of a `Secret` only the message without name.
    entry: Bytes,
    any_at: usize,
    body_at: usize,
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
        let name = name.into();
        let (entry, any_at, body_at) = if type_url == TypeUrl::Secret {
            (Bytes::copy_from_slice(without_name(body)), 0, 0)
        } else {
            encode_entry(type_url, &name, version, &[body])
        };
        Resource { type_url, name, version, entry, any_at, body_at, requires: Box::default() }
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
        Resource { name: name.into(), entry: self.entry.clone(), requires: self.requires.clone(), ..*self }
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
    pub fn body(&self) -> Bytes {
        self.entry.slice(self.body_at..)
    }

    /// Encoded size in bytes.
    pub fn len(&self) -> usize {
        self.entry.len()
    }

    /// Whether nothing is encoded, which holds for an empty `Secret` only.
    pub fn is_empty(&self) -> bool {
        self.entry.is_empty()
    }

    /// The encoded `envoy.service.discovery.v3.Resource`, under the name that the client asked.
    pub fn entry(&self, asked: &str) -> Bytes {
        match self.type_url {
            TypeUrl::Secret => self.named(asked).0,
            _ => self.entry.clone(),
        }
    }

    /// The encoded `google.protobuf.Any`, the message bearing the name that the client asked.
    pub fn any(&self, asked: &str) -> Bytes {
        match self.type_url {
            TypeUrl::Secret => {
                let (entry, any_at, _) = self.named(asked);
                entry.slice(any_at..)
            }
            _ => self.entry.slice(self.any_at..),
        }
    }

    fn named(&self, asked: &str) -> (Bytes, usize, usize) {
        let mut name = Vec::with_capacity(asked.len() + 4);
        put_field(&mut name, 1, &[asked.as_bytes()]);
        encode_entry(self.type_url, asked, self.version, &[&name, &self.entry])
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}@{} ({} bytes)", self.type_url, self.name, self.version, self.entry.len())
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

/// Returns the entry, and where in it the `Any` and the message begin. The `Any` is last, so that each is a slice of
/// the same bytes; the order of fields means nothing in protobuf.
fn encode_entry(type_url: TypeUrl, name: &str, version: Version, body: &[&[u8]]) -> (Bytes, usize, usize) {
    let body_len: usize = body.iter().map(|b| b.len()).sum();
    let url = type_url.as_str().as_bytes();
    let any_len = field_len(url.len()) + field_len(body_len);
    let version = version.to_string();
    let len = field_len(name.len()) + field_len(version.len()) + field_len(any_len);

    let mut buf = BytesMut::with_capacity(len);
    put_field(&mut buf, 3, &[name.as_bytes()]);
    put_field(&mut buf, 1, &[version.as_bytes()]);
    encode_key(2, WireType::LengthDelimited, &mut buf);
    encode_varint(any_len as u64, &mut buf);
    let any_at = buf.len();
    put_field(&mut buf, 1, &[url]);
    put_field(&mut buf, 2, body);
    (buf.freeze(), any_at, len - body_len)
}

/// Every field number here fits one byte of key.
fn field_len(value: usize) -> usize {
    1 + encoded_len_varint(value as u64) + value
}

fn put_field(buf: &mut impl BufMut, tag: u32, value: &[&[u8]]) {
    encode_key(tag, WireType::LengthDelimited, buf);
    encode_varint(value.iter().map(|v| v.len() as u64).sum(), buf);
    for part in value {
        buf.put_slice(part);
    }
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

    #[test]
    fn an_entry_is_what_envoy_reads() {
        let cluster = Cluster { name: "a".into(), alt_stat_name: "b".repeat(200), ..Default::default() };
        let resource = Resource::new(TypeUrl::Cluster, "a", Version(7), &cluster);
        let entry = discovery::Resource::decode(resource.entry("a")).unwrap();
        assert_eq!((entry.name.as_str(), entry.version.as_str()), ("a", "0000000000000007"));
        let any = entry.resource.unwrap();
        assert_eq!(any.type_url, TypeUrl::Cluster.as_str());
        assert_eq!(any.value, cluster.encode_to_vec());
        assert_eq!(Any::decode(resource.any("a")).unwrap(), any);
        assert_eq!(resource.body(), any.value);
    }

    #[test]
    fn a_secret_bears_the_name_that_was_asked() {
        let kind = secret::Type::GenericSecret(GenericSecret::default());
        for name in ["", "*.example.com"] {
            let message = Secret { name: name.into(), r#type: Some(kind.clone()) };
            let resource = Resource::new(TypeUrl::Secret, "*.example.com", Version(1), &message);
            let entry = discovery::Resource::decode(resource.entry("a.example.com")).unwrap();
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
