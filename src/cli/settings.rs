//! The flags that decide what Envoy is sent.

use std::net::IpAddr;

use clap::ArgAction;

use super::namespaced;
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Routing")]
#[group(skip)]
pub(super) struct Args {
    /// What Envoy's listeners bind
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    envoy_address: IpAddr,
    /// Port of the listener for plain HTTP
    #[arg(long, value_name = "PORT", default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    http_port: u16,
    /// Port of the listener for TLS
    #[arg(long, value_name = "PORT", default_value_t = 443, value_parser = clap::value_parser!(u16).range(1..))]
    https_port: u16,
    /// The class that is served; without an IngressClass object of that name it is ours
    #[arg(long, value_name = "NAME", default_value = "nginx")]
    ingress_class: String,
    /// Serve Ingresses that name no class
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    watch_ingress_without_class: bool,
    /// Secret with the certificate for names that have none of their own
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    default_ssl_certificate: Option<(String, String)>,
    /// ConfigMap with ingress-nginx's global settings; it need not exist
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    #[arg(default_value = "ingress-nginx/ingress-nginx-controller")]
    configmap: (String, String),
    /// How many hosts are sent to Envoy ahead of the first request; the rest are sent on demand
    #[arg(long, value_name = "HOSTS", default_value_t = 2000)]
    on_demand_threshold: usize,
    /// Let clients resume TLS sessions; then each certificate changes the listener; no effect yet
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    tls_session_resumption: bool,
    /// DNS domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = domain)]
    cluster_domain: String,
    /// Serve limits as envoyproxy/ratelimit's RateLimitConfig too, and say what is lost of them there
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    export_ratelimit_config: bool,
}

impl Args {
    /// Whether clients may resume TLS sessions.
    pub(super) fn resumes_tls(&self) -> bool {
        self.tls_session_resumption
    }

    pub(super) fn settings(self) -> Settings {
        Settings {
            http_port: self.http_port,
            https_port: self.https_port,
            envoy_address: self.envoy_address,
            ingress_class: self.ingress_class,
            watch_ingress_without_class: self.watch_ingress_without_class,
            default_ssl_certificate: self.default_ssl_certificate,
            config_map: self.configmap,
            on_demand_threshold: self.on_demand_threshold,
            cluster_domain: self.cluster_domain,
            ratelimit_config: self.export_ratelimit_config,
            ..Settings::default()
        }
    }
}

fn domain(text: &str) -> Result<String, String> {
    let domain = text.trim_matches('.').to_ascii_lowercase();
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if domain.split('.').all(label) { Ok(domain) } else { Err("expected a DNS domain".to_owned()) }
}
