//! Certificates, and whether a chain and a key belong together.

use std::fmt;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::HostName;

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
        // The reader's own words may quote the line that it stumbled over, which may hold a key.
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<_, _>>()
            .map_err(|_| "has a tls.crt that is not PEM".to_owned())?;
        let parsed = certificates.iter().map(|certificate| X509Certificate::from_der(certificate));
        let parsed: Vec<_> = parsed
            .collect::<Result<_, _>>()
            .map_err(|error| format!("has a tls.crt that is not an X.509 certificate: {error}"))?;
        let Some((_, leaf)) = parsed.first() else {
            return Err("has a tls.crt without a certificate".to_owned());
        };
        let names = names(leaf);
        let key = PrivateKeyDer::from_pem_slice(&private_key)
            .map_err(|_| "has a tls.key that is not a PEM private key".to_owned())?;
        let provider = rustls::crypto::ring::default_provider();
        rustls::sign::CertifiedKey::from_der(certificates, key, &provider)
            .map_err(|error| format!("has a tls.key that does not belong to tls.crt: {error}"))?;
        Ok(Self { certificate: Certificate { chain, private_key }, names })
    }

    /// Whether it is for a host.
    pub fn covers(&self, host: &HostName) -> bool {
        let parent = host.wildcard_parent();
        self.names.iter().any(|name| name == host || parent.as_ref() == Some(name))
    }
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
