//! Counters of quotas of a day and more on disk, so that a restart does not give every key its quota anew.
//!
//! One small file, written anew beside the old one and renamed: a crash leaves the one before. It holds hashes of keys, no
//! keys, and the secret that they are hashed under, so only its owner may read it. Whatever is wrong with it is told, and
//! counting begins anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use tokio::task::spawn_blocking;
use xxhash_rust::xxh3::xxh3_64;

use super::algorithms::State;
use super::counters::memory::{Memory, Saved, SavedCell};

const FILE: &str = "counters";
const MAGIC: &[u8; 16] = b"chancery-count\0\x01";
/// Counters that are kept, some 15 MB; those that last longest, if there are more.
const MOST: usize = 250_000;
/// The largest file that is read.
const LARGEST: u64 = 64 << 20;
/// What changed is written so often, unless that takes too much of the time.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Looking for changes and writing them takes no more than one part of so many of the time.
const AT_MOST: u32 = 20;

/// The file's content after the magic and a hash of it.
#[derive(Clone, PartialEq, prost::Message)]
struct Content {
    #[prost(bytes = "vec", tag = "1")]
    secret: Vec<u8>,
    #[prost(uint64, tag = "2")]
    ticks: u64,
    #[prost(uint64, tag = "3")]
    unix_ms: u64,
    #[prost(message, repeated, tag = "4")]
    cells: Vec<Cell>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Cell {
    #[prost(fixed64, tag = "1")]
    high: u64,
    #[prost(fixed64, tag = "2")]
    low: u64,
    #[prost(uint64, tag = "3")]
    at: u64,
    #[prost(uint64, tag = "4")]
    used: u64,
    /// Eight, or none at all.
    #[prost(uint32, repeated, tag = "5")]
    earlier: Vec<u32>,
    #[prost(uint64, tag = "6")]
    idle_at: u64,
}

impl From<&SavedCell> for Cell {
    fn from(cell: &SavedCell) -> Self {
        let State { at, used, earlier } = cell.state;
        let earlier = if cell.has_parts { earlier.to_vec() } else { Vec::new() };
        Self { high: cell.key.0, low: cell.key.1, at, used, earlier, idle_at: cell.idle_at }
    }
}

impl TryFrom<&Cell> for SavedCell {
    type Error = ();

    fn try_from(cell: &Cell) -> Result<Self, ()> {
        let has_parts = !cell.earlier.is_empty();
        let earlier = if has_parts { cell.earlier.as_slice().try_into().map_err(|_| ())? } else { [0; 8] };
        let state = State { at: cell.at, used: cell.used, earlier };
        Ok(Self { key: (cell.high, cell.low), has_parts, state, idle_at: cell.idle_at })
    }
}

/// A table, and the folder that its counters are kept in.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    memory: Arc<Memory>,
    /// A hash of the counters as they were last written.
    written: u64,
}

impl Keeper {
    /// A table with the counters that the folder, which is made if need be, holds.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let memory = match read(&path) {
            Ok(None) => Memory::default(),
            Ok(Some(saved)) => {
                tracing::info!(counters = saved.cells.len(), path = %path.display(), "going on with counters");
                Memory::resumed(&saved)
            }
            Err(reason) => {
                tracing::warn!(path = %path.display(), "counters begin anew: {reason}");
                Memory::default()
            }
        };
        Ok(Self { path, memory: Arc::new(memory), written: 0 })
    }

    /// The table.
    #[must_use]
    pub fn memory(&self) -> Arc<Memory> {
        self.memory.clone()
    }

    /// Writes what changes until the end, and once more then.
    pub async fn run(mut self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let (mut pause, mut well, mut ended) = (WRITE_EVERY, true, false);
        while !ended {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = &mut end => ended = true,
            }
            let begun = Instant::now();
            let outcome;
            // A disk that hangs holds up nobody's calls.
            (self, outcome) = match spawn_blocking(move || {
                let outcome = self.write();
                (self, outcome)
            })
            .await
            {
                Ok(written) => written,
                Err(error) => return tracing::error!(%error, "counters are no longer written"),
            };
            if let (Err(error), true) = (&outcome, well) {
                tracing::warn!(path = %self.path.display(), %error, "cannot write counters");
            }
            well = outcome.is_ok();
            pause = WRITE_EVERY.max(begun.elapsed() * AT_MOST);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let mut saved = self.memory.saved();
        if saved.cells.len() > MOST {
            let left_out = saved.cells.len() - MOST;
            tracing::warn!(left_out, "more counters than are kept; those that end first are left out");
            saved.cells.select_nth_unstable_by_key(MOST, |cell| std::cmp::Reverse(cell.idle_at));
            saved.cells.truncate(MOST);
        }
        saved.cells.sort_unstable_by_key(|cell| cell.key);
        let cells: Vec<Cell> = saved.cells.iter().map(Cell::from).collect();
        let content =
            Content { secret: saved.secret.to_vec(), ticks: saved.ticks, unix_ms: saved.unix_ms, cells };
        let still = Content { ticks: 0, unix_ms: 0, ..content.clone() };
        let hash = xxh3_64(&still.encode_to_vec());
        if self.written != hash {
            write(&self.path, &content)?;
            self.written = hash;
        }
        Ok(())
    }
}

