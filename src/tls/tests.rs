//! Handshakes on loopback, with certificates that are made here.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with it, and its certificates begin now")]

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Leaf(String, String);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn leaf(&self, usage: ExtendedKeyUsagePurpose, from: SystemTime, to: SystemTime) -> Leaf {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        (params.not_before, params.not_after) = (from.into(), to.into());
        let key = KeyPair::generate().unwrap();
        Leaf(params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn valid(&self, usage: ExtendedKeyUsagePurpose) -> Leaf {
        self.leaf(usage, SystemTime::now() - DAY, SystemTime::now() + DAY)
    }

    fn server(&self) -> Leaf {
        self.valid(ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self) -> Leaf {
        self.valid(ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn expired(&self, usage: ExtendedKeyUsagePurpose) -> Leaf {
        self.leaf(usage, SystemTime::now() - 2 * DAY, SystemTime::now() - DAY)
    }
}

fn files(folder: &Path) -> TlsFiles {
    let at = |name| folder.join(name);
    TlsFiles { certificate: at("tls.crt"), key: at("tls.key"), authority: at("ca.crt") }
}

fn write(folder: &Path, Leaf(certificate, key): &Leaf, authorities: &[&Authority]) {
    let files = files(folder);
    fs::write(files.certificate, certificate).unwrap();
    fs::write(files.key, key).unwrap();
    fs::write(files.authority, authorities.iter().map(|it| it.pem.as_str()).collect::<String>()).unwrap();
}

/// As the kubelet exchanges a Secret's files: all at once, by the link that those of the folder go through.
fn exchange(folder: &Path, version: &str, leaf: &Leaf, authorities: &[&Authority]) {
    let (below, link) = (folder.join(version), folder.join("..data_tmp"));
    fs::create_dir(&below).unwrap();
    write(&below, leaf, authorities);
    symlink(version, &link).unwrap();
    fs::rename(&link, folder.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        // There already, but for the first time.
        let _ = symlink(Path::new("..data").join(name), folder.join(name));
    }
}

/// A server that sends back what it gets.
struct Server {
    address: SocketAddr,
    tls: MutualTls,
}

impl Server {
    async fn start(folder: &Path) -> Self {
        let (tls, mut follower) = MutualTls::open(files(folder)).unwrap();
        follower.every = Duration::from_millis(5);
        tokio::spawn(follower.run());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tls.incoming(TcpListenerStream::new(listener));
        tokio::spawn(incoming.for_each_concurrent(None, async |connection| {
            let (mut from, mut to) = tokio::io::split(connection.unwrap());
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }));
        Self { address, tls }
    }

    async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let mut state = self.tls.state.clone();
        let waited = tokio::time::timeout(Duration::from_secs(20), state.wait_for(condition)).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.tls);
    }

    /// A connection of whoever trusts an authority and shows a certificate, if it is let in.
    async fn connect(&self, trusted: &Authority, shown: Option<&Leaf>) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(Leaf(certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        echoes(&mut connection).await?;
        Ok(connection)
    }
}

/// What is refused in TLS 1.3 shows with the first byte that is read.
async fn echoes(connection: &mut TlsStream<TcpStream>) -> io::Result<()> {
    connection.write_all(b"x").await?;
    connection.flush().await?;
    connection.read_exact(&mut [0]).await.map(drop)
}

/// The serial number that the other side has shown.
fn serial(connection: &TlsStream<TcpStream>) -> String {
    serial_of(&connection.get_ref().1.peer_certificates().unwrap()[0])
}

fn serial_of(der: &CertificateDer<'_>) -> String {
    x509_parser::parse_x509_certificate(der).unwrap().1.raw_serial_as_string()
}

fn serial_in(Leaf(certificate, _): &Leaf) -> String {
    serial_of(&CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap())
}

#[tokio::test]
async fn who_is_let_in() {
    let (ours, other, folder) = (Authority::new(), Authority::new(), TempDir::new().unwrap());
    write(folder.path(), &ours.server(), &[&ours]);
    let server = Server::start(folder.path()).await;
    server.connect(&ours, Some(&ours.client())).await.unwrap();
    for (who, trusted, shown) in [
        ("without a certificate", &ours, None),
        ("with one of another authority", &ours, Some(other.client())),
        ("with an expired one", &ours, Some(ours.expired(ExtendedKeyUsagePurpose::ClientAuth))),
        ("with one for servers", &ours, Some(ours.server())),
        ("trusting another authority", &other, Some(ours.client())),
    ] {
        let error = server.connect(trusted, shown.as_ref()).await.expect_err(who);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{who}: {error}");
    }
}

#[tokio::test]
async fn an_exchange_is_seen_by_those_who_connect_after_it() {
    let (old, new, folder) = (Authority::new(), Authority::new(), TempDir::new().unwrap());
    let (first, second) = (old.server(), new.server());
    exchange(folder.path(), "..1", &first, &[&old]);
    let server = Server::start(folder.path()).await;
    let mut before = server.connect(&old, Some(&old.client())).await.unwrap();
    assert_eq!(serial(&before), serial_in(&first));

    exchange(folder.path(), "..2", &second, &[&new]);
    server.until("the new one", |state| state.identity.serial == serial_in(&second)).await;
    let after = server.connect(&new, Some(&new.client())).await.unwrap();
    assert_eq!(serial(&after), serial_in(&second));
    assert!(server.connect(&new, Some(&old.client())).await.is_err(), "its authority is gone");
    echoes(&mut before).await.unwrap();
}

#[tokio::test]
async fn a_connection_of_our_own_shows_what_the_files_hold_then() {
    let (old, new) = (Authority::new(), Authority::new());
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let (first, second) = (old.server(), new.server());
    exchange(folders[0].path(), "..1", &first, &[&old]);
    exchange(folders[1].path(), "..1", &old.client(), &[&old]);
    let server = Server::start(folders[0].path()).await;
    let client = Server::start(folders[1].path()).await;
    let port = server.address.port();
    let connect = async |host: &str| {
        let mut connection = client.tls.connect(host, port).await?;
        echoes(&mut connection).await.map(|()| connection)
    };
    assert_eq!(serial(&connect("localhost").await.unwrap()), serial_in(&first));
    let error = connect("127.0.0.1").await.expect_err("the certificate is for another name");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");

    exchange(folders[0].path(), "..2", &second, &[&new]);
    server.until("the new one", |state| state.identity.serial == serial_in(&second)).await;
    assert!(connect("localhost").await.is_err(), "neither knows the other's authority");
    let leaf = new.client();
    exchange(folders[1].path(), "..2", &leaf, &[&new]);
    client.until("the new one", |state| state.identity.serial == serial_in(&leaf)).await;
    assert_eq!(serial(&connect("localhost").await.unwrap()), serial_in(&second));
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing() {
    let (ours, folder) = (Authority::new(), TempDir::new().unwrap());
    let (good, other) = (ours.server(), ours.server());
    let half = Leaf(other.0[..other.0.len() / 2].to_owned(), other.1.clone());
    let mixed = Leaf(other.0.clone(), good.1.clone());
    let expired = ours.expired(ExtendedKeyUsagePurpose::ServerAuth);
    write(folder.path(), &good, &[&ours]);
    let server = Server::start(folder.path()).await;
    type Break<'a> = &'a dyn Fn(&TlsFiles);
    let break_by: [(&str, Break<'_>); 5] = [
        ("half written", &|_| write(folder.path(), &half, &[&ours])),
        ("of two pairs", &|_| write(folder.path(), &mixed, &[&ours])),
        ("expired", &|_| write(folder.path(), &expired, &[&ours])),
        ("without an authority", &|_| write(folder.path(), &other, &[])),
        ("gone", &|files| fs::remove_file(&files.key).unwrap()),
    ];
    for (what, broken) in break_by {
        broken(&files(folder.path()));
        server.until(what, |state| state.refused).await;
        let connection = server.connect(&ours, Some(&ours.client())).await.unwrap();
        assert_eq!(serial(&connection), serial_in(&good), "{what}");
        write(folder.path(), &good, &[&ours]);
        server.until("what was there before", |state| !state.refused).await;
    }
}

#[test]
fn errors_name_the_file_and_no_key() {
    let (ours, folder) = (Authority::new(), TempDir::new().unwrap());
    let (Leaf(certificate, key), name) = (ours.server(), |it: &str| folder.path().join(it));
    // As where lines were joined and dashes taken for something else.
    let on_one_line = key.replace('\n', "").replace("KEY-----", "KEY");
    for (file, text, reason) in [
        ("tls.crt", "", "holds no certificate"),
        ("tls.crt", &on_one_line, "is not PEM"),
        ("tls.crt", &key, "holds no certificate"),
        ("tls.key", &certificate, "is not a private key in PEM"),
        ("tls.key", &on_one_line, "is not a private key in PEM"),
        ("tls.key", &KeyPair::generate().unwrap().serialize_pem(), "does not belong to"),
        ("ca.crt", "", "holds no certificate"),
        (
            "ca.crt",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "holds what is no authority",
        ),
    ] {
        write(folder.path(), &Leaf(certificate.clone(), key.clone()), &[&ours]);
        fs::write(name(file), text).unwrap();
        let error = MutualTls::open(files(folder.path())).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} {reason}", name(file).display())), "{error}");
        let line = text.as_bytes();
        assert!(
            !error.contains(&format!("{line:?}")) && (text.len() < 50 || !error.contains(text)),
            "{error}"
        );
    }
}
