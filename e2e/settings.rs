//! What the environment says about a run.

use crate::case::Mode;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A run's settings, from `E2E_*` variables.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `E2E_CASES`: the folder of cases.
    pub(crate) cases: PathBuf,
    /// Whether `E2E_CASES` was given; then only those cases run.
    pub(crate) only_cases: bool,
    /// `E2E_MODE`.
    pub(crate) modes: Vec<Mode>,
    /// `E2E_ENVOY`.
    pub(crate) envoy: PathBuf,
    /// `E2E_CHANCERY`: another binary than the one just built.
    pub(crate) chancery: PathBuf,
    /// `E2E_JOBS`: cases at once; the number of cores unless given.
    pub(crate) jobs: Option<usize>,
    /// `E2E_KEEP`: keep the working folders of cases that pass, too.
    pub(crate) keep: bool,
    /// Where kube-apiserver and etcd are: `KUBEBUILDER_ASSETS`, or where they were built.
    pub(crate) kube_assets: Option<PathBuf>,
    /// The Redis of cases that ask for one; none where none is installed.
    pub(crate) redis: Option<PathBuf>,
    /// `E2E_EXPECT=fail`: every case must fail, after a step of it has held.
    pub(crate) expect_failure: bool,
    /// Where working folders are made.
    pub(crate) work: PathBuf,
}

impl Settings {
    pub(crate) fn from_env() -> Result<Settings> {
        let project = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let modes = modes(&text("E2E_MODE")?)?;
        let cases = variable("E2E_CASES");
        Ok(Settings {
            only_cases: cases.is_some(),
            cases: absolute(cases.map_or(project.join("e2e/cases"), PathBuf::from))?,
            kube_assets: if modes.contains(&Mode::Kubernetes) { kube_assets(&project)? } else { None },
            modes,
            envoy: absolute(variable("E2E_ENVOY").map_or(project.join("tools/envoy/envoy"), PathBuf::from))?,
            chancery: absolute(
                variable("E2E_CHANCERY").map_or(env!("CARGO_BIN_EXE_chancery").into(), PathBuf::from),
            )?,
            jobs: match text("E2E_JOBS")?.as_str() {
                "" => None,
                number => {
                    Some(number.parse().with_context(|| format!("E2E_JOBS: `{number}` is not a number"))?)
                }
            },
            redis: redis(&project)?,
            keep: !matches!(text("E2E_KEEP")?.as_str(), "" | "0" | "false"),
            expect_failure: match text("E2E_EXPECT")?.as_str() {
                "" | "pass" => false,
                "fail" => true,
                other => bail!("E2E_EXPECT: `{other}` is neither pass nor fail"),
            },
            work: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("e2e"),
        })
    }
}

fn modes(text: &str) -> Result<Vec<Mode>> {
    match text {
        "files" => Ok(vec![Mode::Files]),
        "kubernetes" => Ok(vec![Mode::Kubernetes]),
        "" | "all" => Ok(vec![Mode::Files, Mode::Kubernetes]),
        other => bail!("E2E_MODE: `{other}` is none of files, kubernetes, all"),
    }
}

/// The script knows which Redis is meant.
fn redis(project: &Path) -> Result<Option<PathBuf>> {
    let script = project.join("scripts/install-redis");
    let said = Command::new(&script).arg("--where").output();
    let said = said.with_context(|| format!("cannot run {}", script.display()))?;
    let path = String::from_utf8(said.stdout).context("scripts/install-redis printed no path")?;
    Ok(said.status.success().then(|| path.trim().into()))
}

/// The script knows where it keeps what it has built.
fn kube_assets(project: &Path) -> Result<Option<PathBuf>> {
    if let Some(assets) = variable("KUBEBUILDER_ASSETS") {
        return Ok(Some(absolute(assets.into())?));
    }
    let script = project.join("scripts/install-kube-apiserver");
    let said = Command::new(&script).arg("--where").output();
    let said = said.with_context(|| format!("cannot run {}", script.display()))?;
    let path = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    Ok(said.status.success().then(|| path.into()))
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn text(name: &str) -> Result<String> {
    let value = variable(name).unwrap_or_default();
    value.into_string().map_err(|value| anyhow::anyhow!("{name}: {value:?} is not text"))
}

/// Programs run in folders of their own.
fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("{}", path.display()))
}
