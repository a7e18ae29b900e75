//! A Redis of a test's own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A server in a folder of its own, ended with this value.
pub(crate) struct Server {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The program that `CHANCERY_TEST_REDIS` names, or the one that the script has brought.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("CHANCERY_TEST_REDIS") {
        return named.into();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-redis");
    let said = Command::new(script).arg("--where").output().unwrap();
    assert!(said.status.success(), "there is no redis-server: scripts/install-redis brings one");
    String::from_utf8(said.stdout).unwrap().trim().into()
}

/// Waits until this is so.
#[expect(clippy::disallowed_methods, reason = "there is no runtime here whose thread it would block")]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Server {
    /// Starts one, and waits until it listens.
    pub(crate) fn start() -> Self {
        Self::with(|_, port| format!("port {port}\n"))
    }

    /// One with this configuration, told its folder and its port.
    pub(crate) fn with(configuration: impl FnOnce(&Path, u16) -> String) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let common = format!("bind 127.0.0.1\ndir {}\n", folder.path().display());
        let own = configuration(folder.path(), port);
        let keeps = if own.contains("sentinel ") { "" } else { "save \"\"\nappendonly no\n" };
        fs::write(folder.path().join("redis.conf"), format!("{common}{keeps}{own}")).unwrap();
        Self { child: Self::run(folder.path(), port), folder, port }
    }

    fn run(folder: &Path, port: u16) -> Child {
        let file = folder.join("redis.conf");
        let mut command = Command::new(program());
        if fs::read_to_string(&file).unwrap().contains("sentinel ") {
            command.arg(file).arg("--sentinel");
        } else {
            command.arg(file);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        until("Redis", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, with nothing but its configuration.
    pub(crate) fn again(&mut self) {
        self.kill();
        self.child = Self::run(self.folder.path(), self.port);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
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

    /// The same as text.
    pub(crate) fn text(&self, words: &[&str]) -> String {
        redis::from_redis_value(self.say(words)).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to lose.
        self.kill();
    }
}

/// Three servers that share the slots.
pub(crate) struct Cluster(pub(crate) Vec<Server>);

impl Cluster {
    pub(crate) const SLOTS: u16 = 16_384;

    pub(crate) fn start() -> Self {
        let this = Self((0..3).map(|_| Self::server()).collect());
        let each = Self::SLOTS / 3 + 1;
        for (at, server) in (0..).zip(&this.0) {
            let (first, last) = (at * each, (at * each + each - 1).min(Self::SLOTS - 1));
            server.say(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            // So that no two have the same.
            server.say(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
        }
        for other in &this.0[1..] {
            this.meet(other);
        }
        this.until_whole();
        this
    }

    /// One that belongs to none yet. Without one of its servers a cluster goes on.
    pub(crate) fn server() -> Server {
        let bus = free_port();
        Server::with(|_, port| {
            format!(
                "port {port}\ncluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 1000\n\
                 cluster-require-full-coverage no\ncluster-replica-validity-factor 0\n"
            )
        })
    }

    /// Has another server come to it.
    pub(crate) fn meet(&self, other: &Server) {
        let config = other.text(&["CLUSTER", "NODES"]);
        let bus = config.split(['@', ' ', ',']).nth(2).unwrap();
        self.0[0].say(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), bus]);
    }

    /// Waits until each knows of each, and of all slots.
    pub(crate) fn until_whole(&self) {
        let all = format!("cluster_known_nodes:{}\r", self.0.len());
        let whole = |server: &Server| {
            let info = server.text(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok")
                && info.contains(&all)
                && info.contains("cluster_slots_ok:16384")
        };
        until("a cluster", || self.0.iter().all(whole));
    }

    pub(crate) fn url(&self) -> String {
        self.0.iter().map(Server::url).collect::<Vec<_>>().join(",")
    }

    /// The number of the slot that a name is in, and of the server that has it from the start.
    pub(crate) fn place(&self, name: &str) -> (u16, usize) {
        let slot: u16 = redis::from_redis_value(self.0[0].say(&["CLUSTER", "KEYSLOT", name])).unwrap();
        (slot, usize::from(slot / (Self::SLOTS / 3 + 1)))
    }
}
