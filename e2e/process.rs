//! Programs that a case starts: each in a process group of its own, killed hard, never left behind.

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use tokio::process::{Child, Command};

/// Process groups that run now, so that an interrupted runner can end them.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// What to start, and again after a stop.
pub(crate) struct Program {
    /// What messages call it.
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) log: PathBuf,
    child: Option<Child>,
}

impl Program {
    pub(crate) fn new(name: &'static str, path: &Path, args: Vec<OsString>, folder: &Path) -> Program {
        Program { name, path: path.to_owned(), args, log: folder.join(format!("{name}.log")), child: None }
    }

    /// Starts it, its output appended to its log.
    pub(crate) fn start(&mut self) -> Result<()> {
        let log =
            OpenOptions::new().create(true).append(true).open(&self.log).context("cannot open a log")?;
        let child = Command::new(&self.path)
            .args(&self.args)
            .current_dir(self.log.parent().unwrap_or(Path::new(".")))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {} ({})", self.name, self.path.display()))?;
        register(&child);
        self.child = Some(child);
        Ok(())
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            kill_group(&child);
            child.wait().await.with_context(|| format!("waiting for {}", self.name))?;
        }
        Ok(())
    }

    /// Whether it was started and neither stopped nor ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Says how it ended, if it should run and does not.
    pub(crate) fn unexpected_end(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        Some(format!("{} ended by itself ({status}):\n{}", self.name, self.log_tail()))
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].iter().map(|line| format!("    {line}\n")).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            kill_group(child);
        }
    }
}

/// Runs a program to its end, killed with all it started when the future is dropped.
pub(crate) async fn output(mut command: Command) -> Result<std::process::Output> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", command.as_std().get_program().to_string_lossy()))?;
    let guard = Group::of(&child);
    let output = child.wait_with_output().await;
    drop(guard);
    Ok(output?)
}

struct Group(Option<i32>);

impl Group {
    fn of(child: &Child) -> Group {
        register(child);
        Group(child.id().map(u32::cast_signed))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.0.into_iter().for_each(kill);
    }
}

fn register(child: &Child) {
    if let Some(id) = child.id() {
        RUNNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(id.cast_signed());
    }
}

fn kill_group(child: &Child) {
    if let Some(id) = child.id() {
        kill(id.cast_signed());
    }
}

fn kill(id: i32) {
    RUNNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&id);
    if let Some(pid) = Pid::from_raw(id) {
        // It may be gone already.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Kills everything that still runs; for the runner's own end by a signal.
pub(crate) fn kill_all() {
    let running = std::mem::take(&mut *RUNNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    running.into_iter().for_each(kill);
}
