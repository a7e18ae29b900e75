//! The flags of counters that replicas share.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;

use crate::model::limit::FailureMode;
use crate::options::{RedisAddress, RedisMode, RedisOptions};

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Counters that replicas share")]
pub(super) struct Args {
    /// Redis or Valkey with the counters of limits; in this process unless given. rediss:// with TLS, several with commas
    /// between for a cluster, redis+sentinel://HOST:PORT,HOST:PORT/NAME for the one that sentinels name
    #[arg(long, value_name = "redis://HOST:PORT")]
    redis_url: Option<RedisAddress>,
    /// PEM file of the authorities that may have signed its certificate; those of the system unless given
    #[arg(long, value_name = "FILE", requires = "redis_url")]
    redis_ca: Option<PathBuf>,
    /// PEM file of our own certificate, for a Redis that asks for one. As the others, it is read for every connection
    #[arg(long, value_name = "FILE", requires_all = ["redis_url", "redis_key"])]
    redis_cert: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires_all = ["redis_url", "redis_cert"])]
    redis_key: Option<PathBuf>,
    /// Whether Redis is asked for every request, which it is unless given, or for blocks of hits that are then given out here
    #[arg(
        long,
        value_name = "exact|leased",
        value_enum,
        hide_possible_values = true,
        requires = "redis_url"
    )]
    redis_mode: Option<RedisMode>,
    /// How long an answer of Redis is waited for, in milliseconds; 8 unless given, far below the 100 that Envoy waits
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u16).range(1..), requires = "redis_url")]
    redis_timeout: Option<u16>,
    /// What becomes of requests while Redis is away and their limit does not say: counted by each replica alone, which they
    /// are unless given, let through, or answered as if the service were away
    #[arg(
        long,
        value_name = "local|open|closed",
        value_enum,
        hide_possible_values = true,
        requires = "redis_url"
    )]
    redis_failure_mode: Option<Fails>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Fails {
    Local,
    Open,
    Closed,
}

impl Args {
    pub(super) fn is_given(&self) -> bool {
        self.redis_url.is_some()
    }

    /// The Redis that is meant, if one is.
    pub(super) fn options(self) -> anyhow::Result<Option<RedisOptions>> {
        const DEADLINE_MS: u16 = 8;
        let Some(address) = self.redis_url else { return Ok(None) };
        for (flag, given) in [("--redis-ca", &self.redis_ca), ("--redis-cert", &self.redis_cert)] {
            if given.is_some() && !address.has_tls() {
                bail!("{flag} needs TLS: write --redis-url=rediss://HOST:PORT");
            }
        }
        Ok(Some(RedisOptions {
            address,
            authority: self.redis_ca,
            identity: self.redis_cert.zip(self.redis_key),
            mode: self.redis_mode.unwrap_or_default(),
            deadline: Duration::from_millis(self.redis_timeout.unwrap_or(DEADLINE_MS).into()),
            failure_mode: match self.redis_failure_mode {
                None | Some(Fails::Local) => FailureMode::Local,
                Some(Fails::Open) => FailureMode::Open,
                Some(Fails::Closed) => FailureMode::Closed,
            },
        }))
    }
}
