//! The runner of behaviour cases.
fn main() {}
