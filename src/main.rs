//! Chancery: an Envoy control plane.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// A listing and its compilation allocate much on several threads and free most of it again, which the arenas of glibc's
/// allocator keep. Its settings are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    chancery::cli::main(&chancery::app::ACTIONS)
}
