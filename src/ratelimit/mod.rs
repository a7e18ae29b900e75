//! The rate limit service that Envoy calls: limits, algorithms, counters.
//!
//! ```text
//! limits ──watch──→ service ─Ask→ counters ─count→ algorithms (pure)
//!  │                   ▲ └─→ decisions → debug endpoint, metrics
//!  ├─ in process, or followed from a control plane (remote)
//!  └─ a folder of YAML files (envoyproxy)
//! ```
//!
//! [`crate::model::limit`] says what a limit is and how Envoy names it.

pub mod algorithms;
mod answer;
mod calls;
pub mod counters;
pub mod decisions;
pub mod envoyproxy;
pub mod fingerprint;
pub mod http;
pub mod ietf;
pub mod metrics;
mod openai;
pub mod quota;
mod reflection;
pub mod remote;
pub mod report;
pub mod saved;
pub mod serve;
pub mod service;
mod shown;
mod subject;
mod text;
mod threads;
mod top;
