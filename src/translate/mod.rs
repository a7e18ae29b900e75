//! Model to Envoy resources. Pure: no IO, no clock, no randomness.

pub mod bootstrap;
