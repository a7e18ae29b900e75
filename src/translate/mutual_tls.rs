//! Mutual TLS from Envoys to what this control plane has them connect to.
//!
//! Envoy reads the files that its bootstrap names once. What it has by SDS it reads again whenever something is moved
//! into the folder of those files, as a Secret's volume is exchanged; so the secrets that name them are files too.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::{
    ApiVersion, ConfigSource, DataSource, PathConfigSource, TransportSocket, config_source, data_source,
    transport_socket,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, Secret, SubjectAltNameMatcher,
    TlsCertificate, TlsParameters, UpstreamTlsContext, secret,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};

use crate::descriptors::pack;

const CERTIFICATE: &str = "xds-certificate";
const AUTHORITY: &str = "xds-authority";

/// Paths of PEM files, as Envoy sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Envoy's own certificate chain.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// The authority that must have signed the other side's certificate.
    pub authority: String,
}

/// Where an Envoy has its certificate from, and the authority of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// From files that are read once.
    Files(&'a Files),
    /// From the folder, as Envoy sees it, with the secrets that [`secrets`] makes.
    Secrets(&'a str),
}

/// What a folder of secrets holds: the name of each file, and the secret in it.
pub fn secrets(files: &Files) -> [(String, Secret); 2] {
    [
        (CERTIFICATE, secret::Type::TlsCertificate(certificate(files))),
        (AUTHORITY, secret::Type::ValidationContext(authority(files))),
    ]
    .map(|(name, held)| (file_name(name), Secret { name: name.to_owned(), r#type: Some(held) }))
}

/// The other side has to prove that it is `host`, a DNS name or an address.
pub fn transport_socket(host: &str, credentials: Credentials<'_>) -> TransportSocket {
    let is_address = host.parse::<IpAddr>().is_ok();
    let context = UpstreamTlsContext {
        common_tls_context: Some(common(host, is_address, credentials)),
        sni: if is_address { String::new() } else { host.to_owned() },
        ..UpstreamTlsContext::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(&context))),
    }
}

fn common(host: &str, is_address: bool, credentials: Credentials<'_>) -> CommonTlsContext {
    let name = SubjectAltNameMatcher {
        san_type: if is_address { SanType::IpAddress } else { SanType::Dns }.into(),
        matcher: Some(StringMatcher {
            match_pattern: Some(string_matcher::MatchPattern::Exact(host.to_owned())),
            ..StringMatcher::default()
        }),
        ..SubjectAltNameMatcher::default()
    };
    let with_name =
        |context| CertificateValidationContext { match_typed_subject_alt_names: vec![name], ..context };
    let mut common = CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..TlsParameters::default()
        }),
        alpn_protocols: vec!["h2".to_owned()],
        ..CommonTlsContext::default()
    };
    match credentials {
        Credentials::Files(files) => {
            common.tls_certificates = vec![certificate(files)];
            common.validation_context_type =
                Some(ValidationContextType::ValidationContext(with_name(authority(files))));
        }
        Credentials::Secrets(folder) => {
            common.tls_certificate_sds_secret_configs = vec![by_path(folder, CERTIFICATE)];
            let combined = CombinedCertificateValidationContext {
                default_validation_context: Some(with_name(CertificateValidationContext::default())),
                validation_context_sds_secret_config: Some(by_path(folder, AUTHORITY)),
                ..CombinedCertificateValidationContext::default()
            };
            common.validation_context_type = Some(ValidationContextType::CombinedValidationContext(combined));
        }
    }
    common
}

fn certificate(files: &Files) -> TlsCertificate {
    TlsCertificate {
        certificate_chain: file(&files.certificate),
        private_key: file(&files.key),
        ..TlsCertificate::default()
    }
}

fn authority(files: &Files) -> CertificateValidationContext {
    CertificateValidationContext {
        trusted_ca: file(&files.authority),
        ..CertificateValidationContext::default()
    }
}

fn file(path: &str) -> Option<DataSource> {
    let specifier = Some(data_source::Specifier::Filename(path.to_owned()));
    Some(DataSource { specifier, ..DataSource::default() })
}

fn by_path(folder: &str, name: &str) -> SdsSecretConfig {
    let path = format!("{}/{}", folder.trim_end_matches('/'), file_name(name));
    let source = PathConfigSource { path, ..PathConfigSource::default() };
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(ConfigSource {
            resource_api_version: ApiVersion::V3.into(),
            config_source_specifier: Some(config_source::ConfigSourceSpecifier::PathConfigSource(source)),
            ..ConfigSource::default()
        }),
    }
}

fn file_name(secret: &str) -> String {
    format!("{secret}.json")
}
