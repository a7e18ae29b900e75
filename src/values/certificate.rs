//! Certificates, and whether a chain and a key belong together.

use std::fmt;

use rustls_pki_types::PrivateKeyDer;
use x509_parser::asn1_rs::{Class, Tag};
use x509_parser::der_parser::der::{DerObject, parse_der};
use x509_parser::prelude::{GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::{HostName, pem};

/// A certificate chain and its key, checked to belong together. Never serialised, never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// PEM, the leaf first.
    pub chain: Vec<u8>,
    /// PEM.
    pub private_key: Vec<u8>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate(…)")
    }
}

/// A certificate as it was read, with the names that it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// The chain and its key.
    pub certificate: Certificate,
    /// The leaf's names: subject alternative names, else the common name, as ingress-nginx has it.
    pub names: Vec<HostName>,
}

impl Checked {
    /// Reads a chain and its key. Envoy rejects a pair that does not fit; that must not be found out there.
    ///
    /// # Errors
    /// What is wrong, to be put behind the name of the Secret that they are in.
    pub fn read(chain: Vec<u8>, private_key: Vec<u8>) -> Result<Self, String> {
        let in_chain = |reason| format!("has a tls.crt that {reason}");
        let certificates = pem::certificates(&chain).map_err(in_chain)?;
        let parsed: Result<Vec<_>, _> = certificates.iter().map(pem::parsed).collect();
        let parsed = parsed.map_err(in_chain)?;
        let leaf = &parsed[0];
        if !is_supported(leaf) {
            return Err(format!("has a tls.crt with a key of a kind that is not served; {KEYS}"));
        }
        let names = names(leaf);
        let key = pem::private_key(&private_key).map_err(|reason| format!("has a tls.key that {reason}"))?;
        if !same_public_half(leaf, &key) {
            let provider = rustls::crypto::ring::default_provider();
            rustls::sign::CertifiedKey::from_der(certificates, key, &provider)
                .map_err(|error| format!("has a tls.key that does not belong to tls.crt: {error}"))?;
        }
        Ok(Self { certificate: Certificate { chain, private_key }, names })
    }

    /// Whether it is for a host.
    pub fn covers(&self, host: &HostName) -> bool {
        let parent = host.wildcard_parent();
        self.names.iter().any(|name| name == host || parent.as_ref() == Some(name))
    }
}

/// What Envoy serves, in the words of findings.
const KEYS: &str = "give ECDSA on P-256, P-384 or P-521, Ed25519, or RSA of 2048 bits or more";

/// Whether Envoy takes a certificate with such a key (tried with Envoy 1.40).
fn is_supported(leaf: &X509Certificate<'_>) -> bool {
    const CURVES: [&str; 3] = ["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];
    const ED25519: &str = "1.3.101.112";
    let algorithm = &leaf.public_key().algorithm;
    match leaf.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => key.key_size() >= 2048,
        Ok(PublicKey::EC(_)) => {
            let curve = algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            curve.is_some_and(|curve| CURVES.contains(&curve.to_id_string().as_str()))
        }
        _ => algorithm.algorithm.to_id_string() == ED25519,
    }
}

