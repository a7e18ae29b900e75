//! The xDS transport: what Envoy is told, in which order, and what it answered.
//!
//! It knows neither Kubernetes nor the model; it could be a crate of its own. Leaves first:
//!
//! - [`Audience`], [`type_url`], [`resource`]: who is sent what; one named, versioned, encoded message, shared by all streams.
//! - [`snapshot`]: everything there is to send at one moment. Immutable, cheap to clone, and it remembers what changed.
//! - [`message`]: what a client asks and what it is answered, the same for both variants of the protocol.
//! - [`session`]: the protocol itself, one stream's state machine. Pure: no task, no socket, no clock.
//! - [`observer`]: who is told what becomes of streams.
//! - [`server`]: the thin gRPC shell around sessions, and nothing else.
//!
//! Invariants, each held by a test:
//!
//! - At most one response of a type is in flight on a stream; what changes meanwhile is merged.
//! - A resource goes again only if its version changed, or if the client subscribed to it again.
//! - A resource waits until the clusters it refers to are acknowledged (bounded by
//!   [`session::Settings::cluster_wait`]); a cluster goes only after the resources that refer to it went, and
//!   [`session::Settings::cluster_linger`] later, and a route configuration after its scopes.
//! - A rejected resource never holds up another one.
//! - A change costs each stream O(what changed), never O(what exists).

mod audience;
mod codec;
pub mod message;
pub mod observer;
pub mod resource;
pub mod server;
pub mod session;
pub mod snapshot;
pub mod type_url;

pub use audience::Audience;
pub use resource::{Resource, Version};
pub use snapshot::{Snapshot, Update};
pub use type_url::TypeUrl;
