//! `ratelimit`: the rate limit service alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::{ArgAction, ValueEnum};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

use super::{counters, mutual_tls, redis_aliases};
use crate::options::{LimitHeaders, host_port};
use crate::ratelimit::counters::Store;
use crate::ratelimit::envoyproxy::follow::Follower;
use crate::ratelimit::envoyproxy::{Compatible, NearLimitRatio, Reading};
use crate::ratelimit::ietf::Ietf;
use crate::ratelimit::quota::Access;
use crate::ratelimit::remote::Server as ManagementServer;
use crate::ratelimit::saved::Keeper;
use crate::ratelimit::serve::{self, Calls, Kind, Listeners, Sources};
use crate::ratelimit::service::{Headers, Modes, Options};
use crate::tls::MutualTls;

/// The control plane's xDS on this machine.
const XDS: (&str, u16) = ("127.0.0.1", 18000);

type HostPort = (String, u16);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where Envoys reach it; port 0 picks one and logs it
    #[arg(long, value_name = "IP:PORT|unix:PATH", default_value = "127.0.0.1:18002")]
    ratelimit_listen: Place,
    /// Where gRPC health, /healthcheck and /metrics are listened on without TLS, for probes that know none; nowhere unless given
    #[arg(long, value_name = "IP:PORT")]
    health_listen: Option<SocketAddr>,
    /// Where /json, /rlconfig, /debug/ratelimits, /metrics and the quota API are listened on, for those who are no Envoy;
    /// nowhere unless given
    #[arg(long, value_name = "IP:PORT")]
    http_listen: Option<SocketAddr>,
    /// Folder for the counters of quotas of a day and more, so that a restart goes on with them
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How clients are told what limits have left, as --limit-headers of `serve`, which has to say the same: with ietf and both
    /// this service sends RateLimit and RateLimit-Policy, and with ietf Retry-After beside a refusal
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = LimitHeaders::Draft03, hide_possible_values = true)]
    limit_headers: LimitHeaders,
    /// File with who may ask the quota API for what keys have left, and reset or grant it: a line each, TOKEN or NAME
    /// TOKEN. Without it whoever reaches --http-listen may, if that is on loopback, and else nobody
    #[arg(long, value_name = "FILE")]
    quota_token_file: Option<PathBuf>,
    #[command(flatten)]
    tls: mutual_tls::Args,
    /// xDS of the control plane whose limits are followed, by the files of mutual TLS if they are given; 127.0.0.1:18000
    /// unless this or a folder is given
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    xds: Option<HostPort>,
    /// What it is followed for: our own limits, or envoyproxy/ratelimit's RateLimitConfig from any management server
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = XdsType::LimitSet)]
    xds_type: XdsType,
    /// Who this is to it; the host's name unless given
    #[arg(long, value_name = "ID")]
    xds_node_id: Option<String>,
    #[command(flatten)]
    redis: counters::Args,
    #[command(flatten)]
    rules: RulesArgs,
}

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Limits of envoyproxy/ratelimit")]
struct RulesArgs {
    /// Folder of its YAML files (or one file) to follow
    #[arg(long, value_name = "DIR")]
    ratelimit_config: Option<PathBuf>,
    /// Merge files of the same domain, which is an error otherwise (MERGE_DOMAIN_CONFIG)
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    merge_domain_config: bool,
    /// Count, and refuse no request (SHADOW_MODE)
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    shadow_mode: bool,
    /// Refuse a request only if all its limits are used up (QUOTA_MODE)
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    quota_mode: bool,
    /// Tell clients what is left, by the headers below (LIMIT_RESPONSE_HEADERS_ENABLED)
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    limit_response_headers: bool,
    /// The header with the requests of the limit (LIMIT_LIMIT_HEADER)
    #[arg(long, value_name = "NAME", default_value = "RateLimit-Limit", value_parser = header)]
    limit_limit_header: String,
    /// The header with what is left of them (LIMIT_REMAINING_HEADER)
    #[arg(long, value_name = "NAME", default_value = "RateLimit-Remaining", value_parser = header)]
    limit_remaining_header: String,
    /// The header with the seconds until there is more (LIMIT_RESET_HEADER)
    #[arg(long, value_name = "NAME", default_value = "RateLimit-Reset", value_parser = header)]
    limit_reset_header: String,
    /// Say in Envoy's dynamic metadata of what there is some left (RESPONSE_DYNAMIC_METADATA)
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    response_dynamic_metadata: bool,
    /// The part of a limit, from 0 to 1, from which on metrics call it near (NEAR_LIMIT_RATIO)
    #[arg(long, value_name = "RATIO", default_value = "0.8", value_parser = ratio)]
    near_limit_ratio: NearLimitRatio,
    /// What is done just as there, separated by commas: keys (joined by `_`, so that some share a counter), charge (also
    /// what is refused), probe (an addend of 0 is allowed at the limit)
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_enum, hide_possible_values = true)]
    compatible: Vec<What>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Keys,
    Charge,
    Probe,
}

