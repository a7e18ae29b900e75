//! The command line, one file a subcommand.
//!
//! Every flag has an environment variable, `CHANCERY_` and the flag's name, and is a key of the file that `--config`
//! names. What stands on the command line goes before the environment, that before the file, and that before the
//! default. `ratelimit` also takes the variables of envoyproxy/ratelimit.

mod aliases;
mod bootstrap;
mod check;
mod client;
mod config;
mod counters;
mod memory;
mod mutual_tls;
mod output;
mod quota;
mod ratelimit;
mod redis_aliases;
mod run;
mod serve;
mod settings;
mod status;
mod translate;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::options::{RunOptions, ServeOptions};
use crate::settings::Settings;
use crate::telemetry::{self, Format};
use crate::values::Finding;
use crate::xds::Snapshot;

pub use memory::memory_limit;

/// What the commands call, so that the command line knows nothing of how the parts are put together.
#[derive(Clone, Copy)]
pub struct Actions {
    /// Is the control plane, until it is told to end.
    pub serve: fn(ServeOptions) -> anyhow::Result<()>,
    /// Is the control plane and runs an Envoy beside it, until it is told to end.
    pub run: fn(RunOptions) -> anyhow::Result<()>,
    /// Compiles files and folders of manifests; fails where a path cannot be read at all.
    pub compile: fn(Settings, &[PathBuf]) -> anyhow::Result<Compiled>,
}

/// What manifests were compiled to.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The resources.
    pub snapshot: Arc<Snapshot>,
    /// Everything that was found.
    pub findings: Vec<Finding>,
    /// Those of them, as text, that say why a file, a document or an object could not be read.
    pub unreadable: Vec<String>,
}

/// An Envoy control plane for Kubernetes Ingress and Istio VirtualService.
#[derive(Debug, Parser)]
#[command(name = "chancery", version, max_term_width = 110)]
struct Cli {
    /// YAML file whose keys are the names of flags, for what is said neither here nor in the environment; for `ratelimit`
    /// also a folder, which is that of its --ratelimit-config
    #[arg(long, global = true, value_name = "FILE|DIR", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// error, warn, info, debug, trace, or a filter such as info,chancery::xds=debug; info unless given, warn for
    /// commands that print and end
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Global options")]
    #[arg(env = "CHANCERY_LOG", hide_env_values = true)]
    log_level: Option<String>,
    /// How log lines look, text or json; they go to standard error
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Global options")]
    #[arg(value_enum, default_value_t = Format::Text, hide_possible_values = true)]
    log_format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be the control plane: follow Kubernetes or a folder of manifests, and tell Envoys
    Serve(Box<serve::Args>),
    /// The same for a folder of manifests, with an Envoy beside it: everything on one machine
    Run(Box<run::Args>),
    /// Print what Envoy would be sent for these manifests
    Translate(translate::Args),
    /// Print what is wrong, approximated or ignored in these manifests
    Check(check::Args),
    /// Print the connected Envoys, what each has acknowledged and what is behind or rejected
    Status(status::Args),
    /// Print an Envoy bootstrap for this control plane
    Bootstrap(bootstrap::Args),
    /// Print what keys have left of their limits, and reset or grant it
    Quota(quota::Args),
    /// Be the rate limit service alone
    Ratelimit(Box<ratelimit::Args>),
}

