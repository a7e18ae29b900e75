//! Hosts to scoped routes: which RouteConfiguration serves a host on a listener.

use envoy_types::pb::envoy::config::route::v3::ScopedRouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::Key;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::key::{Fragment, fragment};

use super::{names, version};
use crate::model::Host;
use crate::values::HostName;
use crate::xds::{Resource, Snapshot, TypeUrl};

/// The name of a host's scope on a listener.
pub fn name(host: &HostName, listener: &str) -> String {
    format!("{listener}/{host}")
}

/// The host whose scope has this [`name`].
pub fn host_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, host)| host)
}

/// Whether a snapshot serves a server name as a host of its own; so it does where a client sends none.
pub fn declares(snapshot: &Snapshot, server_name: &str) -> bool {
    let scope = || format!("{}/{server_name}", names::HTTPS);
    server_name == names::NO_SNI || snapshot.get(TypeUrl::ScopedRouteConfiguration, &scope()).is_some()
}

/// The scopes of a host. `on_demand` ones are loaded by Envoy at the first request; wildcards never are.
pub fn scoped_routes(host: &Host, on_demand: bool) -> Vec<Resource> {
    let on_demand = on_demand && !host.name.is_wildcard();
    names::LISTENERS.iter().map(|listener| scoped_route(host, listener, on_demand)).collect()
}

fn scoped_route(host: &Host, listener: &str, on_demand: bool) -> Resource {
    let fragment = |text: &str| Fragment { r#type: Some(fragment::Type::StringKey(text.to_owned())) };
    let name = name(&host.name, listener);
    let routes = super::route::name(host, listener);
    let message = ScopedRouteConfiguration {
        on_demand,
        name: name.clone(),
        route_configuration_name: routes.to_string(),
        key: Some(Key { fragments: vec![fragment(listener), fragment(host.name.as_str())] }),
        ..ScopedRouteConfiguration::default()
    };
    let version = version(&(&name, on_demand, &routes));
    Resource::new(TypeUrl::ScopedRouteConfiguration, name, version, &message).requiring([routes])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::{Update, Version};

    #[test]
    fn hosts_are_declared_and_whatever_clients_make_up_is_not() {
        let scope = |name: &str| {
            Resource::from_bytes(TypeUrl::ScopedRouteConfiguration, name, Version(1), b"").into()
        };
        let set = vec![scope("https/a.io"), scope("https/*.b.io"), scope("http/plain.io")];
        let snapshot = Snapshot::empty().apply(Update { set, remove: vec![] });
        for (name, expected) in
            [("a.io", true), ("A.io", false), ("x.b.io", false), ("plain.io", false), (names::NO_SNI, true)]
        {
            assert_eq!(declares(&snapshot, name), expected, "{name}");
        }
    }
}
