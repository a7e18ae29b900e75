//! The filter that finds wildcard hosts where no host of the exact name is.
//!
//! Scope keys are exact. Where no route was found, the scopes of the wildcards that cover the host are tried, the
//! longest first, then `*`; a route that was found is told by its name, which every route has. It is delivered by
//! ECDS, and does nothing while there is no wildcard host and no rule without a host: no listener changes when one
//! comes or goes.

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::HeaderMutation;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::Lua;

use super::{names, version};
use crate::descriptors::pack;
use crate::xds::{Resource, TypeUrl};

/// Tries the scopes of wildcards: `*.` and the parent for one label, `**.` and each further parent, then `*`.
const SCRIPT: &str = r#"
local function found(handle, scope)
  handle:headers():replace("x-chancery-scope", scope)
  handle:clearRouteCache()
  -- Asking for the route's metadata is what makes Envoy look for the route again.
  handle:metadata()
  local name = handle:streamInfo():routeName()
  return name ~= nil and name ~= ""
end

function envoy_on_request(handle)
  local name = handle:streamInfo():routeName()
  if name ~= nil and name ~= "" then return end
  local host = string.match(handle:headers():get("x-chancery-scope") or "", "^([^:]*)")
  local prefix = "*."
  local dot = string.find(host, ".", 1, true)
  while dot do
    host = string.sub(host, dot + 1)
    if host ~= "" and found(handle, prefix .. host) then return end
    prefix = "**."
    dot = string.find(host, ".", 1, true)
  end
  found(handle, "*")
end
"#;

/// The filter as it should be: trying wildcards, or doing nothing.
pub fn extension_config(wildcards: bool) -> Resource {
    let typed_config = if wildcards {
        let specifier = Some(Specifier::InlineString(SCRIPT.trim_start().to_owned()));
        let source = DataSource { specifier, ..DataSource::default() };
        pack(&Lua { default_source_code: Some(source), ..Lua::default() })
    } else {
        pack(&HeaderMutation::default())
    };
    let message = TypedExtensionConfig { name: names::FALLBACK.to_owned(), typed_config: Some(typed_config) };
    Resource::new(TypeUrl::TypedExtensionConfig, names::FALLBACK, version(&(SCRIPT, wildcards)), &message)
}
