//! A network namespace of the runner's own, where every address that a case needs is local.

use anyhow::{Context as _, Result, bail};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Set in the process that already runs inside.
const INSIDE: &str = "CHANCERY_E2E_NAMESPACE";

/// Ways to get a namespace, best first: with a PID namespace nothing that a case started can outlive the runner.
const WAYS: [&[&str]; 4] = [
    &["--net", "--pid", "--fork", "--kill-child"],
    &["--map-root-user", "--net", "--pid", "--fork", "--kill-child"],
    &["--net"],
    &["--map-root-user", "--net"],
];

/// Returns inside of the namespace; outside of it, this process becomes `unshare` running the same command there.
pub(crate) fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return prepare();
    }
    for tool in ["unshare", "ip"] {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
            && Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        {
            bail!("`{tool}` is not installed (packages util-linux and iproute2)");
        }
    }
    let works = |way: &&&[&str]| {
        let probe = Command::new("unshare")
            .args(**way)
            .arg("true")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        probe.is_ok_and(|status| status.success())
    };
    let way = WAYS
        .iter()
        .find(works)
        .context("`unshare --net` is not permitted here, neither as root nor as a user")?;
    let program = std::env::current_exe().context("this program's own path")?;
    let failed = Command::new("unshare")
        .args(*way)
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(failed).context("cannot start unshare")
}

fn prepare() -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    // The whole block becomes local, so each echo server can have an address of its own.
    ip(&["addr", "add", "198.18.0.1/15", "dev", "lo"])?;
    // Nobody is there and nobody says so: connects time out.
    ip(&["route", "add", "192.0.2.0/24", "dev", "lo"])
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("cannot run ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
