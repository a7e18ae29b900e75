//! The servers that are compared, each a process with one core.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use serde::{Deserialize, Serialize};
use tonic::{Request, Response, Status};

use super::process::{Process, free_address};

/// The core of the server.
const CORE: &str = "0";
/// How long a server may take to listen, with all its rules.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    Noop,
    Chancery,
    Limitador,
}

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Noop => "no decision",
            Self::Chancery => "Chancery",
            Self::Limitador => "limitador 0.14",
        }
    }
}

/// A server that answers.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(contender: Contender, rules: usize, limitador: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = free_address()?;
        let mut command = pinned(CORE);
        match contender {
            Contender::Noop => command.arg(std::env::current_exe()?).args(["--noop", &address.to_string()]),
            Contender::Chancery => {
                std::fs::write(folder.path().join("rules.yaml"), yaml(rules))?;
                command.args([env!("CARGO_BIN_EXE_chancery"), "ratelimit", "--ratelimit-config"]);
                command.arg(folder.path()).args(["--ratelimit-listen", &address.to_string()])
            }
            Contender::Limitador => command.arg(limitador).args([address.to_string(), rules.to_string()]),
        };
        let log = folder.path().join("log");
        let mut process = Process::start(contender.name(), command, &log)?;
        let late = Instant::now() + STARTS_WITHIN;
        while std::net::TcpStream::connect(address).is_err() {
            process.check().with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
            if Instant::now() > late {
                bail!("{} does not listen", contender.name());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { address, process, _folder: folder })
    }
}

/// A command on one core alone.
pub(crate) fn pinned(core: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]);
    command
}

/// A rule for each route, and in it a counter for each user.
fn yaml(rules: usize) -> String {
    let rule = |rule| {
        format!(
            "- key: route\n  value: r{rule}\n  descriptors:\n  - key: user\n    rate_limit: {{unit: hour, requests_per_unit: 1000000000}}\n"
        )
    };
    "domain: bench\ndescriptors:\n".to_owned() + &(0..rules).map(rule).collect::<String>()
}

/// Builds limitador behind the same server as ours, in a workspace of its own and as optimized as this bench is.
pub(crate) fn build_limitador() -> anyhow::Result<PathBuf> {
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
    Ok(tokio::runtime::Runtime::new()?.block_on(server.serve(address))?)
}
