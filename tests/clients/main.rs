//! Clients of someone else's making, as people use them, through a real API server: kubectl and the Python client. What they do is
//! seen through a real Envoy, and what they show is what Chancery wrote.

#[path = "../cluster/mod.rs"]
mod cluster;
mod kubectl;
mod models;
// An API server takes no EndpointSlice of loopback addresses, so models need others, which no machine must have.
#[path = "../../e2e/netns.rs"]
mod netns;
mod python;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let args = Arguments::from_args();
    if !args.list
        && let Err(error) = netns::enter()
    {
        eprintln!("clients: {error:#}");
        return ExitCode::FAILURE;
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    libtest_mimic::run(&args, vec![trial("kubectl", kubectl::test), trial("python", python::test)])
        .exit_code()
}
