//! PEM to certificates and keys, and what is wrong with it, in words that follow the name of what it is in.
//!
//! The reader's own words may quote the line that it stumbled over, which may hold a key, be it that somebody mixed up the
//! files. So they go nowhere.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The certificates in it, one at least.
///
/// # Errors
/// When it is not PEM, or has no certificate.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Err(_) => Err("is not PEM"),
        Ok(none) if none.is_empty() => Err("holds no certificate"),
        Ok(certificates) => Ok(certificates),
    }
}

/// What a certificate says.
///
/// # Errors
/// When it is none of X.509.
pub fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, &'static str> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(_) => Err("holds something else than an X.509 certificate"),
    }
}

/// The private key in it.
///
/// # Errors
/// When there is none.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "is not a private key in PEM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let key = key.serialize_pem();
        let on_one_line = key.replace('\n', "").replace("KEY-----", "KEY");
        let no_x509 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let read = |pem: &str| -> Result<(), &str> {
            certificates(pem.as_bytes())?.iter().try_for_each(|der| parsed(der).map(|_| ()))
        };
        assert_eq!(read(&certificate), Ok(()));
        assert_eq!(read(""), Err("holds no certificate"));
        assert_eq!(read(&key), Err("holds no certificate"));
        assert_eq!(read(&on_one_line), Err("is not PEM"));
        assert_eq!(read(no_x509), Err("holds something else than an X.509 certificate"));
        assert!(private_key(key.as_bytes()).is_ok());
        for wrong in ["", &certificate, &on_one_line] {
            assert_eq!(private_key(wrong.as_bytes()).unwrap_err(), "is not a private key in PEM");
        }
    }
}
