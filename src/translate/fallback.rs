//! The filter that finds wildcard hosts where no host of the exact name is.
//!
//! Scope keys are exact. Where no route was found, the scope of the wildcard that covers the host with one label is
//! tried; a route that was found is told by its name, which every route has. Else it is the longest of the wildcards
//! that cover any depth (Istio's), else `*`. The filter is delivered by ECDS, and does nothing while there is no
//! wildcard host and no rule without a host: no listener changes when one comes or goes.
//!
//! Envoy's Lua lets a script look for a route again only once a request, which is why it knows the deep wildcards by
//! name. There are few of them.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::HeaderMutation;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::Lua;

use super::{names, version};
use crate::descriptors::pack;
use crate::values::HostName;
use crate::xds::{Resource, TypeUrl};

/// Comes after a line that sets `deep`. Tries what [`HostName::scopes`] names, but for the host itself.
const SCRIPT: &str = r#"
local function go(handle, scope)
  handle:headers():replace("x-chancery-scope", scope)
  handle:clearRouteCache()
end

function envoy_on_request(handle)
  local name = handle:streamInfo():routeName()
  if name ~= nil and name ~= "" then return end
  local authority = handle:headers():get("x-chancery-scope") or ""
  local host = string.match(authority, "^%[.*%]") or string.match(authority, "^[^:]*")
  -- For redirects: Envoy has no other way to tell the host without its port.
  handle:streamInfo():dynamicMetadata():set("chancery", "host", host)
  local dot = string.find(host, ".", 1, true)
  if dot then
    host = string.sub(host, dot + 1)
    go(handle, "*." .. host)
    -- Asking for the route's metadata is what makes Envoy look for the route again.
    handle:metadata()
    name = handle:streamInfo():routeName()
    if name ~= nil and name ~= "" then return end
    dot = string.find(host, ".", 1, true)
  end
  while dot do
    host = string.sub(host, dot + 1)
    if deep[host] then return go(handle, "**." .. host) end
    dot = string.find(host, ".", 1, true)
  end
  go(handle, "*")
end
"#;

/// The filter as it should be: trying wildcards, or doing nothing.
///
/// `deep` are the scopes of wildcards that cover any depth.
pub fn extension_config(wildcards: bool, deep: &BTreeSet<HostName>) -> Resource {
    let typed_config = if wildcards {
        let parents = deep.iter().filter_map(|host| host.as_str().strip_prefix("**."));
        let entries: Vec<_> = parents.map(|parent| format!("[\"{parent}\"]=true")).collect();
        let script = format!("local deep = {{{}}}\n{SCRIPT}", entries.join(", "));
        let specifier = Some(Specifier::InlineString(script));
        let source = DataSource { specifier, ..DataSource::default() };
        pack(&Lua { default_source_code: Some(source), ..Lua::default() })
    } else {
        pack(&HeaderMutation::default())
    };
    let message = TypedExtensionConfig { name: names::FALLBACK.to_owned(), typed_config: Some(typed_config) };
    Resource::new(
        TypeUrl::TypedExtensionConfig,
        names::FALLBACK,
        version(&(SCRIPT, wildcards, deep)),
        &message,
    )
}
