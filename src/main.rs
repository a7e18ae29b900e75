//! Chancery: an Envoy control plane.

use std::process::ExitCode;

fn main() -> ExitCode {
    chancery::cli::main(&chancery::app::ACTIONS)
}
