//! Chancery: an Envoy control plane.
fn main() {}
