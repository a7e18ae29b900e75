//! What every kind of routing object becomes before it becomes Envoy resources.
//!
//! Every node remembers the object and field that it came from, so that nobody has to guess.

pub mod backend;
pub mod host;
pub mod limit;
pub mod route;
pub mod tls;

pub use backend::{Backend, Endpoint, EndpointSet, EndpointSetKey, Endpoints, Health};
pub use host::Host;
pub use route::{Action, Destination, Match, PathMatch, Route};
pub use tls::SecretRef;

pub use crate::values::certificate::Certificate;
