//! Where objects come from: a Kubernetes API server, or a folder of manifests.
//!
//! Both only read. They turn what they see into the same [`Change`](crate::store::Change)s, by the same table of
//! [`kinds`], so that nothing behind them can tell where an object came from.

pub mod files;
pub mod kinds;
pub mod kubernetes;
mod protobuf;
pub mod read;
pub mod unrouted;
pub mod yaml;
