//! Certificates to Secrets. The xDS layer serves one under every name that it covers, so the message has no name.

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret};

use super::version;
use crate::model::Certificate;
use crate::xds::{Resource, TypeUrl, Version};

/// A certificate under a host, a one-label wildcard, or `*` for every other name. It can be put under other names.
pub fn secret(name: &str, certificate: &Certificate) -> Resource {
    named(name, version(certificate), certificate)
}

/// The certificate that is made at the start where none is configured. Its version is that of its purpose, so that an
/// Envoy that moves between replicas is not sent another one.
pub fn generated(name: &str, certificate: &Certificate) -> Resource {
    named(name, version("generated default certificate"), certificate)
}

fn named(name: &str, version: Version, certificate: &Certificate) -> Resource {
    let inline = |bytes: &[u8]| {
        let specifier = Some(data_source::Specifier::InlineBytes(bytes.to_vec()));
        Some(DataSource { specifier, ..DataSource::default() })
    };
    let message = Secret {
        name: String::new(),
        r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(&certificate.chain),
            private_key: inline(&certificate.private_key),
            ..TlsCertificate::default()
        })),
    };
    Resource::new(TypeUrl::Secret, name, version, &message)
}
