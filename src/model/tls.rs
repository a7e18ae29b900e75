//! Certificates.

use std::sync::Arc;

use serde::Serialize;

/// A Secret, by namespace and name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct SecretRef {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A certificate chain and its key, checked to belong together. Never serialised, never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// PEM, the leaf first.
    pub chain: Vec<u8>,
    /// PEM.
    pub private_key: Vec<u8>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate(…)")
    }
}
