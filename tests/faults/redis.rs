//! Two rate limit services that share counters, and a Redis that goes away: nobody waits for it, and what was counted
//! without it is not forgotten.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::process::{Program, ask, free_port, get, until};

pub(crate) const LIMIT: u64 = 100_000;

/// A Redis that may be stopped and started again, always empty, at the same port.
pub(crate) struct Redis {
    program: Option<Program>,
    pub(crate) port: u16,
    more: String,
    folder: tempfile::TempDir,
}

impl Redis {
    fn start() -> Self {
        Self::with("")
    }

    /// One with more in its configuration; a sentinel, if that speaks of one.
    pub(crate) fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut this = Self { program: None, port: free_port(), more: more.to_owned(), folder };
        this.run();
        this
    }

    fn run(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-redis");
        let said = Command::new(script).arg("--where").output().unwrap();
        assert!(said.status.success(), "there is no redis-server: scripts/install-redis brings one");
        let sentinel = self.more.contains("sentinel ");
        let keeps = if sentinel { "" } else { "save \"\"\nappendonly no\n" };
        let (port, folder) = (self.port, self.folder.path().display());
        let file = self.folder.path().join("redis.conf");
        fs::write(&file, format!("bind 127.0.0.1\nport {port}\ndir {folder}\n{keeps}{}", self.more)).unwrap();
        let mut command = Command::new(String::from_utf8(said.stdout).unwrap().trim());
        command.arg(file).args(sentinel.then_some("--sentinel"));
        self.program = Some(Program::start(&mut command, self.folder.path().join("redis.log")));
        until("Redis", || std::net::TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    pub(crate) fn kill(&mut self) {
        drop(self.program.take());
    }

    /// What it says to a command.
    pub(crate) fn say(&self, words: &[&str]) -> redis::Value {
        let client = redis::Client::open(("127.0.0.1", self.port)).unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut client.get_connection().unwrap()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        let id = self.program.as_ref().unwrap().id();
        kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
    }
}

pub(crate) struct Service {
    pub(crate) program: Program,
    pub(crate) http: u16,
    _folder: tempfile::TempDir,
}

impl Service {
    fn start(redis: &Redis, more: &[&str]) -> Self {
        Self::at(&format!("redis://127.0.0.1:{}", redis.port), more)
    }

    pub(crate) fn at(redis: &str, more: &[&str]) -> Self {
        let (folder, http) = (tempfile::tempdir().unwrap(), free_port());
        let rules = format!(
            "domain: d\ndescriptors:\n- {{key: k, rate_limit: {{unit: year, requests_per_unit: {LIMIT}}}}}\n"
        );
        fs::create_dir(folder.path().join("rules")).unwrap();
        fs::write(folder.path().join("rules/d.yaml"), rules).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chancery"));
        command.arg("ratelimit").arg("--ratelimit-config").arg(folder.path().join("rules"));
        command.args(["--ratelimit-listen=127.0.0.1:0", &format!("--http-listen=127.0.0.1:{http}")]);
        // More than enough on a machine that does much else; the default is for one that does not.
        command.arg("--redis-timeout=200");
        command.arg(format!("--redis-url={redis}")).args(more);
        let program = Program::start(&mut command, folder.path().join("log"));
        until("the service", || get(http, "/healthcheck"));
        Self { program, http, _folder: folder }
    }

    /// Asks for so many hits: the status, and how many are left.
    pub(crate) fn take(&self, hits: u64) -> (u16, u64) {
        let body = format!(
            r#"{{"domain": "d", "descriptors": [{{"entries": [{{"key": "k"}}], "hitsAddend": {hits}}}]}}"#
        );
        let answer = ask(
            self.http,
            &format!(
                "POST /json HTTP/1.1\r\nHost: it\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        );
        let answer = answer.expect("an answer");
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let json = answer.split_once("\r\n\r\n").unwrap().1;
        let json: Value = serde_json::from_str(json).unwrap_or_default();
        (status, json["statuses"][0]["limitRemaining"].as_u64().unwrap_or(0))
    }

    /// How often it has connected.
    pub(crate) fn connections(&self) -> usize {
        self.program.said().matches("counters are shared").count()
    }

    pub(crate) fn until_connected(&self, times: usize) {
        until("a connection to Redis", || (self.connections() >= times).then_some(()));
    }

    fn until_left(&self, left: u64) {
        let mut last = 0;
        until(&format!("{left} left"), || {
            let now = self.take(0).1;
            if now != last {
                println!("{now} left");
                last = now;
            }
            (now == left).then_some(())
        });
    }
}

/// Requests of both services while something happens, which is told how many there have been so far; every one is let
/// through. Returns how many.
pub(crate) fn under_load(services: &[&Service], what: impl FnOnce(&AtomicU64)) -> u64 {
    let (end, all) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (end, all) = (&end, &all);
        let load: Vec<_> = services
            .iter()
            .map(|service| {
                scope.spawn(move || {
                    while !end.load(Ordering::Relaxed) {
                        assert_eq!(service.take(1).0, 200);
                        all.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        what(all);
        end.store(true, Ordering::Relaxed);
        load.into_iter().for_each(|load| load.join().unwrap());
    });
    all.into_inner()
}

#[test]
fn a_redis_that_is_killed_under_load() {
    let mut redis = Redis::start();
    let (one, two) = (Service::start(&redis, &[]), Service::start(&redis, &[]));
    [&one, &two].iter().for_each(|service| service.until_connected(1));
    one.take(10);
    assert_eq!(two.take(0).1, LIMIT - 10, "counters are shared");
    under_load(&[&one, &two], |_| {
        redis.kill();
        [&one, &two].iter().for_each(|service| {
            until("that Redis is missed", || service.program.said().contains("decided here").then_some(()))
        });
    });
    // Each goes on from what it knew.
    let known = one.take(0).1;
    assert!(known <= LIMIT - 10, "{known}");
    assert_eq!(one.take(7), (200, known - 7));
    redis.run();
    [&one, &two].iter().for_each(|service| service.until_connected(2));
    let told = LIMIT - one.take(0).1;
    assert!(told >= 7, "what was counted meanwhile is known: {told}");
    one.take(5);
    two.until_left(LIMIT - told - 5);
}

#[test]
fn a_redis_that_does_not_answer() {
    let redis = Redis::start();
    let (one, closed) =
        (Service::start(&redis, &[]), Service::start(&redis, &["--redis-failure-mode=closed"]));
    [&one, &closed].iter().for_each(|service| service.until_connected(1));
    assert_eq!((one.take(1).0, closed.take(1).0), (200, 200));
    redis.signal(Signal::STOP);
    for _ in 0..50 {
        assert_eq!((one.take(1).0, closed.take(1).0), (200, 500));
    }
    redis.signal(Signal::CONT);
    [&one, &closed].iter().for_each(|service| service.until_connected(2));
    let left = one.take(0).1;
    // What was asked while it did not answer may have been counted there and not be told again.
    assert!((LIMIT - 2 - 2 * 50..=LIMIT - 2 - 40).contains(&left), "{left}");
    closed.until_left(left);
}

#[test]
fn blocks_of_two_services_are_no_more_than_the_limit() {
    let redis = Redis::start();
    let lent = ["--redis-mode=leased"];
    let (one, two) = (Service::start(&redis, &lent), Service::start(&redis, &lent));
    [&one, &two].iter().for_each(|service| service.until_connected(1));
    one.take(LIMIT - 400);
    let allowed = std::thread::scope(|scope| {
        let load = [&one, &two]
            .map(|service| scope.spawn(move || (0..500).filter(|_| service.take(1).0 == 200).count()));
        load.map(|load| load.join().unwrap()).iter().sum::<usize>()
    });
    assert!(allowed <= 400, "{allowed}");
    // What one has of a block that it does not use comes back.
    until("the whole limit", || (one.take(1).0 != 200 && two.take(1).0 != 200).then_some(()));
    let back = until("a block that is given back", || Some(one.take(0).1).filter(|left| *left == 0));
    assert_eq!(back, 0);
}
