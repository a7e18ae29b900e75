//! The last good snapshot on disk, so that a restart serves Envoys while the sources are not read yet.
//!
//! One file: records one after another, each a resource that was set or removed. A change appends what it changed;
//! when the file has outgrown what is live, it is written anew beside it and renamed. Each record has its length before
//! it and a hash within: one that a crash cut off at the end is left out, and so is one that is not as it was written. The
//! file holds private keys, so only its owner may read it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use crate::xds::{Resource, Snapshot, TypeUrl, Update, Version};

const FILE: &str = "snapshot";
/// A file smaller than this is never written anew.
const SMALL: u64 = 4 << 20;

/// One resource that was set or removed.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(fixed64, tag = "3")]
    version: u64,
    #[prost(bytes = "bytes", tag = "4")]
    body: bytes::Bytes,
    #[prost(string, repeated, tag = "5")]
    requires: Vec<String>,
    #[prost(bool, tag = "6")]
    removed: bool,
    /// Of the record without it.
    #[prost(fixed64, tag = "7")]
    hash: u64,
}

impl Record {
    fn hashed(mut self) -> Self {
        self.hash = 0;
        self.hash = xxh3_64(&self.encode_to_vec());
        self
    }

    /// Whether it is as it was written.
    fn is_whole(&self) -> bool {
        self.clone().hashed().hash == self.hash
    }
}

/// The file, open for appending.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    file: File,
    size: u64,
    /// Its size when it last held nothing but what was live.
    live: u64,
    /// Whether something could not be written.
    torn: bool,
    /// The snapshot that it holds.
    written: Arc<Snapshot>,
}

impl State {
    /// Opens the state in a folder, which is made if need be, and reads what it holds.
    ///
    /// # Errors
    /// When the folder or the file cannot be made, read or written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let (update, broken) = read(&bytes);
        if broken > 0 {
            tracing::warn!(broken, path = %path.display(), "left out records that are not as they were written");
        }
        let written = Arc::new(Snapshot::empty().apply(update));
        let mut state = Self { file: create(&path, false)?, path, size: 0, live: 0, torn: false, written };
        state.rewrite()?;
        Ok(state)
    }

    /// What was good last; without any resource if there was nothing.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.written
    }

    /// Writes what a later snapshot changed.
    ///
    /// # Errors
    /// When the file cannot be written; it is then written anew the next time.
    pub fn write(&mut self, snapshot: &Arc<Snapshot>) -> io::Result<()> {
        let changes = snapshot.changes_since(self.written.sequence());
        let outgrown = self.size > SMALL && self.size > 2 * self.live;
        let outgrown = std::mem::replace(&mut self.torn, true) || outgrown;
        let before = std::mem::replace(&mut self.written, snapshot.clone());
        let Some(changes) = changes.filter(|_| !outgrown && before.sequence() <= snapshot.sequence()) else {
            return self.rewrite();
        };
        let mut buffer = Vec::new();
        for (_, type_url, name) in changes {
            let record = match snapshot.get(type_url, name) {
                Some(resource) => record(resource),
                None => Record {
                    type_url: type_url.as_str().to_owned(),
                    name: name.to_string(),
                    removed: true,
                    ..Record::default()
                },
            };
            put(&mut buffer, record);
        }
        self.size += buffer.len() as u64;
        self.file.write_all(&buffer)?;
        self.file.sync_data()?;
        self.torn = false;
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let mut buffer = Vec::new();
        for resource in TypeUrl::ALL.iter().flat_map(|type_url| self.written.iter(*type_url)) {
            put(&mut buffer, record(resource));
        }
        let beside = self.path.with_extension("new");
        let mut file = create(&beside, true)?;
        file.write_all(&buffer)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        // Which of the two has the name is written in the folder.
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        self.file = file;
        self.size = buffer.len() as u64;
        self.live = self.size;
        self.torn = false;
        Ok(())
    }
}

fn create(path: &Path, empty: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    if empty {
        options.write(true).truncate(true)
    } else {
        options.append(true)
    };
    options.open(path)
}

