//! Follows a folder: everything once, then what changes, as the operating system tells it.
//!
//! A file is read when its writer closes it, or when it is moved into place, never while it is written. One that
//! vanishes or becomes empty may be about to be written anew (`git checkout` and many editors do that), so its objects
//! stay for [`GRACE`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::links::Links;
use super::walk::{Seen, is_hidden, is_manifest, walk};
use super::{Error, Folder, read_all, read_file};
use crate::clock;
use crate::store::Change;

/// How long a file may be away, or empty, before its objects go.
const GRACE: Duration = Duration::from_millis(50);

/// Follows a folder (or a single file) until the receiver is gone: first one batch of everything there is, then
/// [`Change::Ready`], then a batch for each burst of changes.
///
/// # Errors
/// When the folder cannot be read or watched at first. Whatever goes wrong later is a finding or a warning, and what
/// was read before stays.
pub async fn follow(path: PathBuf, sender: mpsc::Sender<Vec<Change>>) -> Result<(), Error> {
    let (signals, inbox) = channel();
    // Ends the thread when this future is dropped.
    let _stop = Stop(signals.clone());
    let run = move || Follower::new(path, signals)?.run(&inbox, &sender);
    match tokio::task::spawn_blocking(run).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(()),
    }
}

/// What the thread is told.
#[derive(Debug)]
enum Signal {
    /// Something is different at this path.
    Look(PathBuf),
    /// A file was created at this path, and may still be written.
    Created(PathBuf),
    /// What was at the first path is at the second one now.
    Moved(PathBuf, PathBuf),
    /// Changes were missed.
    Rescan,
    Stop,
}

struct Stop(Sender<Signal>);

impl Drop for Stop {
    fn drop(&mut self) {
        // It has ended already if nobody listens.
        let _ = self.0.send(Signal::Stop);
    }
}

/// The signals in an event of the operating system. Opening and reading files is no change.
fn signals(event: notify::Result<notify::Event>) -> Vec<Signal> {
    let event = match event {
        Ok(event) if event.need_rescan() => return vec![Signal::Rescan],
        Ok(event) => event,
        Err(error) => {
            tracing::warn!("watching manifests: {error}");
            return vec![Signal::Rescan];
        }
    };
    // Systems other than Linux do not tell when a writer is done.
    let written = cfg!(not(target_os = "linux"));
    match event.kind {
        EventKind::Create(CreateKind::File) => event.paths.into_iter().map(Signal::Created).collect(),
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
            match <[PathBuf; 2]>::try_from(event.paths) {
                Ok([from, to]) => vec![Signal::Moved(from, to)],
                Err(paths) => paths.into_iter().map(Signal::Look).collect(),
            }
        }
        EventKind::Modify(ModifyKind::Data(_)) if !written => Vec::new(),
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Create(_)
        | EventKind::Remove(_)
        | EventKind::Modify(_) => event.paths.into_iter().map(Signal::Look).collect(),
        _ => Vec::new(),
    }
}

/// By what a file is known to be the same without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    modified: SystemTime,
    size: u64,
}

struct Follower {
    root: PathBuf,
    /// The only file that counts, where a file is followed.
    only: Option<PathBuf>,
    watcher: RecommendedWatcher,
    folder: Folder,
    /// Every file as it was read last.
    files: BTreeMap<Arc<str>, Option<Stamp>>,
    /// Files of which some change is not over yet, and when to look.
    later: BTreeMap<Arc<str>, Instant>,
    /// Files to be read now.
    dirty: BTreeSet<Arc<str>>,
    links: Links,
    /// The folders that are watched by their names below the root, in canonical form.
    inside: BTreeSet<PathBuf>,
}

