//! PEM files to a configuration of handshakes. Nothing that is said of a key says what is in it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::CertificateDer;

use crate::options::TlsFiles;
use crate::values::pem;

/// Why files cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {reason}", path.display())]
pub struct Error {
    path: PathBuf,
    reason: String,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Vec<u8>,
}

impl Pem {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, Error> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| wrong(path)(format!("cannot be read: {error}")))
        };
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            authority: read(&files.authority)?,
        })
    }
}

/// A certificate with its key, and the authorities of whom it is shown to.
pub struct Identity {
    pub(super) config: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
    /// The certificate's serial number, as `openssl x509 -serial` has it but for colons.
    pub serial: String,
    /// When the certificate expires.
    pub not_after: SystemTime,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("serial", &self.serial).finish_non_exhaustive()
    }
}

impl Identity {
    /// `now` is the time at which the certificate has to be valid.
    pub(super) fn new(held: &Pem, files: &TlsFiles, now: SystemTime) -> Result<Self, Error> {
        let chain = pem::certificates(&held.certificate).map_err(wrong(&files.certificate))?;
        let (serial, not_after) = leaf(&chain[0], now).map_err(wrong(&files.certificate))?;
        let key = pem::private_key(&held.key).map_err(wrong(&files.key))?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| {
            wrong(&files.key)(format!("does not belong to {}: {error}", files.certificate.display()))
        })?;
        let shown = Arc::new(SingleCertAndKey::from(certified));
        let roots = Arc::new(roots(&held.authority).map_err(wrong(&files.authority))?);
        let config = config(shown.clone(), roots.clone()).map_err(wrong(&files.authority))?;
        let client = client_config(shown, roots).map_err(wrong(&files.authority))?;
        Ok(Self { config: Arc::new(config), client: Arc::new(client), serial, not_after })
    }
}

fn wrong<R: Into<String>>(path: &Path) -> impl Fn(R) -> Error {
    move |reason| Error { path: path.to_owned(), reason: reason.into() }
}

/// Serial number and end of a certificate, which must not be over.
fn leaf(certificate: &CertificateDer<'_>, now: SystemTime) -> Result<(String, SystemTime), String> {
    let leaf = pem::parsed(certificate)?;
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or_default();
    let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    if not_after < now {
        return Err(format!("holds a certificate that expired at {}", leaf.validity().not_after));
    }
    Ok((leaf.raw_serial_as_string(), not_after))
}

fn roots(authority: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(authority)? {
        roots.add(certificate).map_err(|error| format!("holds what is no authority: {error}"))?;
    }
    Ok(roots)
}

/// Whoever connects has to show a certificate, and each time anew: resuming a session would let those in whose
/// certificate or authority is no longer good.
fn config(shown: Arc<SingleCertAndKey>, roots: Arc<RootCertStore>) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| error.to_string())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For connections of our own, likewise without resumption.
fn client_config(shown: Arc<SingleCertAndKey>, roots: Arc<RootCertStore>) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_cert_resolver(shown);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
