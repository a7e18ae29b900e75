//! What single keys have left, and what an operator does about it: look, reset, grant.
//!
//! ```text
//! chancery quota ─HTTP─┐
//! other tools ───gRPC──┴→ access → desk ─ask, give back→ counters
//!                                   └─→ grants ←─ service
//! ```
//!
//! Where replicas share counters they share grants, which [`Shared`](super::counters::redis::Shared) keeps and uses.
//!
//! Of the counters only what every store can do is asked: to look is to ask for nothing, to reset is to give back all.

mod access;
mod desk;
mod grants;
mod grpc;
mod http;

/// The messages of `proto/chancery/quota/v1`, which are the JSON of the HTTP API too.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/chancery.quota.v1.rs"));
}

pub use access::{Access, TokenError};
pub(super) use grants::{Covered, Grants};
pub use http::{Pages, router};

#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
