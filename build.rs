//! Builds the descriptor set of the Envoy types that the debug endpoint prints.
fn main() {}
