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

pub mod admin;
pub mod app;
pub mod cli;
pub mod crd;
pub mod descriptors;
pub mod features;
pub mod fleet;
pub mod model;
pub mod options;
pub mod ratelimit;
pub mod resolve;
pub mod settings;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod translate;
pub mod values;
pub mod xds;
