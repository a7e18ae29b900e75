//! The model: what is routed on a host, and which object said so.

use axum::Json;
use axum::extract::State as Extract;
use serde::Deserialize;
use serde_json::{Value, json};

use super::State;
use super::error::{Error, Query};
use crate::model::Host;
use crate::values::HostName;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    host: Option<String>,
}

/// With a host, what serves it: its own scope, its wildcard's or that of every host. Without, all scopes in short.
pub(super) async fn routes(
    Extract(state): Extract<State>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Error> {
    let published = state.published.borrow().clone();
    let Some(host) = asked.host.filter(|host| !host.is_empty()) else {
        let hosts: Vec<Value> = published.hosts.values().map(|host| in_short(host)).collect();
        return Ok(Json(json!({"hosts": hosts})));
    };
    let name = scope(&host).map_err(Error::bad_request)?;
    match name.scopes().find_map(|name| published.hosts.get(&name)) {
        Some(host) => Ok(Json(json!({"host": host}))),
        None => Err(Error::not_found(format!("nothing is routed on {name}"))),
    }
}

fn in_short(host: &Host) -> Value {
    let mut origins: Vec<String> = host.origins().map(|origin| origin.object.to_string()).collect();
    origins.sort_unstable();
    origins.dedup();
    json!({"name": host.name, "routes": host.routes.len(), "backends": host.backends.len(), "objects": origins})
}

/// A host as clients write it: in any letter case, with a port or a trailing dot.
fn scope(host: &str) -> Result<HostName, &'static str> {
    let host =
        host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(host, _)| host);
    HostName::parse(host.strip_suffix('.').unwrap_or(host))
}
