//! Authorities, what they sign, and the volumes that hold it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SerialNumber,
};

/// What signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, in PEM.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    /// An authority by whose name and serial number it is known.
    pub(crate) fn new(serial: u64) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("Authority {serial}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a name or an address, good for servers and clients.
    pub(crate) fn sign(&self, name: &str, serial: u64) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        Leaf { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// A folder with the files of a Secret, which are exchanged as a kubelet does it.
pub(crate) struct Volume(PathBuf);

impl Volume {
    pub(crate) fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// The flags that name its files.
    pub(crate) fn flags(&self) -> [String; 3] {
        [("xds-tls-cert", "tls.crt"), ("xds-tls-key", "tls.key"), ("xds-ca", "ca.crt")]
            .map(|(flag, name)| format!("--{flag}={}", self.0.join(name).display()))
    }

    /// All at once, by the link that those of the folder go through.
    pub(crate) fn exchange(&self, version: u64, leaf: &Leaf, trusted: &[&Authority]) {
        let (below, link) = (self.0.join(format!("..{version}")), self.0.join("..data_tmp"));
        let authorities: String = trusted.iter().map(|authority| authority.pem.as_str()).collect();
        fs::create_dir(&below).unwrap();
        for (name, text) in [("tls.crt", &leaf.certificate), ("tls.key", &leaf.key), ("ca.crt", &authorities)]
        {
            fs::write(below.join(name), text).unwrap();
            // There already, but for the first time.
            let _ = symlink(Path::new("..data").join(name), self.0.join(name));
        }
        symlink(format!("..{version}"), &link).unwrap();
        fs::rename(&link, self.0.join("..data")).unwrap();
    }
}
