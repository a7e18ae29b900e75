//! Certificates and their keys, good and bad.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::model::Certificate;

/// Pairs of certificate and key by name, made once.
static PAIRS: LazyLock<BTreeMap<&str, Value>> = LazyLock::new(|| {
    let (x, wildcard, old) = (make(&["x.io"]), make(&["*.x.io", "x.io"]), make(&["x.io"]));
    [
        ("x", data(&x.0, &x.1)),
        ("x renewed", data(&old.0, &old.1)),
        ("wildcard", data(&wildcard.0, &wildcard.1)),
        ("of another key", data(&x.0, &wildcard.1)),
        ("not PEM", data("certificate", "key")),
        ("no key", json!({"tls.crt": "Y2VydA=="})),
    ]
    .into()
});

/// The data of a Secret.
pub(super) fn pair(name: &str) -> Value {
    PAIRS.get(name).cloned().unwrap_or_else(|| json!({}))
}

/// A pair that is good, for the certificate of all other names.
pub(super) fn certificate() -> Certificate {
    static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| {
        let (chain, private_key) = make(&["any.io"]);
        Certificate { chain: chain.into_bytes(), private_key: private_key.into_bytes() }
    });
    CERTIFICATE.clone()
}

/// A certificate for these names, signed by itself, and its key.
pub(super) fn make(names: &[&str]) -> (String, String) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// The data of a Secret with such a pair.
pub(super) fn data(certificate: &str, key: &str) -> Value {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    json!({"tls.crt": encode(certificate), "tls.key": encode(key)})
}
