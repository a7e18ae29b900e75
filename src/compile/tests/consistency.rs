//! What holds for every snapshot: whatever a resource refers to is there, and nothing is there that nobody refers to.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::scoped_route_configuration::key::fragment;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, ScopedRouteConfiguration};
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::LuaPerRoute;
use envoy_types::pb::google::protobuf::value::Kind;
use prost::Message;

use crate::compile::Published;
use crate::messages::ratelimit::LimitSet;
use crate::model::limit::Limit;
use crate::settings::Settings;
use crate::translate::names;
use crate::xds::{Snapshot, TypeUrl};

type Names = BTreeSet<String>;

fn decoded<M: Message + Default>(snapshot: &Snapshot, type_url: TypeUrl) -> Vec<(String, M)> {
    let decode = |resource: &std::sync::Arc<crate::xds::Resource>| {
        (resource.name().to_string(), M::decode(resource.body()).unwrap())
    };
    snapshot.iter(type_url).map(decode).collect()
}

fn names_of(snapshot: &Snapshot, type_url: TypeUrl) -> Names {
    snapshot.iter(type_url).map(|resource| resource.name().to_string()).collect()
}

/// Panics where anything does not hold.
pub(super) fn check(published: &Published, settings: &Settings) {
    let snapshot = &published.snapshot;
    for type_url in TypeUrl::ALL.into_iter().filter(|type_url| *type_url != TypeUrl::Secret) {
        assert!(snapshot.get(type_url, "*").is_none(), "to delta xDS the {type_url} of name * means all");
    }
    assert!(
        snapshot.get(TypeUrl::Secret, names::DEFAULT_SECRET).is_some(),
        "a certificate for all other names"
    );
    assert_eq!(names_of(snapshot, TypeUrl::Listener), Names::from(names::LISTENERS.map(str::to_owned)));
    let clusters = clusters(snapshot);
    let used = route_configurations(snapshot);
    assert_eq!(clusters, used.into_iter().chain([names::RATE_LIMIT_CLUSTER.to_owned()]).collect::<Names>());
    scopes(published, settings);
    fallback(published);
    limits(published);
}

/// All clusters; their endpoints are there.
fn clusters(snapshot: &Snapshot) -> Names {
    let mut endpoints = Names::new();
    for (name, cluster) in decoded::<Cluster>(snapshot, TypeUrl::Cluster) {
        assert_eq!(cluster.name, name);
        // Without a name of its own the endpoint set is asked for by the cluster's.
        let eds = cluster.eds_cluster_config.map(|eds| {
            assert_eq!(eds.service_name, "");
            name.clone()
        });
        assert!(eds.is_some() || cluster.load_assignment.is_some(), "{name} has endpoints from somewhere");
        endpoints.extend(eds);
    }
    assert_eq!(endpoints, names_of(snapshot, TypeUrl::ClusterLoadAssignment), "endpoint sets");
    for (name, set) in decoded::<ClusterLoadAssignment>(snapshot, TypeUrl::ClusterLoadAssignment) {
        assert_eq!(set.cluster_name, name);
    }
    names_of(snapshot, TypeUrl::Cluster)
}

/// The clusters that routes name, each of which its RouteConfiguration says to require.
fn route_configurations(snapshot: &Snapshot) -> Names {
    let mut used = Names::new();
    for resource in snapshot.iter(TypeUrl::RouteConfiguration) {
        let message = RouteConfiguration::decode(resource.body()).unwrap();
        assert_eq!(message.name, **resource.name());
        let required: Names = resource.requires().iter().map(ToString::to_string).collect();
        let [host] = &message.virtual_hosts[..] else { panic!("{} is of one host", message.name) };
        for route in &host.routes {
            // The fallback filter knows by the name that a route was found.
            assert!(!route.name.is_empty(), "{}: a route without a name", message.name);
            // What takes preflights names a cluster that there must not be, and nothing requires.
            for cluster in route_clusters(route).into_iter().filter(|name| name != names::NO_CLUSTER) {
                assert!(required.contains(&cluster), "{}: {cluster} is not required", message.name);
            }
        }
        let last = host.routes.last().unwrap_or_else(|| panic!("{} has a route", message.name));
        assert!(takes_all(last), "{}: {} does not take all that is left", message.name, last.name);
        used.extend(required);
    }
    used
}