fn write(path: &Path, content: &Content) -> io::Result<()> {
    let content = content.encode_to_vec();
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(MAGIC)?;
    file.write_all(&xxh3_64(&content).to_le_bytes())?;
    file.write_all(&content)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    // Which of the two has the name is written in the folder.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// What a file holds; nothing if there is none.
fn read(path: &Path) -> Result<Option<Saved>, String> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(file) => file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?,
    };
    if bytes.len() as u64 > LARGEST {
        return Err(format!("the file has more than {} MiB", LARGEST >> 20));
    }
    let known = bytes.strip_prefix(MAGIC).ok_or("the file is none of counters, or of another version")?;
    let (hash, content) = known.split_first_chunk().ok_or("the file is cut off")?;
    if u64::from_le_bytes(*hash) != xxh3_64(content) {
        return Err("the file is not as it was written".to_owned());
    }
    let content = Content::decode(content).map_err(|error| error.to_string())?;
    let wrong = "the file holds what is no counter";
    let cells: Result<Vec<SavedCell>, ()> = content.cells.iter().map(SavedCell::try_from).collect();
    Ok(Some(Saved {
        secret: content.secret.try_into().map_err(|_| wrong)?,
        ticks: content.ticks,
        unix_ms: content.unix_ms,
        cells: cells.map_err(|()| wrong)?,
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

    use super::*;
    use crate::model::limit::{Algorithm, Key, Limit};
    use crate::ratelimit::counters::{Ask, Counters as _, Hits, Role};
    use crate::values::calendar::{CalendarUnit, TimeZone};

    const DAY_MS: u64 = 86_400_000;

    fn limits() -> [Limit; 6] {
        let time_zone = TimeZone::parse("UTC").unwrap();
        [
            Algorithm::SlidingWindow { requests: 5, window_ms: DAY_MS },
            Algorithm::FixedWindow { requests: 5, window_ms: 7 * DAY_MS },
            Algorithm::AlignedWindow { requests: 5, window_ms: 365 * DAY_MS },
            Algorithm::Calendar { requests: 5, unit: CalendarUnit::Year, time_zone },
            Algorithm::Gcra { requests: 5, period_ms: 5 * DAY_MS, burst: 4 },
            // Short: not kept.
            Algorithm::FixedWindow { requests: 5, window_ms: 3_600_000 },
        ]
        .map(|algorithm| Limit::new("l".into(), Key::Header("x-api-key".into()), algorithm))
    }

    /// What is left of each limit after so many hits.
    async fn left(memory: &Memory, hits: u64) -> Vec<u64> {
        let key = [Entry { key: "key".into(), value: "hunter2".into() }];
        let mut left = Vec::new();
        for limit in &limits() {
            let ask = Ask { limit, key: &key, hits: Hits::Take(hits), role: Role::Binding };
            left.push(memory.decide(&[ask]).await.unwrap()[0].remaining);
        }
        left
    }

    #[tokio::test]
    async fn counters_of_a_day_and_more_outlast_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut keeper = Keeper::open(folder.path()).unwrap();
        assert_eq!(left(&keeper.memory(), 2).await, [3; 6]);
        keeper.write().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains("hunter2"));
        for expected in [[2, 2, 2, 2, 2, 4], [1, 1, 1, 1, 1, 4]] {
            let keeper = Keeper::open(folder.path()).unwrap();
            assert_eq!(left(&keeper.memory(), 1).await, expected);
            keeper.run(async {}).await;
        }
        let mut keeper = Keeper::open(folder.path()).unwrap();
        keeper.write().unwrap();
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        keeper.write().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written, "nothing has changed");
    }

    #[tokio::test]
    async fn a_broken_file_is_no_reason_not_to_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut keeper = Keeper::open(folder.path()).unwrap();
        left(&keeper.memory(), 2).await;
        keeper.write().unwrap();
        let good = std::fs::read(&path).unwrap();
        assert!(read(&path).unwrap().is_some());
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let mut later = good.clone();
        later[MAGIC.len() - 1] += 1;
        for (bytes, words) in [
            (&b""[..], "none of counters"),
            (&later, "another version"),
            (&good[..MAGIC.len() + 3], "cut off"),
            (&good[..good.len() - 1], "not as it was written"),
            (&flipped, "not as it was written"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert!(read(&path).unwrap_err().contains(words), "{words}");
            assert_eq!(left(&Keeper::open(folder.path()).unwrap().memory(), 2).await, [3; 6]);
        }
    }
}
