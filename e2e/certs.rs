//! The certificates of a case, all ECDSA P-256 and signed by one CA that is made for it.

use crate::case::Cert;
use crate::case::values::ServiceName;
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// A certificate chain and its key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The CA of one case.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub(crate) der: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Case CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        validity(&mut params, 30);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Authority {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The Secret that a case's `certs` entry stands for.
    pub(crate) fn secret(&self, name: &ServiceName, cert: &Cert) -> Result<Value> {
        let mut data = serde_json::Map::new();
        let mut put = |key: &str, pem: &str| data.insert(key.to_owned(), Value::String(STANDARD.encode(pem)));
        if cert.ca {
            put("ca.crt", &self.pem);
        } else {
            let (certificate, key) = self
                .sign(cert, &name.name)
                .with_context(|| format!("cannot make the certificate of {name}"))?;
            put("tls.crt", &certificate);
            put("tls.key", &key);
            if cert.with_ca {
                put("ca.crt", &self.pem);
            }
        }
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": name.namespace, "name": name.name},
            "type": if cert.ca { "Opaque" } else { "kubernetes.io/tls" },
            "data": data,
        }))
    }

    /// A server certificate for an echo server.
    pub(crate) fn server(&self, names: Vec<String>) -> Result<Identity> {
        let (certificate, key) = self.sign(&Cert { dns: names, ..Cert::default() }, "echo")?;
        identity(certificate.as_bytes(), key.as_bytes())
    }

    /// The certificate and its key, as PEM.
    fn sign(&self, cert: &Cert, fallback_name: &str) -> Result<(String, String)> {
        let mut params = CertificateParams::new(cert.dns.clone())?;
        let common_name =
            cert.cn.as_deref().or(cert.dns.first().map(String::as_str)).unwrap_or(fallback_name);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match cert.client {
            true => ExtendedKeyUsagePurpose::ClientAuth,
            false => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        validity(&mut params, cert.days);
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

/// Valid from an hour ago for `days` days; negative days give a certificate that has expired.
fn validity(params: &mut CertificateParams, days: i64) {
    const DAY: u64 = 24 * 3600;
    let (now, length) = (SystemTime::now(), Duration::from_secs(days.unsigned_abs() * DAY));
    let end = if days < 0 { now - length } else { now + length };
    let start = if days < 0 { end - Duration::from_secs(30 * DAY) } else { now - Duration::from_secs(3600) };
    params.not_before = start.into();
    params.not_after = end.into();
}

/// Reads a chain and its key from PEM.
pub(crate) fn identity(certificate: &[u8], key: &[u8]) -> Result<Identity> {
    let chain =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().context("tls.crt")?;
    anyhow::ensure!(!chain.is_empty(), "tls.crt holds no certificate");
    Ok((chain, PrivateKeyDer::from_pem_slice(key).context("tls.key")?))
}

/// The identity in a kubernetes.io/tls Secret.
pub(crate) fn identity_of(secret: &Value) -> Result<Identity> {
    let entry = |key: &str| -> Result<Vec<u8>> {
        if let Some(text) = secret["stringData"][key].as_str() {
            return Ok(text.as_bytes().to_vec());
        }
        let text = secret["data"][key].as_str().with_context(|| format!("the Secret has no {key}"))?;
        Ok(STANDARD.decode(text.split_whitespace().collect::<String>())?)
    };
    identity(&entry("tls.crt")?, &entry("tls.key")?)
}
