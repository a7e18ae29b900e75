//! A Redis of a test's own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server in a folder of its own, ended with this value.
pub(crate) struct Server {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts one, and waits until it listens.
    pub(crate) fn start() -> Self {
        Self::with(|_, port| format!("port {port}\n"))
    }

    /// One with this configuration, told its folder and its port.
    pub(crate) fn with(configuration: impl FnOnce(&Path, u16) -> String) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-redis");
        let said = Command::new(script).arg("--where").output().unwrap();
        assert!(said.status.success(), "there is no redis-server: scripts/install-redis brings one");
        let path = String::from_utf8(said.stdout).unwrap();
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = folder.path().join("redis.conf");
        let common = format!("bind 127.0.0.1\ndir {}\n", folder.path().display());
        let own = configuration(folder.path(), port);
        let sentinel = own.contains("sentinel ");
        let keeps = if sentinel { "" } else { "save \"\"\nappendonly no\n" };
        fs::write(&file, format!("{common}{keeps}{own}")).unwrap();
        let mut command = Command::new(path.trim());
        command.arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        if sentinel {
            command.arg("--sentinel");
        }
        let server = Self { child: command.spawn().unwrap(), folder, port };
        server.until(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        server
    }

    /// Waits until this is so.
    #[expect(clippy::disallowed_methods, reason = "there is no runtime here whose thread it would block")]
    pub(crate) fn until(&self, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < end, "Redis does not come, in {}", self.folder.path().display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What it says to a command.
    pub(crate) fn say(&self, words: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.url()).unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut client.get_connection().unwrap()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
