//! What a handshake must have shown.

use crate::case::step::{TlsSeen, TlsVersion};
use crate::certs::Authority;
use crate::client::Handshake;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls::{ProtocolVersion, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::net::IpAddr;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

pub(super) fn check(
    expected: &TlsSeen,
    handshake: Option<&Handshake>,
    authority: &Authority,
) -> Result<(), String> {
    let Some(handshake) = handshake else { return Err("tls: expected a handshake, seen none".to_owned()) };
    if let Some(version) = expected.version {
        let wanted = match version {
            TlsVersion::Tls12 => ProtocolVersion::TLSv1_2,
            TlsVersion::Tls13 => ProtocolVersion::TLSv1_3,
        };
        if handshake.version != Some(wanted) {
            let seen = handshake.version.map_or("none".to_owned(), |version| format!("{version:?}"));
            return Err(format!("tls.version: expected {wanted:?}, seen {seen}"));
        }
    }
    if let Some(alpn) = &expected.alpn
        && handshake.alpn.as_ref() != Some(alpn)
    {
        return Err(format!(
            "tls.alpn: expected {alpn}, seen {}",
            handshake.alpn.as_deref().unwrap_or("none")
        ));
    }
    let Some(san) = &expected.san else { return Ok(()) };
    let certificate = handshake.chain.first().ok_or("tls.san: the server showed no certificate")?;
    let names = names(certificate)?;
    if !names.contains(san) {
        return Err(format!("tls.san: expected {san}, seen {}", names.join(", ")));
    }
    if expected.verify {
        verify(certificate, &handshake.chain[1..], authority)
            .map_err(|error| format!("tls.verify: {error}"))?;
    }
    Ok(())
}

/// The subject alternative names.
fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| format!("tls.san: {error}"))?;
    let extension = parsed.subject_alternative_name().map_err(|error| format!("tls.san: {error}"))?;
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    Ok(names.filter_map(name).collect())
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => {
            Some((*text).to_owned())
        }
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            _ => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
        },
        _ => None,
    }
}

/// Whether the case's CA signed it, and it is valid now.
fn verify(
    certificate: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    authority: &Authority,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone())?;
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let parsed = ParsedCertificate::try_from(certificate)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, UnixTime::now(), algorithms)
}
