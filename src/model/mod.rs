//! What every kind of routing object becomes before it becomes Envoy resources.

pub mod limit;
