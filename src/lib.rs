//! Chancery is a control plane for Envoy.
//!
//! ```text
//! kube API ─watch→ source ─Change→ store ─View→ resolve ─(model, findings)→ translate ─resources→ xds snapshot
//!    files ─watch→   "                             │                                                 │
//!                                      admin ←─────┴────────── fleet ←ACK/NACK── xds session × N ⇄ Envoy
//!                                                    limits → ratelimit ⇄ Envoy
//! ```
//!
//! Read the modules in the order below: leaves first, edges last.

pub mod values;
pub mod features;
pub mod messages;
pub mod model;
pub mod crd;
pub mod clock;
mod parallel;
mod settled;
mod exposition;
pub mod descriptors;
pub mod store;
pub mod source;
pub mod settings;
pub mod options;
pub mod resolve;
pub mod translate;
pub mod xds;
pub mod compile;
pub mod fleet;
pub mod state;
pub mod status;
pub mod tls;
pub mod ratelimit;
pub mod admin;
pub mod telemetry;
pub mod app;
pub mod cli;

#[cfg(test)]
mod architecture_tests;
