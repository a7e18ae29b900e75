#![allow(clippy::disallowed_methods, reason = "a test's tasks end with it")]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::store::Object;
use crate::values::Finding;

/// Long enough for the slowest machine: nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder that is followed, and what was told of it.
struct Followed {
    folder: TempDir,
    inbox: mpsc::Receiver<Vec<Change>>,
    objects: BTreeMap<String, String>,
    findings: BTreeMap<Arc<str>, Vec<Finding>>,
    ready: bool,
}

impl Followed {
    /// Follows `below` a folder that was made by `prepare`.
    async fn start(below: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let (sender, inbox) = mpsc::channel(16);
        tokio::spawn(follow(folder.path().join(below), sender));
        let mut followed =
            Followed { folder, inbox, objects: BTreeMap::new(), findings: BTreeMap::new(), ready: false };
        followed.until(|followed| followed.ready).await;
        followed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Takes changes in until a condition holds.
    async fn until(&mut self, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            let changes = match timeout(PATIENCE, self.inbox.recv()).await {
                Ok(changes) => changes.expect("the follower ended"),
                Err(_) => panic!("nothing is told: {:?} {:?}", self.objects, self.findings),
            };
            changes.into_iter().for_each(|change| self.take(change));
        }
    }

    /// Takes changes in until the objects are these, `name=text` each.
    async fn until_objects(&mut self, expected: &[&str]) {
        let objects = |followed: &Self| -> Vec<String> {
            followed.objects.iter().map(|(name, text)| format!("{name}={text}")).collect()
        };
        self.until(|followed| objects(followed) == expected).await;
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Applied(applied) => {
                let Object::ConfigMap(map) = applied.object.clone() else { panic!() };
                let text = map.data.unwrap_or_default().remove("x").unwrap_or_default();
                self.objects.insert(map.metadata.name.unwrap(), text);
            }
            Change::Deleted(key) => assert!(self.objects.remove(&*key.name).is_some()),
            Change::Findings { place, findings } => drop(self.findings.insert(place, findings)),
            Change::Ready => self.ready = true,
            Change::Listed(..) => panic!(),
        }
    }
}

fn map(name: &str, text: &str) -> String {
    format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{x: '{text}'}}}}\n")
}

#[tokio::test]
async fn files_that_come_change_and_go() {
    let mut followed = Followed::start("", |folder| {
        fs::create_dir(folder.join("sub")).unwrap();
        fs::write(folder.join("a.yaml"), map("a", "1")).unwrap();
        fs::write(
            folder.join("sub/b.json"),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}"#,
        )
        .unwrap();
        fs::write(folder.join("readme.txt"), "a: [").unwrap();
        fs::write(folder.join(".hidden.yaml"), map("hidden", "1")).unwrap();
    })
    .await;
    followed.until_objects(&["a=1", "b="]).await;
    followed.write("a.yaml", &map("a", "2"));
    followed.until_objects(&["a=2", "b="]).await;
    followed.write("new.yml", &map("c", "1"));
    followed.until_objects(&["a=2", "b=", "c=1"]).await;
    fs::rename(followed.path("new.yml"), followed.path("newer.yml")).unwrap();
    fs::create_dir_all(followed.path("deep/er")).unwrap();
    followed.write("deep/er/d.yaml", &map("d", "1"));
    followed.until_objects(&["a=2", "b=", "c=1", "d=1"]).await;
    followed.write("deep/er/d.yaml", &map("d", "2"));
    followed.until_objects(&["a=2", "b=", "c=1", "d=2"]).await;
    fs::rename(followed.path("deep"), followed.path("moved")).unwrap();
    followed.write("a.yaml", &map("a", "3"));
    followed.until_objects(&["a=3", "b=", "c=1", "d=2"]).await;
    followed.write("moved/er/d.yaml", &map("d", "3"));
    followed.until_objects(&["a=3", "b=", "c=1", "d=3"]).await;
    fs::remove_dir_all(followed.path("moved")).unwrap();
    fs::remove_file(followed.path("newer.yml")).unwrap();
    followed.until_objects(&["a=3", "b="]).await;
    fs::rename(followed.path("a.yaml"), followed.path(".a.yaml")).unwrap();
    followed.until_objects(&["b="]).await;
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_content() {
    let mut followed =
        Followed::start("", |folder| fs::write(folder.join("a.yaml"), map("a", "1")).unwrap()).await;
    followed.write("a.yaml", "{apiVersion: v1, kind: Conf");
    followed
        .until(|followed| followed.findings.get("a.yaml").is_some_and(|findings| findings.len() == 1))
        .await;
    followed.until_objects(&["a=1"]).await;
    followed.write("a.yaml", &map("a", "2"));
    followed.until_objects(&["a=2"]).await;
    followed.until(|followed| followed.findings["a.yaml"].is_empty()).await;
}

