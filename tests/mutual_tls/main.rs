//! Mutual TLS between the control plane, the rate limit service and a real Envoy: through exchanges of all certificates
//! and of the authority itself, and without a word of any key.

mod certificates;
mod keys;
#[path = "../process.rs"]
mod process;
mod rotation;
mod world;
