//! Model to Envoy resources. Pure: no IO, no clock, no randomness.
//!
//! One function for each resource that changes alone. A resource's version is a hash of everything that the function
//! read, so equal input gives equal versions on every replica.

pub mod bootstrap;
pub mod cluster;
mod cost;
#[cfg(test)]
mod deprecation_tests;
pub mod endpoint;
mod external_auth;
pub mod fallback;
pub mod filters;
#[cfg(test)]
mod golden_tests;
mod jwt;
mod late;
pub mod limit_set;
pub mod limits;
pub mod listener;
pub mod mutual_tls;
pub mod names;
pub mod proto;
pub mod rate_limit_config;
pub mod route;
mod route_effects;
pub mod scope;
pub mod secret;
pub mod stand_in;
#[cfg(test)]
mod version_tests;

use std::hash::Hash;

use crate::values::hash;
use crate::xds::{Version, session};

/// How sessions serve what is made here.
pub fn sessions() -> session::Settings {
    session::Settings {
        default_secret: Some(names::DEFAULT_SECRET),
        declares: scope::declares,
        stand_in: stand_in::stand_in,
        ..session::Settings::default()
    }
}

/// Raised whenever a function here makes something else of equal input, so that Envoys are sent the new form.
const REVISION: u32 = 5;

/// The version of what is made of this input.
pub(crate) fn version<T: Hash + ?Sized>(input: &T) -> Version {
    Version(hash::stable(&(REVISION, input)))
}
