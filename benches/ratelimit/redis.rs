//! The Redis that contenders share, one for a whole run.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use super::client;
use super::contender::{listens, pinned};
use super::process::{Process, free_address};

pub(crate) struct Redis {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    _folder: tempfile::TempDir,
}

impl Redis {
    /// In memory alone, on the client's core, so that the service that is measured has its own.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (folder, address) = (tempfile::tempdir()?, free_address()?);
        let mut command = pinned(client::CORE);
        command.arg(installed("install-redis")?).args(["--bind", "127.0.0.1", "--port"]);
        command.arg(address.port().to_string()).args(["--save", "", "--appendonly", "no"]);
        let mut process = Process::start("Redis", command, &folder.path().join("log"))?;
        listens("Redis", &mut process, address)?;
        Ok(Self { address, process, _folder: folder })
    }

    /// Forgets what others have counted.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        let mut connection = TcpStream::connect(self.address)?;
        connection.write_all(b"FLUSHALL\r\n")?;
        let mut said = [0; 5];
        connection.read_exact(&mut said)?;
        anyhow::ensure!(&said == b"+OK\r\n", "Redis does not forget: {}", String::from_utf8_lossy(&said));
        Ok(())
    }
}

/// Where the script of this name has put its program.
pub(crate) fn installed(script: &str) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script);
    let output = Command::new(path).arg("--where").output().context("cannot run a script")?;
    anyhow::ensure!(output.status.success(), "a contender is missing: scripts/{script} brings it");
    Ok(String::from_utf8(output.stdout)?.trim().into())
}