/// Does what the arguments of this process say.
pub fn main(actions: &Actions) -> ExitCode {
    let cli = match parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(Refused::Usage(error)) => error.exit(),
        Err(Refused::Config(error)) => {
            output::error(&error);
            return ExitCode::from(2);
        }
    };
    let level = cli.log_level.as_deref().unwrap_or(cli.command.log_level());
    match telemetry::init(level, cli.log_format)
        .map_err(anyhow::Error::from)
        .and_then(|()| cli.command.execute(actions, cli.config))
    {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

impl Command {
    /// What is logged unless told otherwise.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) | Self::Run(_) | Self::Ratelimit(_) => "info",
            Self::Translate(_) | Self::Check(_) | Self::Status(_) | Self::Bootstrap(_) | Self::Quota(_) => {
                "warn"
            }
        }
    }

    fn execute(self, actions: &Actions, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve(args) => (actions.serve)(args.options()?).map(|()| ExitCode::SUCCESS),
            Self::Run(args) => (actions.run)(args.options()?).map(|()| ExitCode::SUCCESS),
            Self::Translate(args) => translate::execute(args, actions.compile),
            Self::Check(args) => check::execute(args, actions.compile),
            Self::Status(args) => status::execute(&args),
            Self::Bootstrap(args) => bootstrap::execute(args),
            Self::Quota(args) => quota::execute(&args),
            Self::Ratelimit(args) => ratelimit::execute(*args, config),
        }
    }
}

/// Why the arguments are not taken.
#[derive(Debug)]
enum Refused {
    /// They are not as described, or ask for the description.
    Usage(clap::Error),
    /// The file that they name is not as described.
    Config(anyhow::Error),
}

/// The arguments are read twice: first to learn of the subcommand and the file, then with the file's values in place
/// of the defaults.
fn parse(args: Vec<OsString>) -> Result<Cli, Refused> {
    parse_with(args, |name| std::env::var(name).ok())
}

fn parse_with(args: Vec<OsString>, variable: impl Fn(&str) -> Option<String>) -> Result<Cli, Refused> {
    let mut command = command();
    if let Ok(matches) = lenient(command.clone()).try_get_matches_from(&args)
        && let Some(subcommand) = matches.subcommand_name()
    {
        let file = matches.get_one::<PathBuf>("config");
        if let Some(file) = file.filter(|file| !(subcommand == "ratelimit" && file.is_dir())) {
            command = config::apply(command, subcommand, file).map_err(Refused::Config)?;
        }
        if subcommand == "ratelimit" {
            command = config::with_defaults(command, subcommand, &aliases::values(&variable));
            // Our own address goes before theirs, and then what they say of it has no meaning.
            let said = matches.subcommand().and_then(|(_, said)| said.value_source("redis_url"));
            if said.is_none_or(|source| source == ValueSource::DefaultValue) {
                let values = redis_aliases::values(variable).map_err(Refused::Config)?;
                command = config::with_defaults(command, subcommand, &values);
            }
        }
    }
    let matches = command.clone().try_get_matches_from(args).map_err(Refused::Usage)?;
    Cli::from_arg_matches(&matches).map_err(|error| Refused::Usage(error.format(&mut command)))
}

/// The whole command line: what is derived, `run`'s own defaults, and a variable for every flag.
fn command() -> clap::Command {
    Cli::command()
        .mut_subcommand("run", run::defaults)
        .mut_args(variable)
        .mut_subcommands(|c| c.mut_args(variable).mut_subcommands(|c| c.mut_args(variable)))
}

fn variable(arg: clap::Arg) -> clap::Arg {
    match arg.get_long() {
        Some(long) if arg.get_env().is_none() => {
            let name = format!("CHANCERY_{}", long.replace('-', "_").to_ascii_uppercase());
            arg.env(name).hide_env_values(true)
        }
        _ => arg,
    }
}

/// The same command line with nothing required, since a file may say it.
fn lenient(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| arg.required(false)).mut_subcommands(|c| {
        c.mut_args(|arg| arg.required(false)).subcommand_required(false).arg_required_else_help(false)
    })
}

/// Namespace and name of `NAMESPACE/NAME`.
fn namespaced(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

/// An address or host name as the status of an Ingress may show it, trimmed.
fn address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        is_end(bytes.first())
            && is_end(bytes.last())
            && bytes.len() <= 63
            && bytes.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    let is_name = || text.len() <= 253 && text.split('.').all(is_label);
    match text.parse::<std::net::IpAddr>().is_ok() || is_name() {
        true => Ok(text.to_owned()),
        false => Err("expected an IP address or a host name in lower case".to_owned()),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
