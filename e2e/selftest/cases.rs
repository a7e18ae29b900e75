//! Cases about the runner. Those in `fail` must fail, at the step and for the reason that the `.expect` file beside each
//! names: its first line says `step N`, every further line is contained in what the runner reports.

use super::trial;
use crate::case::{Case, Mode};
use crate::run::{self, Failure};
use crate::settings::Settings;
use crate::suite::case_files;
use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::Trial;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;

pub(super) fn tests(settings: &Arc<Settings>, runtime: &Handle) -> Result<Vec<Trial>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/runner-cases");
    let mut tests = Vec::new();
    for file in case_files(&folder)? {
        let case = Arc::new(Case::load(&file).with_context(|| format!("{}", file.display()))?);
        for mode in settings.modes.iter().filter(|mode| case.runs_in(**mode)) {
            tests.push(test(&file, case.clone(), *mode, settings, runtime));
        }
    }
    Ok(tests)
}

fn test(file: &Path, case: Arc<Case>, mode: Mode, settings: &Arc<Settings>, runtime: &Handle) -> Trial {
    let must_fail = file.parent().is_some_and(|folder| folder.ends_with("fail"));
    let verdict = if must_fail { "fail" } else { "pass" };
    let name = format!("{mode}::{verdict}::{}", file.file_stem().unwrap_or_default().display());
    let (file, settings, runtime) = (file.to_owned(), settings.clone(), runtime.clone());
    trial(&name.clone(), move || {
        let name = format!("runner::{name}");
        let ended = runtime.block_on(run::run(&case, &name, mode, &settings));
        match must_fail {
            true => check_failure(&file, ended, &settings),
            false => ended.map_err(|failure| anyhow::anyhow!("{failure}")),
        }
    })
}

fn check_failure(file: &Path, ended: Result<(), Failure>, settings: &Settings) -> Result<()> {
    let expected = file.with_extension("expect");
    let expected =
        std::fs::read_to_string(&expected).with_context(|| format!("cannot read {}", expected.display()))?;
    let mut lines = expected.lines();
    let step =
        lines.next().and_then(|line| line.strip_prefix("step ")).context("the first line says `step N`")?;
    let step: usize = step.parse()?;
    let Err(failure) = ended else {
        bail!("the case passes, but must fail");
    };
    ensure!(failure.step == Some(step - 1), "the case must fail at step {step}, but: {failure}");
    let told = failure.to_string();
    for line in lines {
        ensure!(told.contains(line), "the failure must say `{line}`, but: {failure}");
    }
    // Its folder would be kept, as that of a failed case.
    if !settings.keep {
        std::fs::remove_dir_all(&failure.folder)?;
    }
    Ok(())
}