/// Editors and `git` take a file away and write it anew; in between its objects stay.
#[tokio::test]
async fn a_file_that_is_written_anew_is_never_away() {
    let mut followed =
        Followed::start("", |folder| fs::write(folder.join("a.yaml"), map("a", "0")).unwrap()).await;
    for round in 1..20 {
        match round % 3 {
            0 => fs::remove_file(followed.path("a.yaml")).unwrap(),
            1 => fs::rename(followed.path("a.yaml"), followed.path("a.yaml~")).unwrap(),
            _ => followed.write("a.yaml", ""),
        }
        followed.write("a.yaml", &map("a", &round.to_string()));
        let wanted = round.to_string();
        while followed.objects["a"] != wanted {
            let changes = timeout(PATIENCE, followed.inbox.recv()).await.unwrap().unwrap();
            assert!(!changes.iter().any(|change| matches!(change, Change::Deleted(_))), "{changes:?}");
            changes.into_iter().for_each(|change| followed.take(change));
        }
    }
}

/// A file is broken, is moved, its folder is moved: what was read of it before that stays all the while.
#[tokio::test]
async fn a_broken_file_keeps_its_last_good_content_under_another_name() {
    let mut followed = Followed::start("", |folder| {
        fs::create_dir(folder.join("sub")).unwrap();
        fs::write(folder.join("a.yaml"), map("a", "1")).unwrap();
        fs::write(folder.join("sub/b.yaml"), map("b", "1")).unwrap();
    })
    .await;
    let broken = |followed: &Followed, name: &str| {
        followed.findings.get(name).is_some_and(|findings| !findings.is_empty())
    };
    for name in ["a.yaml", "sub/b.yaml"] {
        followed.write(name, "not: [yaml");
        followed.until(|followed| broken(followed, name)).await;
    }
    for (at, (old, new, file)) in
        [("a.yaml", "c.yaml", "c.yaml"), ("sub", "new", "new/b.yaml"), ("c.yaml", "new/c.yaml", "new/c.yaml")]
            .into_iter()
            .enumerate()
    {
        fs::rename(followed.path(old), followed.path(new)).unwrap();
        followed.until(|followed| broken(followed, file)).await;
        // Whatever comes of the move has come before this.
        followed.write("z.yaml", &map("z", &at.to_string()));
        followed.until_objects(&["a=1", "b=1", &format!("z={at}")]).await;
    }
    let told: Vec<_> = followed.findings.keys().filter(|name| broken(&followed, name)).collect();
    assert_eq!(told.iter().map(|name| &***name).collect::<Vec<_>>(), ["new/b.yaml", "new/c.yaml"]);
    followed.write("new/c.yaml", &map("a", "2"));
    followed.until_objects(&["a=2", "b=1", "z=2"]).await;
    fs::remove_dir_all(followed.path("new")).unwrap();
    followed.until_objects(&["z=2"]).await;
}

