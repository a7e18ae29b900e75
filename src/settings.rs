//! What the pure core takes from the command line: plain data, with the defaults of `serve`.

use std::net::{IpAddr, Ipv4Addr};

/// The part of the configuration that decides what Envoy is sent. Equal settings and equal objects give equal
/// resources. A resource's version is a hash of what it is made of, so a setting is in the versions of the resources that
/// it decides, and changes no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The port of the listener for plain HTTP.
    pub http_port: u16,
    /// The port of the listener for TLS.
    pub https_port: u16,
    /// What Envoy's listeners bind; `0.0.0.0` is every address.
    pub envoy_address: IpAddr,
    /// The name of the class that is ours without an IngressClass object of that name.
    pub ingress_class: String,
    /// The IngressClass controllers that are ours.
    pub controllers: Vec<String>,
    /// Whether an Ingress without any class is ours.
    pub watch_ingress_without_class: bool,
    /// Namespace and name of the Secret for names that have no certificate of their own.
    pub default_ssl_certificate: Option<(String, String)>,
    /// Namespace and name of the ConfigMap with ingress-nginx's global settings; it need not exist.
    pub config_map: (String, String),
    /// How many hosts are sent to Envoy ahead of the first request for them; the rest are sent on demand.
    pub on_demand_threshold: usize,
    /// The DNS domain of the cluster, without dots at its ends.
    pub cluster_domain: String,
    /// How Envoys reach the rate limit service; none switches limits off.
    pub ratelimit: Option<RateLimitService>,
    /// Whether limits are served as envoyproxy/ratelimit has them too, and what is lost there is told.
    pub ratelimit_config: bool,
    /// Whether Envoy tells clients what limits have left, by x-ratelimit-* and retry-after.
    pub envoy_limit_headers: bool,
    /// Whether requests are refused while their limit cannot be asked for and does not say what becomes of them.
    pub limits_fail_closed: bool,
}

/// How Envoys reach the rate limit service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateLimitService {
    /// A DNS name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The folder, as Envoys see it, with their secrets for mutual TLS; none means plain.
    pub secrets: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            http_port: 80,
            https_port: 443,
            envoy_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ingress_class: "nginx".into(),
            controllers: vec!["k8s.io/ingress-nginx".into(), "chancery.dev/ingress".into()],
            watch_ingress_without_class: false,
            default_ssl_certificate: None,
            config_map: ("ingress-nginx".into(), "ingress-nginx-controller".into()),
            on_demand_threshold: 2000,
            cluster_domain: "cluster.local".into(),
            ratelimit: None,
            ratelimit_config: false,
            envoy_limit_headers: true,
            limits_fail_closed: false,
        }
    }
}