impl Follower {
    fn new(path: PathBuf, sender: Sender<Signal>) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.clone(), source };
        let watch = |source| Error::Watch { path: path.clone(), source };
        let path = std::path::absolute(&path).map_err(read)?;
        let is_file = !fs::metadata(&path).map_err(read)?.is_dir();
        let root = if is_file { parent(&path) } else { path.clone() };
        let handler = move |event| {
            for signal in signals(event) {
                // Nobody listens when the follower has ended.
                let _ = sender.send(signal);
            }
        };
        let watcher = RecommendedWatcher::new(handler, notify::Config::default()).map_err(watch)?;
        let mut follower = Follower {
            only: is_file.then_some(path),
            root,
            watcher,
            folder: Folder::default(),
            files: BTreeMap::new(),
            later: BTreeMap::new(),
            dirty: BTreeSet::new(),
            links: Links::default(),
            inside: BTreeSet::new(),
        };
        follower
            .watch(&follower.root.clone())
            .map_err(|source| Error::Watch { path: follower.root.clone(), source })?;
        if follower.only.is_none()
            // The folder itself may be a link that is exchanged, or be moved away and made anew.
            && let Err(error) = follower.watch(&parent(&follower.root))
        {
            tracing::debug!("what holds {} is not watched: {error}", follower.root.display());
        }
        follower.scan().map_err(|source| Error::Read { path: follower.root.clone(), source })?;
        Ok(follower)
    }

    fn watch(&mut self, folder: &Path) -> notify::Result<()> {
        self.inside.extend(fs::canonicalize(folder));
        self.watcher.watch(folder, RecursiveMode::NonRecursive)
    }

    /// Watches what a link leads through. A folder has one name among watches, and what is below the root keeps that.
    fn follow_link(&mut self, link: &Path) {
        for folder in self.links.follow(link).difference(&self.inside) {
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::debug!("changes in {} will not be seen: {error}", folder.display());
            }
        }
    }

    fn run(mut self, inbox: &Receiver<Signal>, sender: &mpsc::Sender<Vec<Change>>) -> Result<(), Error> {
        let first = self.changes();
        if sender.blocking_send(first).is_err() || sender.blocking_send(vec![Change::Ready]).is_err() {
            return Ok(());
        }
        loop {
            let signal = match self.later.values().min() {
                Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            for signal in signal.into_iter().chain(inbox.try_iter()) {
                match signal {
                    Signal::Stop => return Ok(()),
                    Signal::Rescan => self.rescan(),
                    Signal::Look(path) => self.look(&path, false),
                    Signal::Created(path) => self.look(&path, true),
                    Signal::Moved(from, to) => self.moved(&from, &to),
                }
            }
            self.look_later();
            let changes = self.changes();
            if !changes.is_empty() && sender.blocking_send(changes).is_err() {
                return Ok(());
            }
        }
    }

    /// Reads what is to be read and says what has changed by it.
    fn changes(&mut self) -> Vec<Change> {
        let dirty: Vec<_> = std::mem::take(&mut self.dirty)
            .into_iter()
            .map(|name| {
                let path = self.path(&name);
                self.files.insert(name.clone(), stamp(&path));
                (name, path)
            })
            .collect();
        for (name, parsed) in read_all(&dirty, &self.folder) {
            match parsed {
                Some(parsed) => {
                    self.later.remove(&name);
                    self.folder.set(&name, parsed);
                }
                None => self.vanished(&name, GRACE),
            }
        }
        let root = &self.root;
        self.folder.changes(|name| read_file(name, &root.join(name), &[]))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The name by which a path goes.
    fn name(&self, path: &Path) -> Option<Arc<str>> {
        let below = path.strip_prefix(&self.root).ok()?;
        Some(below.to_string_lossy().into())
    }

    /// Whether a file is one of those that are followed, by its name.
    fn counts(&self, path: &Path) -> bool {
        match &self.only {
            Some(only) => only == path,
            None => is_manifest(path),
        }
    }

    /// Looks at what is at a path now.
    fn look(&mut self, path: &Path, created: bool) {
        if path == self.root {
            return self.rescan();
        }
        for link in self.links.through(path) {
            self.look_through(&link, created);
        }
        self.look_at(path, created);
    }

    /// The same, but for links that lead through it.
    fn look_at(&mut self, path: &Path, created: bool) {
        if path.is_symlink() && (self.counts(path) || path.is_dir() && !is_hidden(path)) {
            self.follow_link(path);
        }
        let Some(name) = self.name(path).filter(|name| !name.is_empty()) else { return };
        if is_hidden(path) && self.only.as_deref() != Some(path) {
            // Editors leave much that is hidden; `..data` is what a ConfigMap's volume is exchanged by.
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"..")) {
                self.look_at_links(&parent(path));
            }
            return;
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                if self.only.is_none() {
                    self.scan_below(path);
                }
            }
            Ok(metadata) if !self.counts(path) || !metadata.is_file() => {}
            // Its writer has it open, unless it came here by a link; closing it will be told.
            Ok(metadata) if created && metadata.nlink() == 1 && !path.is_symlink() => self.wait(name),
            Ok(metadata) if metadata.len() == 0 && self.files.contains_key(&name) => self.wait(name),
            Ok(_) => drop(self.dirty.insert(name)),
            Err(_) => self.vanished(&name, GRACE),
        }
    }

    /// Looks at a link, or at all that is below it, since what it leads through has changed.
    fn look_through(&mut self, link: &Path, created: bool) {
        self.follow_link(link);
        let Some(name) = self.name(link) else { return };
        let known = self.known_from(&name);
        if !known.contains(&name) {
            self.look_at(link, false);
        }
        for file in known {
            let path = self.path(&file);
            let same =
                self.files.get(&file).copied().flatten().is_some_and(|read| Some(read) == stamp(&path));
            match () {
                () if same => {}
                // Whoever writes it has it open.
                () if created && path.is_file() => self.wait(file),
                () => self.look_at(&path, false),
            }
        }
    }

    /// A file that was moved to another name that counts is not waited for, and what was read of it goes with it.
    fn moved(&mut self, from: &Path, to: &Path) {
        self.look(to, false);
        let below = self.counts(to) || to.is_dir();
        let Some(old) = self.name(from).filter(|_| below && !from.exists()) else { return };
        if let Some(new) = self.name(to) {
            for name in self.known_from(&old) {
                self.folder.rename(&name, &format!("{new}{}", &name[old.len()..]).into());
            }
        }
        self.vanished(&old, Duration::ZERO);
    }

    /// A file is not there, nor is anything below it if it was a folder.
    fn vanished(&mut self, name: &str, grace: Duration) {
        let at = Instant::now() + grace;
        // What is below a folder begins with `name/`, and `0` comes right after the slash.
        let (first, end) = (format!("{name}/"), format!("{name}0"));
        let below = (Bound::Included(first.as_str()), Bound::Excluded(end.as_str()));
        let unread: Vec<_> = self.dirty.range::<str, _>(below).cloned().collect();
        for file in unread.iter().map(|file| &**file).chain([name]) {
            self.dirty.remove(file);
        }
        self.later.extend(self.known_from(name).into_iter().map(|file| (file, at)));
    }

    /// The file of this name, and those below the folder of this name.
    fn known_from(&self, name: &str) -> Vec<Arc<str>> {
        let (first, end) = (format!("{name}/"), format!("{name}0"));
        let below = self.files.range::<str, _>((Bound::Included(&*first), Bound::Excluded(&*end)));
        self.files.get_key_value(name).into_iter().chain(below).map(|(file, _)| file.clone()).collect()
    }

    fn wait(&mut self, name: Arc<str>) {
        self.later.entry(name).or_insert_with(|| Instant::now() + GRACE);
    }

    /// Looks at the files whose time has come.
    fn look_later(&mut self) {
        let now = Instant::now();
        let due: Vec<_> =
            self.later.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.later.remove(&name);
            if self.path(&name).is_file() {
                self.dirty.insert(name);
            } else if self.files.remove(&name).is_some() {
                self.folder.remove(&name);
            }
        }
    }

    /// Looks at the links in a folder, since what they go through has changed.
    fn look_at_links(&mut self, folder: &Path) {
        let beside: Vec<_> = self.files.keys().map(|name| self.path(name)).collect();
        for path in beside {
            if path.starts_with(folder)
                && path.ancestors().take_while(|part| *part != folder).any(Path::is_symlink)
            {
                self.look(&path, false);
            }
        }
        // Links to files that were not there before.
        self.scan_below(folder);
    }

    /// Looks at everything: at files only where they seem to be others than those that were read.
    fn rescan(&mut self) {
        if let Err(error) = self.scan() {
            // Not taken for an empty folder: nothing is served as well by nothing.
            tracing::warn!("cannot read {}, what was read of it stays: {error}", self.root.display());
        }
    }

    fn scan(&mut self) -> io::Result<()> {
        if let Some(only) = self.only.clone() {
            self.follow_link(&only);
            self.dirty.extend(self.name(&only));
            return Ok(());
        }
        let found = self.scan_from(&self.root.clone())?;
        let gone: Vec<_> = self.files.keys().filter(|name| !found.contains(*name)).cloned().collect();
        for name in gone {
            self.vanished(&name, GRACE);
        }
        Ok(())
    }

    fn scan_below(&mut self, folder: &Path) {
        if self.only.is_none()
            && let Err(error) = self.scan_from(folder)
        {
            tracing::debug!("cannot read {}: {error}", folder.display());
        }
    }

    fn scan_from(&mut self, folder: &Path) -> io::Result<BTreeSet<Arc<str>>> {
        let mut links = Vec::new();
        let found = walk(folder, &mut |seen| match seen {
            // Before it is read, so that nothing is missed in between.
            Seen::Folder(below) => {
                if let Err(error) = self.watch(below) {
                    tracing::warn!("changes in {} will not be seen: {error}", below.display());
                }
            }
            Seen::Link(link) => links.push(link.to_owned()),
        })?;
        links.iter().for_each(|link| self.follow_link(link));
        let names: BTreeSet<_> = found.iter().filter_map(|(path, _)| self.name(path)).collect();
        for name in &names {
            let known = self.files.get(name).copied().flatten();
            if known.is_none() || known != stamp(&self.path(name)) {
                self.dirty.insert(name.clone());
            }
        }
        Ok(names)
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_owned()
}

/// None for a file that was modified so lately that one more change might not show.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    let modified = metadata.modified().ok()?;
    clock::now().duration_since(modified).ok().filter(|age| *age > Duration::from_secs(2))?;
    Some(Stamp { file: (metadata.dev(), metadata.ino()), modified, size: metadata.len() })
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
