//! The runner of behaviour cases: every case file is a test that sends real requests through a real Envoy.
//!
//! ```text
//! case ─ what a file says          run ─ one case: world (processes), steps, flow (`during`), scale, command
//! manifest, cluster ─ objects      client ─ sends requests     echo ─ answers them     expect ─ judges the answers
//! ```
//!
//! `cargo test --test e2e -- FILTER` runs cases; the variables `E2E_*` are in `settings`.

#![allow(
    clippy::disallowed_methods,
    reason = "the runner is an edge: it reads clocks, and its tasks end with it"
)]

mod backends;
mod case;
mod certs;
mod client;
mod cluster;
mod echo;
mod expect;
mod geoip;
mod manifest;
mod netns;
mod process;
mod run;
mod selftest;
mod settings;
mod suite;
mod yaml;
mod yaml_de;

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Conclusion};
use settings::Settings;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    match run() {
        Ok(conclusion) => conclusion.exit_code(),
        Err(error) => {
            eprintln!("e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Conclusion> {
    let mut args = Arguments::from_args();
    let settings = Arc::new(Settings::from_env()?);
    if !args.list {
        netns::enter()?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start tokio")?;
    runtime.spawn(end_on_signal());
    args.test_threads = args.test_threads.or(settings.jobs);
    let tests = suite::tests(&settings, runtime.handle())?;
    let conclusion = libtest_mimic::run(&args, tests);
    // The API servers wait for further cases.
    process::kill_all();
    Ok(conclusion)
}

/// Takes everything that was started along when the runner itself is ended.
async fn end_on_signal() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    process::kill_all();
    std::process::exit(130);
}
