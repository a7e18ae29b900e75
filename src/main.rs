//! Chancery: an Envoy control plane.

use std::process::ExitCode;

use chancery::cli::{self, Actions};

fn main() -> ExitCode {
    cli::main(&Actions {
        serve: |_| anyhow::bail!("this build holds no control plane"),
        run: |_| anyhow::bail!("this build holds no control plane"),
        compile: |_, _| anyhow::bail!("this build reads no manifests"),
    })
}