/// The name of a header.
fn header(text: &str) -> Result<String, String> {
    http::HeaderName::from_str(text)
        .map(|_| text.to_owned())
        .map_err(|_| "expected a header's name".to_owned())
}

fn ratio(text: &str) -> Result<NearLimitRatio, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.map(NearLimitRatio).ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

impl RulesArgs {
    fn reading(&self) -> Reading {
        let has = |what| self.compatible.contains(&what);
        let compatible =
            Compatible { keys: has(What::Keys), charge: has(What::Charge), probe: has(What::Probe) };
        Reading { compatible, merge_domains: self.merge_domain_config }
    }

    fn options(&self) -> Options {
        let headers = Headers {
            limit: self.limit_limit_header.clone(),
            remaining: self.limit_remaining_header.clone(),
            reset: self.limit_reset_header.clone(),
        };
        Options {
            modes: Modes { shadow: self.shadow_mode, quota: self.quota_mode },
            headers: self.limit_response_headers.then_some(headers),
            metadata: self.response_dynamic_metadata,
            ietf: None,
            near_limit: self.near_limit_ratio,
        }
    }
}

/// What a management server is followed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum XdsType {
    #[value(name = "limitset")]
    LimitSet,
    #[value(name = "ratelimitconfig")]
    RateLimitConfig,
}

/// Where Envoys reach the service.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Port(SocketAddr),
    Socket(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "expected IP:PORT or unix:PATH".to_owned();
        match text.strip_prefix("unix:") {
            Some("") => Err(form()),
            Some(path) => Ok(Self::Socket(path.into())),
            None => text.parse().map(Self::Port).map_err(|_| form()),
        }
    }
}

impl Args {
    /// The control plane and the folder whose limits are followed. `config` is what `--config` names.
    fn sources(&self, config: Option<PathBuf>) -> anyhow::Result<(Option<HostPort>, Option<PathBuf>)> {
        let folder = match (&self.rules.ratelimit_config, config.filter(|path| path.is_dir())) {
            (Some(_), Some(_)) => {
                bail!("--config names a folder, and so does --ratelimit-config: give one of them")
            }
            (given, folder) => given.clone().or(folder),
        };
        let here = || (XDS.0.to_owned(), XDS.1);
        let xds = self.xds.clone().or_else(|| folder.is_none().then(here));
        if self.xds_type == XdsType::RateLimitConfig && folder.is_some() {
            bail!("--xds-type=ratelimitconfig and a folder both say the rules: give one of them");
        }
        Ok((xds, folder))
    }

    fn kind(&self) -> Kind {
        match self.xds_type {
            XdsType::LimitSet => Kind::Limits,
            XdsType::RateLimitConfig => Kind::Rules(self.rules.reading()),
        }
    }

    fn node_id(&self) -> String {
        let host = || std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
        self.xds_node_id.clone().or_else(host).unwrap_or_else(|| "ratelimit".to_owned())
    }

    /// Refuses to listen where others than those who are meant reach it.
    fn may_listen(&self, tls: bool) -> anyhow::Result<()> {
        let flags = "--xds-tls-cert, --xds-tls-key and --xds-ca";
        match &self.ratelimit_listen {
            Place::Port(address) => self.tls.may_listen(*address, tls, "the rate limit service", flags)?,
            Place::Socket(_) if tls && self.xds.is_none() => {
                bail!("a Unix socket has no mutual TLS: leave {flags} out, or give --xds")
            }
            Place::Socket(_) => {}
        }
        match self.http_listen {
            Some(address) => self.tls.may_listen(address, false, "/json", "an address on loopback"),
            None => Ok(()),
        }
    }
}