fn route_clusters(route: &Route) -> Names {
    let mut clusters = auth_cluster(route);
    let Some(Action::Route(action)) = &route.action else {
        assert!(route.action.is_some(), "{} has no action", route.name);
        return clusters;
    };
    clusters.extend(action.request_mirror_policies.iter().map(|policy| policy.cluster.clone()));
    match action.cluster_specifier.as_ref() {
        Some(ClusterSpecifier::Cluster(name)) => {
            clusters.insert(name.clone());
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let weights = || weighted.clusters.iter().map(|cluster| cluster.weight.map_or(0, |w| w.value));
            let sum: u64 = weights().map(u64::from).sum();
            assert!((1..=u64::from(u32::MAX)).contains(&sum), "{}: Envoy takes no sum of {sum}", route.name);
            clusters.extend(weighted.clusters.iter().map(|cluster| cluster.name.clone()));
        }
        other => panic!("{}: {other:?}", route.name),
    }
    clusters
}

/// The cluster that is asked whether to let a request in.
fn auth_cluster(route: &Route) -> Names {
    let config = route.typed_per_filter_config.get(names::EXTERNAL_AUTH);
    let context = config.and_then(|any| LuaPerRoute::decode(&*any.value).unwrap().filter_context);
    let cluster = context.map(|context| match &context.fields["cluster"].kind {
        Some(Kind::StringValue(name)) => name.clone(),
        other => panic!("{}: {other:?}", route.name),
    });
    cluster.into_iter().collect()
}

fn takes_all(route: &Route) -> bool {
    let matches = route.r#match.as_ref().unwrap();
    let anything = match &matches.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        _ => false,
    };
    anything
        && matches.headers.is_empty()
        && matches.query_parameters.is_empty()
        && matches.cookies.is_empty()
}

/// Two scopes a host, each with routes, and no routes without a scope; the oldest hosts are not on demand.
fn scopes(published: &Published, settings: &Settings) {
    let snapshot = &published.snapshot;
    let mut hosts: Vec<_> = published.hosts.values().filter(|host| !host.name.is_wildcard()).collect();
    hosts.sort_by(|a, b| (&a.age, &a.name).cmp(&(&b.age, &b.name)));
    let on_demand: Names =
        hosts.iter().skip(settings.on_demand_threshold).map(|host| host.name.to_string()).collect();

    let (mut keys, mut referred) = (Names::new(), Names::new());
    for (name, scope) in decoded::<ScopedRouteConfiguration>(snapshot, TypeUrl::ScopedRouteConfiguration) {
        assert_eq!(scope.name, name);
        let fragments = scope.key.map(|key| key.fragments).unwrap_or_default();
        let text = |at: usize| match &fragments[at].r#type {
            Some(fragment::Type::StringKey(text)) => text.as_str(),
            None => panic!("{name}: a fragment without a text"),
        };
        assert!(keys.insert(format!("{} {}", text(0), text(1))), "{name}: its key stands twice");
        assert_eq!(scope.on_demand, on_demand.contains(text(1)), "{name}: on demand");
        referred.insert(scope.route_configuration_name);
    }
    let wanted = published.hosts.keys().flat_map(|host| names::LISTENERS.map(|on| format!("{on} {host}")));
    assert_eq!(keys, wanted.collect::<Names>(), "scopes");
    assert_eq!(referred, names_of(snapshot, TypeUrl::RouteConfiguration), "route configurations");
}

/// Wildcards are looked for while there is one.
fn fallback(published: &Published) {
    let resource = published.snapshot.get(TypeUrl::TypedExtensionConfig, names::FALLBACK).unwrap();
    let message = TypedExtensionConfig::decode(resource.body()).unwrap();
    let looks = message.typed_config.unwrap().type_url.ends_with("Lua");
    assert_eq!(looks, published.hosts.keys().any(|host| host.is_wildcard()));
}

/// The limits that are in force are those that routes name.
fn limits(published: &Published) {
    let routes = published.hosts.values().flat_map(|host| &host.routes);
    let named: Names =
        routes.flat_map(|route| &route.effects.rate_limits).map(|limit| limit.id.to_string()).collect();
    let in_force: Names = published.limits.iter().map(|limit| limit.id.to_string()).collect();
    assert!(named.is_subset(&in_force), "{named:?} are named, {in_force:?} are in force");
    let of_hosts: Names =
        published.hosts.values().flat_map(|host| &host.limits).map(|limit| limit.id.to_string()).collect();
    assert_eq!(in_force, of_hosts);
    assert_eq!(in_force, names_of(&published.snapshot, TypeUrl::LimitSet));
    for (id, set) in decoded::<LimitSet>(&published.snapshot, TypeUrl::LimitSet) {
        let sent: Vec<_> = set.limits.into_iter().map(|limit| Limit::try_from(limit).unwrap()).collect();
        assert_eq!(sent.iter().collect::<Vec<_>>(), [published.limits.get(&id).unwrap()]);
    }
}