/// A link to a file of another folder, which changes, goes, comes back and is replaced, and one to nothing yet.
#[tokio::test]
async fn links_to_files_elsewhere() {
    let elsewhere = tempfile::tempdir().unwrap();
    let there = |name: &str| elsewhere.path().join(name);
    fs::write(there("s"), map("a", "1")).unwrap();
    let mut followed = Followed::start("", |folder| {
        symlink(there("s"), folder.join("a.yaml")).unwrap();
        symlink(there("none/s"), folder.join("b.yaml")).unwrap();
        symlink("loop.yaml", folder.join("pool.yaml")).unwrap();
        symlink("pool.yaml", folder.join("loop.yaml")).unwrap();
    })
    .await;
    followed.until_objects(&["a=1"]).await;
    fs::write(there("s"), map("a", "2")).unwrap();
    followed.until_objects(&["a=2"]).await;
    fs::remove_file(there("s")).unwrap();
    followed.until_objects(&[]).await;
    fs::write(there("s"), map("a", "3")).unwrap();
    followed.until_objects(&["a=3"]).await;
    fs::write(there("next"), map("a", "4")).unwrap();
    fs::rename(there("next"), there("s")).unwrap();
    followed.until_objects(&["a=4"]).await;
    fs::create_dir(there("none")).unwrap();
    fs::write(there("none/s"), map("b", "1")).unwrap();
    followed.until_objects(&["a=4", "b=1"]).await;
    fs::remove_file(followed.path("a.yaml")).unwrap();
    symlink(there("none/t"), followed.path("a.yaml")).unwrap();
    followed.until_objects(&["b=1"]).await;
    fs::write(there("none/t"), map("a", "5")).unwrap();
    followed.until_objects(&["a=5", "b=1"]).await;
    // Links that lead through each other lead nowhere.
    fs::remove_file(followed.path("pool.yaml")).unwrap();
    symlink("loop.yaml", followed.path("pool.yaml")).unwrap();
    followed.write("z.yaml", &map("z", "1"));
    followed.until_objects(&["a=5", "b=1", "z=1"]).await;
}

/// A link into the volume of a ConfigMap, and one to a folder of versions.
#[tokio::test]
async fn links_through_links_that_are_exchanged() {
    let elsewhere = tempfile::tempdir().unwrap();
    let there = |name: &str| elsewhere.path().join(name);
    fs::create_dir(there("volume")).unwrap();
    version(&there("volume"), "..1", &[("a", &map("a", "1"))]);
    symlink("..data/a", there("volume/a")).unwrap();
    for version in ["1", "2"] {
        fs::create_dir(there(version)).unwrap();
        fs::write(there(version).join("b.yaml"), map("b", version)).unwrap();
    }
    fs::write(there("1/c.yaml"), map("c", "1")).unwrap();
    symlink("1", there("current")).unwrap();
    let mut followed = Followed::start("", |folder| {
        symlink(there("volume/a"), folder.join("a.yaml")).unwrap();
        symlink(there("current"), folder.join("sub")).unwrap();
    })
    .await;
    followed.until_objects(&["a=1", "b=1", "c=1"]).await;
    version(&there("volume"), "..2", &[("a", &map("a", "2"))]);
    fs::remove_dir_all(there("volume/..1")).unwrap();
    followed.until_objects(&["a=2", "b=1", "c=1"]).await;
    version(&there("volume"), "..3", &[("a", &map("a", "3"))]);
    followed.until_objects(&["a=3", "b=1", "c=1"]).await;
    symlink("2", there("next")).unwrap();
    fs::rename(there("next"), there("current")).unwrap();
    followed.until_objects(&["a=3", "b=2"]).await;
    fs::write(there("2/b.yaml"), map("b", "3")).unwrap();
    followed.until_objects(&["a=3", "b=3"]).await;
}