pub(super) fn execute(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let tls = args.tls.files()?.map(MutualTls::open).transpose();
    let (tls, certificates) = tls.context("cannot use the files of mutual TLS")?.unzip();
    args.may_listen(tls.is_some())?;
    let (xds, folder) = args.sources(config)?;
    let folder = folder.map(|folder| Follower::open(folder, args.rules.reading())).transpose();
    let folder = folder.context("cannot take the limits")?;
    let xds = xds.map(|(host, port)| {
        (ManagementServer { host, port, tls: tls.clone(), node_id: args.node_id() }, args.kind())
    });
    let quota =
        args.http_listen.map(|address| Access::new(args.quota_token_file, address.ip().is_loopback()));
    let quota = quota.transpose()?;
    let redis = args.redis.options()?;
    for name in redis_aliases::without_effect(|name| std::env::var(name).ok()) {
        tracing::warn!("{name} has no effect here");
    }
    if redis.is_some() && args.state_dir.is_some() {
        tracing::warn!("--state-dir has no effect: --redis-url says where counters are kept");
    }
    let keeper = args.state_dir.as_deref().filter(|_| redis.is_none()).map(Keeper::open).transpose();
    let keeper = keeper.context("cannot use the state folder")?;
    let memory = keeper.as_ref().map_or_else(Default::default, Keeper::memory);
    let sources = Sources {
        store: Store::open(redis, memory).context("cannot use --redis-url")?,
        keeper,
        xds,
        folder,
        options: Options { ietf: Ietf::of(args.limit_headers), ..args.rules.options() },
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    runtime.block_on(async {
        let calls = match &args.ratelimit_listen {
            Place::Port(address) => Calls::Tcp(listen("ratelimit", *address).await?),
            Place::Socket(path) => Calls::Unix(socket(path)?),
        };
        let health = listen_if("health", args.health_listen).await?;
        let http = listen_if("http", args.http_listen).await?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        let listeners = Listeners { calls, tls, health, http, quota };
        let following = async {
            if let Some(certificates) = certificates {
                certificates.run().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = serve::alone(listeners, sources, shutdown) => {
                served.context("the rate limit service's listener failed")?;
            }
            () = following => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn listen(service: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!(service, address = %listener.local_addr()?, "listening");
    Ok(listener)
}

async fn listen_if(service: &str, address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    match address {
        Some(address) => listen(service, address).await.map(Some),
        None => Ok(None),
    }
}

/// Listens on a socket, in place of one that nobody listens on any more.
fn socket(path: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt as _;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)
            .with_context(|| format!("cannot remove the old socket {}", path.display()))?;
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on unix:{}", path.display()))?;
    tracing::info!(service = "ratelimit", address = %format_args!("unix:{}", path.display()), "listening");
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn read(line: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from([&["ratelimit"], line].concat()).map(|line| line.args)
    }

    #[test]
    fn sources_of_limits() {
        let folder = tempfile::tempdir().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let (dir, given) = (Some(folder.path().to_owned()), Some(PathBuf::from("d")));
        let local = Some((XDS.0.to_owned(), XDS.1));
        for (line, config, expected) in [
            (&[][..], None, (local.clone(), None)),
            (&[], Some(file.path().to_owned()), (local, None)),
            (&[], dir.clone(), (None, dir.clone())),
            (&["--ratelimit-config=d"], None, (None, given.clone())),
            (&["--ratelimit-config=d", "--xds=a:1"], None, (Some(("a".into(), 1)), given)),
        ] {
            assert_eq!(read(line).unwrap().sources(config).unwrap(), expected, "{line:?}");
        }
        assert!(read(&["--ratelimit-config=d"]).unwrap().sources(dir.clone()).is_err());
        let configs = || read(&["--xds-type=ratelimitconfig"]).unwrap();
        assert!(configs().sources(dir).is_err());
        assert!(configs().sources(None).is_ok() && matches!(configs().kind(), Kind::Rules(_)));
    }

    #[test]
    fn places_to_listen() {
        let may = |line: &[&str]| read(line).unwrap().may_listen(false).is_ok();
        for (line, expected) in [
            (&["--ratelimit-listen=unix:/run/r.sock"][..], true),
            (&["--ratelimit-listen=0.0.0.0:1"], false),
            (&["--http-listen=127.0.0.1:1"], true),
            (&["--http-listen=0.0.0.0:1"], false),
            (&["--http-listen=0.0.0.0:1", "--xds-insecure"], true),
        ] {
            assert_eq!(may(line), expected, "{line:?}");
        }
        for (line, expected) in
            [(&["--ratelimit-listen=unix:r"][..], false), (&["--ratelimit-listen=unix:r", "--xds=a:1"], true)]
        {
            assert_eq!(
                read(line).unwrap().may_listen(true).is_ok(),
                expected,
                "{line:?}: no TLS on a socket"
            );
        }
        for bad in [
            "--ratelimit-listen=unix:",
            "--ratelimit-listen=r.sock",
            "--compatible=all",
            "--limit-reset-header=a b",
        ] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn rules_are_read_as_told() {
        let args = read(&["--compatible=keys,probe", "--merge-domain-config", "--quota-mode"]).unwrap();
        let compatible = Compatible { keys: true, charge: false, probe: true };
        assert_eq!(args.rules.reading(), Reading { compatible, merge_domains: true });
        assert_eq!(args.rules.options().modes, Modes { shadow: false, quota: true });
        assert_eq!(args.rules.options().headers, None);
        let args = read(&["--limit-response-headers", "--limit-reset-header=X-Reset"]).unwrap();
        let headers = args.rules.options().headers.unwrap();
        assert_eq!(
            [headers.limit, headers.remaining, headers.reset],
            ["RateLimit-Limit", "RateLimit-Remaining", "X-Reset"]
        );
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.sock");
        let first = socket(&path).unwrap();
        assert!(socket(&path).is_err(), "somebody listens");
        drop(first);
        assert!(socket(&path).is_ok());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(socket(&path).is_err(), "no socket at all");
    }
}
