//! The addresses that the status of an Ingress shows: from the command line, or those of a Service.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::options::KubernetesOptions;

/// One of `status.loadBalancer.ingress`. They are shown in this order: by host name, then by address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Address {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) hostname: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) ip: String,
}

/// Sorted, each once.
pub(super) type Addresses = Arc<[Address]>;

fn ip(text: &str) -> Address {
    Address { ip: text.to_owned(), ..Address::default() }
}

fn named(text: &str) -> Address {
    match text.parse::<IpAddr>() {
        Ok(address) => ip(&address.to_string()),
        Err(_) => Address { hostname: text.to_owned(), ..Address::default() },
    }
}

fn sorted(mut addresses: Vec<Address>) -> Addresses {
    addresses.sort();
    addresses.dedup();
    addresses.into()
}

/// The addresses under which a Service is reached, as ingress-nginx tells them: those of its load balancer and its
/// external ones, none while the load balancer has none; of other types the external ones, else the cluster's own.
pub(super) fn of_service(service: &Service) -> Addresses {
    let Some(spec) = &service.spec else { return Arc::default() };
    let external: Vec<_> = spec.external_ips.iter().flatten().map(|address| ip(address)).collect();
    let addresses = match spec.type_.as_deref() {
        Some("ExternalName") => spec.external_name.iter().map(|name| named(name)).collect(),
        Some("LoadBalancer") => [balanced(service), external].concat(),
        _ if !external.is_empty() => external,
        _ => spec.cluster_ip.iter().filter(|address| *address != "None").map(|it| ip(it)).collect(),
    };
    sorted(addresses.into_iter().filter(|address| *address != Address::default()).collect())
}

fn balanced(service: &Service) -> Vec<Address> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let points = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let address = |hostname: &Option<String>, ip: &Option<String>| Address {
        hostname: hostname.clone().unwrap_or_default(),
        ip: ip.clone().unwrap_or_default(),
    };
    points.into_iter().flatten().map(|point| address(&point.hostname, &point.ip)).collect()
}

/// Keeps the addresses up to date; none as long as the Service was not seen. While it does not exist, the last ones
/// stay: statuses should not come and go with an object that is replaced.
pub(super) async fn follow(
    client: Client,
    options: &KubernetesOptions,
    addresses: &watch::Sender<Option<Addresses>>,
) {
    let Some((namespace, name)) = &options.publish_service else {
        let fixed = options.publish_status_addresses.iter().map(|address| named(address)).collect();
        addresses.send_replace(Some(sorted(fixed)));
        return std::future::pending().await;
    };
    let services: Api<Service> = Api::namespaced(client, namespace);
    let mut seen = pin!(watch_object(services, name).default_backoff());
    while let Some(service) = seen.next().await {
        match service {
            Ok(Some(service)) => {
                let new = Some(of_service(&service));
                addresses.send_if_modified(|old| {
                    *old != new && {
                        *old = new;
                        true
                    }
                });
            }
            Ok(None) => tracing::warn!("Service {namespace}/{name} of --publish-service does not exist"),
            Err(error) => tracing::warn!("watching Service {namespace}/{name}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(value: Value) -> Vec<String> {
        let service: Service = serde_json::from_value(value).unwrap();
        of_service(&service).iter().map(|address| format!("{}{}", address.hostname, address.ip)).collect()
    }

    #[test]
    fn of_services() {
        let balanced =
            json!({"loadBalancer": {"ingress": [{"ip": "9.9.9.9"}, {"hostname": "lb.example"}, {}]}});
        let two = json!(["8.8.8.8", "9.9.9.9"]);
        for (spec, status, expected) in [
            (json!({"clusterIP": "10.0.0.1"}), json!({}), &["10.0.0.1"][..]),
            (json!({"clusterIP": "10.0.0.1", "type": "NodePort"}), json!({}), &["10.0.0.1"]),
            (json!({"clusterIP": "10.0.0.1", "externalIPs": two}), json!({}), &["8.8.8.8", "9.9.9.9"]),
            (json!({"clusterIP": "None"}), json!({}), &[]),
            (json!({"clusterIP": "10.0.0.1", "type": "LoadBalancer"}), json!({}), &[]),
            (
                json!({"clusterIP": "10.0.0.1", "type": "LoadBalancer", "externalIPs": two}),
                balanced,
                &["8.8.8.8", "9.9.9.9", "lb.example"],
            ),
            (json!({"type": "ExternalName", "externalName": "x.example"}), json!({}), &["x.example"]),
        ] {
            assert_eq!(service(json!({"spec": spec, "status": status})), expected, "{spec} {status}");
        }
    }

    #[test]
    fn from_the_command_line() {
        assert_eq!(named("fd00:0::1"), ip("fd00::1"));
        assert_eq!(named("lb.example").hostname, "lb.example");
    }
}
