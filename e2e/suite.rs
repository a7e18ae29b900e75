//! Which tests there are: a test a case file, and the runner's own.

use crate::case::{Case, Mode};
use crate::run::{self, Failure};
use crate::selftest;
use crate::settings::Settings;
use anyhow::{Context as _, Result, bail};
use libtest_mimic::{Completion, Failed, Trial};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Handle;

/// All tests of a run.
pub(crate) fn tests(settings: &Arc<Settings>, runtime: &Handle) -> Result<Vec<Trial>> {
    let files = case_files(&settings.cases)?;
    if files.is_empty() {
        bail!("there is no case in {}", settings.cases.display());
    }
    let mut tests = Vec::new();
    let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
    for file in files {
        let case = Case::load(&file).and_then(|case| match names.insert(case.name.clone(), file.clone()) {
            Some(other) => bail!("name: `{}` is the name of {} too", case.name, other.display()),
            None => Ok(Arc::new(case)),
        });
        let case = case.map_err(|error| format!("{}: {error:#}", file.display()));
        for mode in &settings.modes {
            tests.push(test(&file, case.clone(), *mode, settings, runtime));
        }
    }
    if !settings.only_cases {
        tests.extend(selftest::tests(settings, runtime)?);
    }
    Ok(tests)
}

fn test(
    file: &Path,
    case: Result<Arc<Case>, String>,
    mode: Mode,
    settings: &Arc<Settings>,
    runtime: &Handle,
) -> Trial {
    let path = file.strip_prefix(&settings.cases).unwrap_or(file).with_extension("");
    let name = format!("{mode}::{}", path.display());
    let (settings, runtime) = (settings.clone(), runtime.clone());
    Trial::ignorable_test(name.clone(), move || {
        let case = case?;
        if !case.runs_in(mode) {
            let reason = case.reason.as_deref().unwrap_or("no reason is given");
            return Ok(Completion::ignored_with(format!("not in this mode: {reason}")));
        }
        let result = runtime.block_on(run::run(&case, &name, mode, &settings));
        verdict(result, settings.expect_failure)
    })
}

/// Turns the result around where failure is expected; a case that cannot start, or whose first expecting step fails
/// already, shows nothing about its checks.
fn verdict(result: Result<(), Failure>, expect_failure: bool) -> Result<Completion, Failed> {
    match (result, expect_failure) {
        (Ok(()), false) => Ok(Completion::Completed),
        (Err(failure), false) => Err(failure.to_string().into()),
        (Ok(()), true) => Err("the case passes, but must fail".into()),
        (Err(failure), true) if failure.step.is_some() && failure.after_success => Ok(Completion::Completed),
        (Err(failure), true) => {
            Err(format!("the case must fail, but after a step that holds: {failure}").into())
        }
    }
}

/// Every `*.yaml` below a folder, but those whose name begins with `_`, in order.
pub(crate) fn case_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(case_files(&path)?);
        } else if name.ends_with(".yaml") && !name.starts_with('_') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
