//! Looks at the folder twice a second, and takes what it holds once it is whole.
//!
//! Reading is cheap, and sees every way of exchanging files: in place, by moving, or by the link `..data` through which
//! a ConfigMap's volume is exchanged. What is read twice alike is whole: nobody is writing it. What is whole and wrong
//! in any file changes nothing: the last good rules stay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::{Error, Reading, Rules};
use crate::settled::Settled;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How deep folders may be nested.
const MAX_DEPTH: usize = 32;

/// The names below the folder, with the text of each file; ordered by name.
type Files = Vec<(String, String)>;

/// Follows a folder of limits, or a single file.
#[derive(Debug)]
pub struct Follower {
    folder: PathBuf,
    reading: Reading,
    rules: watch::Sender<Arc<Rules>>,
    read: Settled<Result<Files, Error>>,
}

impl Follower {
    /// Reads a folder once. The follower has to run for a change to be seen.
    ///
    /// # Errors
    /// When it cannot be read, or holds what is wrong.
    pub fn open(folder: PathBuf, reading: Reading) -> Result<(Self, watch::Receiver<Arc<Rules>>), Error> {
        let files = read(&folder)?;
        let rules = Rules::read(&files, reading)?;
        say(&folder, &files, &rules);
        rules.stats.loaded();
        let (rules, seen) = watch::channel(Arc::new(rules));
        Ok((Self { folder, reading, rules, read: Settled::new(Ok(files)) }, seen))
    }

    /// Follows it until nobody cares.
    pub async fn run(mut self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.rules.closed() => return,
                _ = ticks.tick() => {}
            }
            let folder = self.folder.clone();
            // A volume that hangs holds up nobody's calls.
            if let Ok(read) = spawn_blocking(move || read(&folder)).await {
                self.look(read);
            }
        }
    }

    fn look(&mut self, read: Result<Files, Error>) {
        let Some(read) = self.read.read(read) else { return };
        let read = read.as_ref().map_err(Error::clone);
        match read.and_then(|files| Rules::read(files, self.reading).map(|rules| (files, rules))) {
            Ok((files, rules)) => {
                say(&self.folder, files, &rules);
                let rules = rules.continuing(&self.rules.borrow());
                rules.stats.loaded();
                self.rules.send_replace(Arc::new(rules));
            }
            Err(error) => {
                tracing::warn!("the last good limits stay: {error}");
                self.rules.borrow().stats.not_loaded();
            }
        }
    }
}

fn say(folder: &Path, files: &Files, rules: &Rules) {
    let (files, domains, limits) = (files.len(), rules.domains.len(), rules.iter().count());
    tracing::info!(folder = %folder.display(), files, domains, limits, "taken limits");
    if domains == 0 {
        tracing::warn!(
            "no limits: there is no file that ends in .yaml, .yml or .json in {}",
            folder.display()
        );
    }
}

/// Every file of a folder and of those below it, or the one file.
fn read(path: &Path) -> Result<Files, Error> {
    let error =
        |path: &Path, error: &io::Error| Error::Read { path: path.to_owned(), reason: error.to_string() };
    let mut files = Vec::new();
    if fs::metadata(path).map_err(|found| error(path, &found))?.is_dir() {
        visit(path, "", 0, &mut files, &error)?;
    } else {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((name, fs::read_to_string(path).map_err(|found| error(path, &found))?));
    }
    files.sort();
    Ok(files)
}

fn visit(
    folder: &Path,
    below: &str,
    depth: usize,
    files: &mut Files,
    error: &impl Fn(&Path, &io::Error) -> Error,
) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(|found| error(folder, &found))? {
        let path = entry.map_err(|found| error(folder, &found))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Editors leave what is hidden, and `..data` is what a ConfigMap's volume is exchanged by.
        if name.starts_with('.') {
            continue;
        }
        let is_dir = fs::metadata(&path).map_err(|found| error(&path, &found))?.is_dir();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if is_dir && depth < MAX_DEPTH {
            visit(&path, &format!("{below}{name}/"), depth + 1, files, error)?;
        } else if !is_dir && matches!(extension, Some("yaml" | "yml" | "json")) {
            let text = fs::read_to_string(&path).map_err(|found| error(&path, &found))?;
            files.push((format!("{below}{name}"), text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ratelimit::counters::Role;
    use crate::ratelimit::decisions::Decisions;

    const LIMIT: &str = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 5}}]";

    struct Folder(tempfile::TempDir, Follower, watch::Receiver<Arc<Rules>>);

    impl Folder {
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("a.yaml"), text).unwrap();
            let (follower, rules) = Follower::open(folder.path().to_owned(), Reading::default()).unwrap();
            Self(folder, follower, rules)
        }

        fn write(&self, name: &str, text: &str) {
            fs::create_dir_all(self.0.path().join(name).parent().unwrap()).unwrap();
            fs::write(self.0.path().join(name), text).unwrap();
        }

        fn look(&mut self) {
            let found = read(self.0.path());
            self.1.look(found);
        }

        fn paths(&self) -> Vec<String> {
            self.2.borrow().iter().map(|rule| rule.path.to_string()).collect()
        }
    }

    #[test]
    fn what_is_read_twice_alike_is_taken() {
        let mut folder = Folder::new(LIMIT);
        assert_eq!(folder.paths(), ["d.k"]);
        folder.write("below/b.yml", &LIMIT.replace("domain: d", "domain: e"));
        folder.write("below/c.txt", "}");
        folder.write(".hidden.yaml", "}");
        folder.look();
        assert_eq!(folder.paths(), ["d.k"], "it may still be written");
        folder.look();
        assert_eq!(folder.paths(), ["d.k", "e.k"]);
        fs::remove_file(folder.0.path().join("a.yaml")).unwrap();
        folder.look();
        folder.look();
        assert_eq!(folder.paths(), ["e.k"]);
    }

    #[test]
    fn the_last_good_rules_stay() {
        let mut folder = Folder::new(LIMIT);
        let rule = folder.2.borrow().iter().next().unwrap().clone();
        Decisions::default().count_tally(&rule.counts.tally, false, Role::Binding);
        drop(rule);
        for wrong in ["domain: [", "domain: ''", &format!("{LIMIT}\nnope: 1")] {
            folder.write("a.yaml", wrong);
            folder.look();
            folder.look();
            assert_eq!(folder.paths(), ["d.k"], "{wrong}");
        }
        let aside = folder.0.path().with_extension("aside");
        fs::rename(folder.0.path(), &aside).unwrap();
        folder.look();
        folder.look();
        assert_eq!(folder.paths(), ["d.k"], "no folder");
        fs::rename(&aside, folder.0.path()).unwrap();
        folder.write("a.yaml", &LIMIT.replace("5", "6"));
        folder.look();
        folder.look();
        let rules = folder.2.borrow().clone();
        let rule = rules.iter().next().unwrap();
        assert_eq!(rule.limit.algorithm.quota().0, 6);
        assert_eq!(rule.decided().denied, 1, "what was decided goes on");
        assert_eq!(rules.stats.loads(), (2, 4));
    }

    #[test]
    fn what_is_wrong_at_first_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| Follower::open(folder.path().join(name), Reading::default()).map(|_| ());
        assert!(open("nowhere").unwrap_err().to_string().starts_with("cannot read /"));
        fs::write(folder.path().join("a.yaml"), "domain: ''").unwrap();
        assert_eq!(open("").unwrap_err().to_string(), open("a.yaml").unwrap_err().to_string());
        fs::write(folder.path().join("a.yaml"), LIMIT).unwrap();
        assert_eq!(open("a.yaml"), Ok(()));
    }
}