fn record(resource: &Resource) -> Record {
    Record {
        type_url: resource.type_url().as_str().to_owned(),
        name: resource.name().to_string(),
        version: resource.version().0,
        body: bytes::Bytes::copy_from_slice(resource.body()),
        requires: resource.requires().iter().map(ToString::to_string).collect(),
        removed: false,
        hash: 0,
    }
}

fn put(buffer: &mut Vec<u8>, record: Record) {
    // A vector takes whatever is written to it.
    let _ = record.hashed().encode_length_delimited(buffer);
}

/// The next record's bytes; none at the end, be it a torn one.
fn next<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = usize::try_from(prost::encoding::decode_varint(rest).ok()?).ok()?;
    let (record, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(record)
}

/// What the records come to, and how many of them are broken.
fn read(bytes: &[u8]) -> (Update, usize) {
    let mut rest = bytes;
    let mut live = std::collections::BTreeMap::new();
    let mut broken = 0;
    while let Some(bytes) = next(&mut rest) {
        let record = Record::decode(bytes).ok().filter(Record::is_whole);
        let Some(record) = record else {
            broken += 1;
            continue;
        };
        let Some(type_url) = TypeUrl::parse(&record.type_url) else { continue };
        let key = (type_url, record.name.clone());
        if record.removed {
            live.remove(&key);
            continue;
        }
        let resource = Resource::from_bytes(type_url, record.name, Version(record.version), &record.body)
            .requiring(record.requires.into_iter().map(Arc::from));
        live.insert(key, Arc::new(resource));
    }
    (Update { set: live.into_values().collect(), remove: Vec::new() }, broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, version: u64) -> Arc<Resource> {
        let resource =
            Resource::from_bytes(TypeUrl::RouteConfiguration, name, Version(version), name.as_bytes());
        Arc::new(resource.requiring(["c".into()]))
    }

    fn names(snapshot: &Snapshot) -> Vec<(String, u64)> {
        let of = |resource: &Arc<Resource>| (resource.name().to_string(), resource.version().0);
        snapshot.iter(TypeUrl::RouteConfiguration).map(of).collect()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        assert!(state.snapshot().is_empty());
        let first =
            state.snapshot().apply(Update { set: vec![resource("a", 1), resource("b", 1)], remove: vec![] });
        state.write(&Arc::new(first.clone())).unwrap();
        let remove = vec![(TypeUrl::RouteConfiguration, "a".into())];
        let second = Arc::new(first.apply(Update { set: vec![resource("b", 2), resource("c", 1)], remove }));
        state.write(&second).unwrap();
        let again = State::open(folder.path()).unwrap();
        assert_eq!(names(again.snapshot()), names(&second));
        let b = again.snapshot().get(TypeUrl::RouteConfiguration, "b").unwrap();
        assert_eq!((b.body(), &*b.requires()[0]), (&b"b"[..], "c"));
    }

    #[test]
    fn a_torn_tail_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        let snapshot =
            state.snapshot().apply(Update { set: vec![resource("a", 1), resource("b", 1)], remove: vec![] });
        state.write(&Arc::new(snapshot)).unwrap();
        let path = folder.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(names(State::open(folder.path()).unwrap().snapshot()), [("a".to_owned(), 1)]);
    }

    #[test]
    fn a_broken_record_breaks_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        let set = ["a", "broken", "c"].map(|name| resource(name, 1)).into();
        state.write(&Arc::new(state.snapshot().apply(Update { set, remove: vec![] }))).unwrap();
        let path = folder.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        let body = bytes.windows(6).rposition(|bytes| bytes == b"broken").unwrap();
        // Within the text, so that it still is a message, and in a key, so that it is none.
        for (at, value) in [(body, b'B'), (body - 2, 0xff)] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            std::fs::write(&path, &bytes).unwrap();
            let expected = [("a".to_owned(), 1), ("c".to_owned(), 1)];
            assert_eq!(names(State::open(folder.path()).unwrap().snapshot()), expected);
        }
    }

    #[test]
    fn only_the_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        State::open(folder.path()).unwrap();
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