/// A new version of the volume of a ConfigMap, as the kubelet makes it.
fn version(folder: &Path, name: &str, files: &[(&str, &str)]) {
    fs::create_dir(folder.join(name)).unwrap();
    for (file, text) in files {
        fs::write(folder.join(name).join(file), text).unwrap();
    }
    let _ = fs::remove_file(folder.join("..data_tmp"));
    symlink(name, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

/// How the kubelet updates the volume of a ConfigMap.
#[tokio::test]
async fn a_volume_of_a_config_map() {
    let mut followed = Followed::start("", |folder| {
        version(folder, "..1", &[("a.yaml", &map("a", "1")), ("b.yaml", &map("b", "1"))]);
        symlink("..data/a.yaml", folder.join("a.yaml")).unwrap();
        symlink("..data/b.yaml", folder.join("b.yaml")).unwrap();
    })
    .await;
    followed.until_objects(&["a=1", "b=1"]).await;
    let folder = followed.folder.path().to_owned();
    version(
        &folder,
        "..2",
        &[("a.yaml", &map("a", "2")), ("b.yaml", &map("b", "1")), ("c.yaml", &map("c", "1"))],
    );
    symlink("..data/c.yaml", folder.join("c.yaml")).unwrap();
    fs::remove_dir_all(folder.join("..1")).unwrap();
    followed.until_objects(&["a=2", "b=1", "c=1"]).await;
    version(&folder, "..3", &[("a.yaml", &map("a", "3"))]);
    fs::remove_file(folder.join("b.yaml")).unwrap();
    fs::remove_file(folder.join("c.yaml")).unwrap();
    followed.until_objects(&["a=3"]).await;
}

/// A folder that is a link to the version in force.
#[tokio::test]
async fn a_folder_that_is_exchanged() {
    let mut followed = Followed::start("current", |folder| {
        for version in ["1", "2"] {
            fs::create_dir(folder.join(version)).unwrap();
            fs::write(folder.join(version).join("a.yaml"), map("a", version)).unwrap();
        }
        symlink("1", folder.join("current")).unwrap();
    })
    .await;
    followed.until_objects(&["a=1"]).await;
    symlink("2", followed.path("next")).unwrap();
    fs::rename(followed.path("next"), followed.path("current")).unwrap();
    followed.until_objects(&["a=2"]).await;
    followed.write("2/a.yaml", &map("a", "3"));
    followed.until_objects(&["a=3"]).await;
    fs::remove_file(followed.path("current")).unwrap();
    symlink("1", followed.path("current")).unwrap();
    followed.until_objects(&["a=1"]).await;
}

#[tokio::test]
async fn a_single_file() {
    let mut followed = Followed::start("a.conf", |folder| {
        fs::write(folder.join("a.conf"), map("a", "1")).unwrap();
        fs::write(folder.join("b.yaml"), map("b", "1")).unwrap();
    })
    .await;
    followed.until_objects(&["a=1"]).await;
    followed.write("b.yaml", &map("b", "2"));
    followed.write("next", &map("a", "2"));
    fs::rename(followed.path("next"), followed.path("a.conf")).unwrap();
    followed.until_objects(&["a=2"]).await;
}

#[tokio::test]
async fn missed_changes_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("a.yaml", &map("a", "1"));
    write("b.yaml", &map("b", "1"));
    let (signals, _inbox) = channel();
    let mut follower = Follower::new(folder.path().to_owned(), signals).unwrap();
    assert_eq!(follower.changes().len(), 2);
    write("a.yaml", &map("a", "2"));
    write("c.yaml", &map("c", "1"));
    follower.rescan();
    assert_eq!(follower.changes().len(), 2);
    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    follower.rescan();
    assert_eq!(follower.changes().len(), 0);
    assert_eq!(follower.later.keys().map(|name| &**name).collect::<Vec<_>>(), ["b.yaml"]);
    // A folder that is away as a whole takes nothing with it.
    fs::remove_dir_all(folder.path()).unwrap();
    follower.later.clear();
    follower.rescan();
    assert!(follower.later.is_empty() && follower.changes().is_empty());
}

#[tokio::test]
async fn what_is_not_there_cannot_be_followed() {
    let (sender, _inbox) = mpsc::channel(1);
    let error = follow("/does/not/exist".into(), sender).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot read /does/not/exist: No such file or directory (os error 2)");
}
