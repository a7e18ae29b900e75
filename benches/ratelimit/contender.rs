//! The servers that are compared, each a process with one core.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tonic::{Request, Response, Status};

use super::kept::Contender;
use super::process::{Process, free_address};
use super::redis::{Redis, installed};

/// The core of the server.
pub(crate) const CORE: &str = "0";
/// How long a server may take to listen, with all its rules.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// What contenders need, for a whole run.
pub(crate) struct Tools {
    limitador: PathBuf,
    envoyproxy: PathBuf,
    pub(crate) redis: Redis,
}

impl Tools {
    pub(crate) fn get() -> anyhow::Result<Self> {
        let envoyproxy = installed("install-envoyproxy-ratelimit")?;
        let redis = Redis::start()?;
        Ok(Self { limitador: build_limitador()?, envoyproxy, redis })
    }
}

/// A server that listens.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(contender: Contender, rules: u64, tools: &Tools) -> anyhow::Result<Self> {
        Self::with(contender.name(), |address, folder| command(contender, rules, tools, address, folder))
    }

    /// Chancery with the counters of one rule in this Redis, on any core and at defaults but for what holds without it.
    pub(crate) fn at_defaults(redis: SocketAddr, failure_mode: &str) -> anyhow::Result<Self> {
        Self::with("Chancery", |address, folder| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
            command.args(["ratelimit", "--ratelimit-config"]).arg(write(1, folder)?);
            command.args(["--ratelimit-listen", &address.to_string()]);
            command.args(["--redis-url", &format!("redis://{redis}"), "--redis-failure-mode", failure_mode]);
            Ok(command)
        })
    }

    fn with(
        name: &'static str,
        command: impl FnOnce(SocketAddr, &Path) -> anyhow::Result<Command>,
    ) -> anyhow::Result<Self> {
        let (folder, address) = (tempfile::tempdir()?, free_address()?);
        let command = command(address, folder.path())?;
        let mut process = Process::start(name, command, &folder.path().join("log"))?;
        listens(name, &mut process, address)?;
        Ok(Self { address, process, _folder: folder })
    }
}

/// Waits until it does.
pub(crate) fn listens(name: &str, process: &mut Process, address: SocketAddr) -> anyhow::Result<()> {
    let late = Instant::now() + STARTS_WITHIN;
    while TcpStream::connect(address).is_err() {
        process.check()?;
        if Instant::now() > late {
            bail!("{name} does not listen");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn command(
    contender: Contender,
    rules: u64,
    tools: &Tools,
    address: SocketAddr,
    folder: &Path,
) -> anyhow::Result<Command> {
    let mut command = pinned(CORE);
    match contender {
        Contender::Noop => {
            command.arg(std::env::current_exe()?).args(["--noop", &address.to_string()]);
        }
        Contender::Limitador => {
            command.arg(&tools.limitador).args([address.to_string(), rules.to_string()]);
        }
        Contender::Envoyproxy => {
            command.arg(&tools.envoyproxy);
            envoyproxy(&mut command, address, tools.redis.address, &write(rules, folder)?)?;
        }
        Contender::Memory | Contender::Exact | Contender::Leased => {
            command.args([env!("CARGO_BIN_EXE_chancery"), "ratelimit", "--ratelimit-config"]);
            command.arg(write(rules, folder)?).args(["--ratelimit-listen", &address.to_string()]);
        }
    }
    if let Contender::Exact | Contender::Leased = contender {
        let mode = if contender == Contender::Exact { "exact" } else { "leased" };
        command.args(["--redis-url", &format!("redis://{}", tools.redis.address), "--redis-mode", mode]);
        // Nothing is counted without Redis: a busy one is waited for, and one that is not there ends the bench.
        command.args(["--redis-timeout", "1000", "--redis-failure-mode", "closed"]);
    }
    Ok(command)
}

/// As it is by default, but for what it would say beside its answers.
fn envoyproxy(
    command: &mut Command,
    address: SocketAddr,
    redis: SocketAddr,
    rules: &Path,
) -> anyhow::Result<()> {
    let [http, debug] = [free_address()?, free_address()?].map(|address| address.port().to_string());
    command.env("RUNTIME_ROOT", rules.parent().context("a folder")?).env("RUNTIME_SUBDIRECTORY", ".");
    command
        .env("RUNTIME_APPDIRECTORY", rules.file_name().context("a folder")?)
        .env("RUNTIME_WATCH_ROOT", "false");
    command.envs([("HOST", "127.0.0.1"), ("GRPC_HOST", "127.0.0.1"), ("DEBUG_HOST", "127.0.0.1")]);
    command.env("GRPC_PORT", address.port().to_string()).env("PORT", http).env("DEBUG_PORT", debug);
    command.envs([("USE_STATSD", "false"), ("DISABLE_STATS", "true"), ("LOG_LEVEL", "error")]);
    command.env("REDIS_SOCKET_TYPE", "tcp").env("REDIS_URL", redis.to_string());
    Ok(())
}

/// A command on one core alone.
pub(crate) fn pinned(core: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]);
    command
}

/// The rules in a folder of their own, below this one.
fn write(rules: u64, folder: &Path) -> anyhow::Result<PathBuf> {
    let folder = folder.join("rules");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("rules.yaml"), yaml(rules))?;
    Ok(folder)
}

/// A rule for each route, and in it a counter for each user.
fn yaml(rules: u64) -> String {
    let rule = |rule| {
        format!(
            "- key: route\n  value: r{rule}\n  descriptors:\n  - key: user\n    rate_limit: {{unit: minute, requests_per_unit: 1000000000}}\n"
        )
    };
    "domain: bench\ndescriptors:\n".to_owned() + &(0..rules).map(rule).collect::<String>()
}

/// Builds limitador behind the same server as ours, in a workspace of its own and as optimized as this bench is.
fn build_limitador() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("limitador");
    let (profile, folder) = if cfg!(debug_assertions) { ("dev", "debug") } else { ("release", "release") };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--profile", profile, "--locked", "--manifest-path"])
        .arg(root.join("benches/limitador/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !status.success() {
        bail!("limitador cannot be built: {status}");
    }
    Ok(target.join(folder).join("limitador-service"))
}

struct Noop;

#[tonic::async_trait]
impl RateLimitService for Noop {
    async fn should_rate_limit(
        &self,
        _: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        Ok(Response::new(RateLimitResponse { overall_code: Code::Ok.into(), ..RateLimitResponse::default() }))
    }
}

/// The server that decides nothing.
pub(crate) fn noop(address: SocketAddr) -> anyhow::Result<()> {
    let server = tonic::transport::Server::builder().add_service(RateLimitServiceServer::new(Noop));
    // As Chancery does: a thread that answers what it reads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(server.serve(address))?)
}