/// Whether the private key carries the leaf's public key with it, as nearly every one does. So keys that only Envoy can
/// load (P-521, RSA of more than 4096 bits) are checked too.
fn same_public_half(leaf: &X509Certificate<'_>, key: &PrivateKeyDer<'_>) -> bool {
    let half = match key {
        PrivateKeyDer::Pkcs1(der) => modulus(der.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(der) => point(der.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(der) => {
            let inner =
                items(der.secret_pkcs8_der()).and_then(|items| Some(items.get(2)?.as_slice().ok()?.to_vec()));
            inner.and_then(|inner| modulus(&inner).or_else(|| point(&inner)))
        }
        _ => None,
    };
    let Some(half) = half else { return false };
    match leaf.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => without_zeros(key.modulus) == half,
        Ok(PublicKey::EC(point)) => point.data() == half,
        _ => false,
    }
}

/// The modulus of an `RSAPrivateKey`.
fn modulus(der: &[u8]) -> Option<Vec<u8>> {
    let items = items(der).filter(|items| items.len() >= 9)?;
    Some(without_zeros(items[1].as_slice().ok()?).to_vec())
}

/// The public key of an `ECPrivateKey`, which it need not have.
fn point(der: &[u8]) -> Option<Vec<u8>> {
    let items = items(der)?;
    let tagged = items
        .iter()
        .find(|item| item.header.class() == Class::ContextSpecific && item.header.tag() == Tag(1))?;
    let (_, bits) = parse_der(tagged.as_slice().ok()?).ok()?;
    Some(bits.as_bitstring().ok()?.data.to_vec())
}

/// The items of a DER sequence.
fn items(der: &[u8]) -> Option<Vec<DerObject<'_>>> {
    let (_, object) = parse_der(der).ok()?;
    Some(object.as_sequence().ok()?.clone())
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn names(leaf: &X509Certificate<'_>) -> Vec<HostName> {
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(extension)) = leaf.subject_alternative_name() {
        names.extend(extension.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        }));
    }
    if names.is_empty() {
        names.extend(
            leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned),
        );
    }
    names.iter().filter_map(|name| HostName::parse(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(certificate: &str, key: &str) -> Result<Vec<HostName>, String> {
        Checked::read(certificate.into(), key.into()).map(|checked| checked.names)
    }

    /// Both with names of `a.example.com`.
    const P521: (&str, &str) = (include_str!("certificate/p521.crt"), include_str!("certificate/p521.key"));
    const RSA1024: (&str, &str) =
        (include_str!("certificate/rsa1024.crt"), include_str!("certificate/rsa1024.key"));
    const OTHER_P521: &str = include_str!("certificate/p521-other.key");

    #[test]
    fn keys_that_only_envoy_loads() {
        assert_eq!(read(P521.0, P521.1), Ok(vec![HostName::parse("a.example.com").unwrap()]));
        let problem = read(P521.0, OTHER_P521).unwrap_err();
        assert!(problem.contains("does not belong"), "{problem}");
        let problem = read(P521.0, RSA1024.1).unwrap_err();
        assert!(problem.contains("does not belong"), "{problem}");
    }

    #[test]
    fn keys_that_envoy_refuses() {
        let problem = read(RSA1024.0, RSA1024.1).unwrap_err();
        assert!(problem.contains(KEYS), "{problem}");
    }

    #[test]
    fn the_public_half_of_an_rsa_key() {
        let chain = pem::certificates(RSA1024.0.as_bytes()).unwrap();
        let leaf = pem::parsed(&chain[0]).unwrap();
        let key = |pem: &str| pem::private_key(pem.as_bytes()).unwrap();
        assert!(same_public_half(&leaf, &key(RSA1024.1)) && !same_public_half(&leaf, &key(P521.1)));
    }

    #[test]
    fn what_is_wrong_is_said_of_the_entry_that_it_is_in() {
        assert_eq!(read("", P521.1), Err("has a tls.crt that holds no certificate".to_owned()));
        assert_eq!(read(P521.0, P521.0), Err("has a tls.key that is not a private key in PEM".to_owned()));
    }

    #[test]
    fn what_is_wrong_with_a_key_does_not_tell_it() {
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem().into_bytes();
        // As where lines were joined and dashes taken for something else.
        let key = key.serialize_pem().replace('\n', "").replace("KEY-----", "KEY").into_bytes();
        for (chain, key) in [(chain, key.clone()), (key.clone(), key.clone())] {
            let error = Checked::read(chain, key.clone()).unwrap_err();
            let numbers = format!("{key:?}");
            assert!(!error.contains(numbers.trim_matches(['[', ']'])), "{error}");
        }
    }
}
