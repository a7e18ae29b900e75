//! Runs one case from its start to its end.

mod command;
mod flow;
mod scale;
mod steps;
mod world;

use crate::case::{Case, Mode};
use crate::settings::Settings;
use std::fmt;
use std::path::PathBuf;
use steps::Runner;
use world::World;

/// How a case failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The failing step, counted from 0; none if the case could not start.
    pub(crate) step: Option<usize>,
    /// Whether an expecting step had held before.
    pub(crate) after_success: bool,
    text: String,
    /// Where the logs are.
    pub(crate) folder: PathBuf,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  logs: {}", self.text, self.folder.display())
    }
}

/// Runs `case`; `name` is its test's.
pub(crate) async fn run(case: &Case, name: &str, mode: Mode, settings: &Settings) -> Result<(), Failure> {
    let folder = settings.work.join(name.replace(['/', ':'], "_"));
    let failure = |step, after_success, text| Failure { step, after_success, text, folder: folder.clone() };
    let mut world = match World::start(case, mode, &folder, settings).await {
        Ok(world) => world,
        Err(error) => return Err(failure(None, false, format!("the case cannot start: {error:#}"))),
    };
    let mut runner = Runner::new(case, &mut world);
    let result = runner.run().await;
    let after_success = runner.has_held();
    if result.is_err() || settings.keep {
        world.dump().await;
    }
    world.stop().await;
    match result {
        Ok(()) => {
            if !settings.keep {
                // A left folder harms nobody.
                let _ = std::fs::remove_dir_all(&folder);
            }
            Ok(())
        }
        Err((step, text)) => Err(failure(Some(step), after_success, text)),
    }
}
