//! Which certificate a host has, and whether a Secret holds one.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::Ingress;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::draft::{Draft, Tls};
use crate::model::{Certificate, SecretRef};
use crate::store::View;
use crate::values::{Findings, HostName, Kind, ObjectKey, Origin, Setting};

/// What an Ingress's `tls` section gives the host, as ingress-nginx finds it: the Secret of the entry that lists the
/// host, else the first Secret whose certificate covers it. A host of an Ingress with a `tls` section always has TLS;
/// where the Secret is missing, broken or for other names, the default certificate serves.
pub(crate) fn of_ingress(draft: &mut Draft<'_>, key: &ObjectKey, ingress: &Ingress) -> Option<Tls> {
    let entries = ingress.spec.as_ref()?.tls.as_deref().filter(|entries| !entries.is_empty())?;
    let lists_host = |hosts: &Option<Vec<String>>| {
        hosts.iter().flatten().any(|host| HostName::parse(host).is_ok_and(|host| host == *draft.host))
    };
    if let Some(index) = entries.iter().position(|entry| lists_host(&entry.hosts)) {
        let origin = Origin::new(key, format!("spec.tls[{index}].secretName"));
        let Some(name) = entries[index].secret_name.as_deref().filter(|name| !name.is_empty()) else {
            return Some(Tls { origin, secret: None });
        };
        let secret = SecretRef { namespace: key.namespace.clone(), name: name.into() };
        let usable = usable(draft, &secret);
        if let Err(problem) = &usable {
            let message = format!(
                "Secret {}/{name} {problem}; the default certificate is served for {}",
                key.namespace, draft.host
            );
            match draft.view.secret(&key.namespace, name) {
                // It may still come, as cert-manager's do.
                None => draft.findings.warning(key, &*origin.field, "SecretNotFound", message),
                Some(_) => draft.findings.error(key, &*origin.field, "InvalidCertificate", message),
            }
        }
        let secret = usable.ok().map(|found| (Setting { value: secret, origin: origin.clone() }, found));
        return Some(Tls { origin, secret });
    }
    let covering = entries.iter().enumerate().find_map(|(index, entry)| {
        let name = entry.secret_name.as_deref().filter(|name| !name.is_empty())?;
        let secret = SecretRef { namespace: key.namespace.clone(), name: name.into() };
        let found = usable(draft, &secret).ok()?;
        let origin = Origin::new(key, format!("spec.tls[{index}].secretName"));
        Some(Tls { origin: origin.clone(), secret: Some((Setting { value: secret, origin }, found)) })
    });
    Some(covering.unwrap_or_else(|| Tls { origin: Origin::new(key, "spec.tls"), secret: None }))
}

/// The Secret's certificate, if it can be served for the draft's host.
fn usable(draft: &Draft<'_>, secret: &SecretRef) -> Result<Certificate, String> {
    let certificate = certificate(draft.view, secret)?;
    if draft.host.is_any() || covers(&certificate, draft.host) {
        Ok(certificate)
    } else {
        Err(format!("holds a certificate that is not for {}", draft.host))
    }
}

/// The certificate in a Secret of type `kubernetes.io/tls`.
///
/// # Errors
/// What is wrong with it, to be put behind the Secret's name.
fn certificate(view: &View<'_>, secret: &SecretRef) -> Result<Certificate, String> {
    let Some(found) = view.secret(&secret.namespace, &secret.name) else {
        return Err("does not exist".to_owned());
    };
    let chain = data(found, "tls.crt").ok_or("has no tls.crt")?;
    let private_key = data(found, "tls.key").ok_or("has no tls.key")?;
    check(&chain, &private_key)?;
    Ok(Certificate { chain, private_key })
}

fn data(secret: &Secret, key: &str) -> Option<Vec<u8>> {
    let binary = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
    binary.or_else(|| secret.string_data.as_ref()?.get(key).map(|text| text.clone().into_bytes()))
}

/// Envoy rejects a pair that does not fit; that must not be found out there.
fn check(chain: &[u8], private_key: &[u8]) -> Result<(), String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("has a tls.crt that is not PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("has a tls.crt without a certificate".to_owned());
    }
    for certificate in &certificates {
        X509Certificate::from_der(certificate)
            .map_err(|error| format!("has a tls.crt that is not an X.509 certificate: {error}"))?;
    }
    let key = PrivateKeyDer::from_pem_slice(private_key)
        .map_err(|error| format!("has a tls.key that is not a PEM private key: {error}"))?;
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(certificates, key, &provider)
        .map(|_| ())
        .map_err(|error| format!("has a tls.key that does not belong to tls.crt: {error}"))
}

/// Whether the leaf's names cover the host: subject alternative names, else the common name, as ingress-nginx has it.
fn covers(certificate: &Certificate, host: &HostName) -> bool {
    let Some(Ok(leaf)) = CertificateDer::pem_slice_iter(&certificate.chain).next() else { return false };
    let Ok((_, leaf)) = X509Certificate::from_der(&leaf) else { return false };
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
    names
        .iter()
        .filter_map(|name| HostName::parse(name).ok())
        .any(|name| name == *host || host.wildcard_parent().is_some_and(|parent| parent == name))
}

/// The certificate for names that have none of their own.
pub fn default_certificate(view: &View<'_>, secret: &SecretRef) -> (Option<Certificate>, Findings) {
    let mut findings = Findings::default();
    let certificate = certificate(view, secret).map_err(|problem| {
        let key = ObjectKey::new(Kind::Secret, secret.namespace.clone(), secret.name.clone());
        let message = format!("{problem}; a generated certificate is served by default instead");
        findings.error(&key, "data", "InvalidCertificate", message);
    });
    (certificate.ok(), findings)
}
