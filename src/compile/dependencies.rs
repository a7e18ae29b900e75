//! Who read what: the look-ups of each output's last run.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::Output;
use crate::store::Read;

/// Both directions, over small numbers that stand for outputs and look-ups.
#[derive(Debug, Default)]
pub(crate) struct Dependencies {
    outputs: Interned<Output>,
    reads: Interned<Read>,
    /// By look-up: the outputs that made it.
    readers: Vec<Readers>,
    /// By output: its look-ups, sorted.
    read_by: Vec<Box<[u32]>>,
}

impl Dependencies {
    /// The outputs whose last run looked this up.
    pub(crate) fn readers(&self, read: &Read) -> impl Iterator<Item = Output> + use<'_> {
        let readers = self.reads.get(read).map(|read| &self.readers[read as usize]);
        readers.into_iter().flat_map(Readers::iter).map(|output| self.outputs.value(output).clone())
    }

    /// Notes what an output's run looked up, instead of what its run before did.
    pub(crate) fn record(&mut self, output: &Output, reads: Vec<Read>) {
        let output = self.outputs.intern(output);
        if self.read_by.len() <= output as usize {
            self.read_by.resize_with(output as usize + 1, Box::default);
        }
        let mut new: Vec<_> = reads.into_iter().map(|read| self.reads.intern(&read)).collect();
        new.sort_unstable();
        if self.readers.len() < self.reads.len() {
            self.readers.resize_with(self.reads.len(), Readers::default);
        }
        let old = std::mem::replace(&mut self.read_by[output as usize], new.into());
        let new = &self.read_by[output as usize];
        for read in new.iter().filter(|read| old.binary_search(read).is_err()) {
            self.readers[*read as usize].insert(output);
        }
        for read in old.iter().filter(|read| new.binary_search(read).is_err()) {
            let readers = &mut self.readers[*read as usize];
            readers.remove(output);
            if matches!(readers, Readers::None) {
                self.reads.release(*read);
            }
        }
    }

    /// Forgets an output.
    pub(crate) fn forget(&mut self, output: &Output) {
        self.record(output, Vec::new());
        if let Some(id) = self.outputs.get(output) {
            self.outputs.release(id);
        }
    }
}

/// The outputs that made one look-up: mostly one.
#[derive(Debug, Default)]
enum Readers {
    #[default]
    None,
    One(u32),
    #[expect(
        clippy::box_collection,
        reason = "nearly all have one reader; a set inside would triple their size"
    )]
    Many(Box<HashSet<u32>>),
}

impl Readers {
    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(output) => (Some(*output), None),
            Self::Many(outputs) => (None, Some(outputs.iter().copied())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn insert(&mut self, output: u32) {
        match self {
            Self::None => *self = Self::One(output),
            Self::One(one) if *one == output => {}
            Self::One(one) => *self = Self::Many(Box::new(HashSet::from([*one, output]))),
            Self::Many(outputs) => drop(outputs.insert(output)),
        }
    }

    fn remove(&mut self, output: u32) {
        match self {
            Self::One(one) if *one == output => *self = Self::None,
            Self::Many(outputs) => {
                outputs.remove(&output);
                if outputs.is_empty() {
                    *self = Self::None;
                }
            }
            Self::None | Self::One(_) => {}
        }
    }
}

/// Values by small numbers; numbers of values that are gone are used again.
#[derive(Debug)]
struct Interned<T> {
    hasher: DefaultHashBuilder,
    /// Numbers by the hash of their value, which is kept once only.
    ids: HashTable<u32>,
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            ids: HashTable::new(),
            values: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn get(&self, value: &T) -> Option<u32> {
        let is_it = |id: &u32| self.values[*id as usize].as_ref() == Some(value);
        self.ids.find(self.hasher.hash_one(value), is_it).copied()
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn value(&self, id: u32) -> &T {
        self.values[id as usize].as_ref().expect("a number is used while its value is held")
    }

    fn intern(&mut self, value: &T) -> u32 {
        if let Some(id) = self.get(value) {
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.values.push(None);
            u32::try_from(self.values.len() - 1).expect("fewer than 2^32 look-ups")
        });
        self.values[id as usize] = Some(value.clone());
        let (hasher, values) = (&self.hasher, &self.values);
        // Only numbers whose value is held are in the table.
        let hash = |id: &u32| values[*id as usize].as_ref().map_or(0, |value| hasher.hash_one(value));
        self.ids.insert_unique(hasher.hash_one(value), id, hash);
        id
    }

    fn release(&mut self, id: u32) {
        if let Some(value) = self.values[id as usize].take() {
            if let Ok(entry) = self.ids.find_entry(self.hasher.hash_one(&value), |other| *other == id) {
                entry.remove();
            }
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{HostName, Kind, ObjectKey};

    fn host(name: &str) -> Output {
        Output::Host(HostName::parse(name).unwrap())
    }

    fn read(name: &str) -> Read {
        Read::Object(ObjectKey::new(Kind::Service, "ns", name))
    }

    #[test]
    fn only_the_last_run_counts() {
        let mut dependencies = Dependencies::default();
        dependencies.record(&host("a"), vec![read("x"), read("y")]);
        dependencies.record(&host("b"), vec![read("y")]);
        dependencies.record(&host("a"), vec![read("x")]);
        assert_eq!(dependencies.readers(&read("y")).collect::<Vec<_>>(), [host("b")]);
        dependencies.forget(&host("b"));
        assert_eq!(dependencies.readers(&read("y")).count(), 0);
        dependencies.record(&host("c"), vec![read("z"), read("y")]);
        assert_eq!(dependencies.readers(&read("x")).collect::<Vec<_>>(), [host("a")]);
        assert_eq!(dependencies.readers(&read("z")).collect::<Vec<_>>(), [host("c")]);
    }
}
