//! Tests of the runner itself; each is named `runner::…`.

mod cases;
mod clusters;
mod formats;
mod judging;
mod objects;
mod requests;

use crate::case::Mode;
use crate::settings::Settings;
use anyhow::Result;
use libtest_mimic::{Failed, Trial};
use std::sync::Arc;
use tokio::runtime::Handle;

/// A test that needs no runtime.
type Check = (&'static str, fn() -> Result<()>);

pub(crate) fn tests(settings: &Arc<Settings>, runtime: &Handle) -> Result<Vec<Trial>> {
    let checks = formats::CHECKS.iter().chain(judging::CHECKS).map(|(name, check)| trial(name, check));
    let mut tests: Vec<Trial> = checks.collect();
    if settings.modes.contains(&Mode::Kubernetes) {
        tests.extend(clusters::tests(settings, runtime));
    }
    tests.extend(objects::tests(runtime));
    tests.extend(requests::tests(runtime));
    tests.extend(cases::tests(settings, runtime)?);
    Ok(tests)
}

fn trial(name: &str, check: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(format!("runner::{name}"), move || {
        check().map_err(|error| Failed::from(format!("{error:#}")))
    })
}
