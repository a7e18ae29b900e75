//! What a folder holds: which file claims which objects, and who of several claims wins. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::document::{Content, Document, Item, Parsed, place};
use crate::store::{Change, Stored};
use crate::values::{Age, Finding, Findings, ObjectKey};

/// The files of a folder as they were read last, and what has been said about them.
///
/// Objects are not kept, only who claims them: whoever is told the changes has the objects.
#[derive(Debug, Default)]
pub struct Folder {
    files: HashMap<Arc<str>, File>,
    claims: HashMap<ObjectKey, Claims>,
    /// Objects that were read since the last [`Folder::changes`].
    contents: HashMap<(ObjectKey, Arc<str>), Arc<Stored>>,
    touched: BTreeSet<ObjectKey>,
    talk: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct File {
    documents: Vec<Known>,
    /// Findings about a content that came after the one that is kept.
    broken: Option<Vec<Finding>>,
    /// What was said last.
    said: Vec<Finding>,
}

#[derive(Debug, Default)]
struct Known {
    hash: u64,
    claims: Vec<Claim>,
    findings: Vec<Finding>,
}

type Claim = (ObjectKey, Age);

#[derive(Debug, Default)]
struct Claims {
    ages: Vec<Age>,
    /// The age of the claim whose content was told last.
    told: Option<Age>,
}

impl Folder {
    /// The hashes of a file's documents, for [`parse`](super::parse).
    pub fn known(&self, file: &str) -> Vec<u64> {
        let documents = self.files.get(file).map(|file| file.documents.as_slice()).unwrap_or_default();
        documents.iter().map(|document| document.hash).collect()
    }

    /// The names of all files.
    pub fn files(&self) -> impl Iterator<Item = &Arc<str>> {
        self.files.keys()
    }

    /// Takes in what a file holds now. If it cannot be told what that is, what it held before stays.
    pub fn set(&mut self, name: &Arc<str>, parsed: Parsed) {
        self.talk.insert(name.clone());
        let file = self.files.entry(name.clone()).or_default();
        let claims_any = file.documents.iter().any(|document| !document.claims.is_empty());
        if parsed.is_broken() && claims_any {
            file.broken = Some(findings_of(parsed, &file.documents));
            return;
        }
        file.broken = None;
        let old = std::mem::take(&mut file.documents);
        let mut lost: Vec<Claim> = Vec::new();
        let mut unchanged: Vec<Option<Known>> = Vec::with_capacity(old.len());
        for (index, known) in old.into_iter().enumerate() {
            match parsed.documents.get(index).map(|document| &document.content) {
                Some(Content::Unchanged) => unchanged.push(Some(known)),
                _ => {
                    lost.extend(known.claims);
                    unchanged.push(None);
                }
            }
        }
        let mut won: Vec<Claim> = Vec::new();
        let mut documents = Vec::with_capacity(parsed.documents.len());
        for (index, document) in parsed.documents.into_iter().enumerate() {
            let known = match unchanged.get_mut(index).and_then(Option::take) {
                Some(known) => known,
                None => {
                    let known = self.take_in(document, &lost);
                    won.extend(known.claims.iter().cloned());
                    known
                }
            };
            documents.push(known);
        }
        if let Some(file) = self.files.get_mut(name) {
            file.documents = documents;
        }
        self.exchange(lost, won);
    }

    /// Takes in a document. A broken object keeps the claim it had.
    fn take_in(&mut self, document: Document, lost: &[Claim]) -> Known {
        let hash = document.hash;
        let (items, findings) = match document.content {
            Content::Read(items, findings) => (items, findings),
            Content::Unreadable(findings) => (Vec::new(), findings),
            Content::Unchanged => (Vec::new(), Vec::new()),
        };
        let mut claims = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Applied(applied) => {
                    let key = applied.key.clone();
                    claims.push((key.clone(), applied.age.clone()));
                    self.contents.insert((key, applied.age.position.clone()), applied);
                }
                Item::Broken(key) => claims.extend(lost.iter().find(|(lost, _)| *lost == key).cloned()),
            }
        }
        Known { hash, claims, findings }
    }

    /// Takes in that a file has another name now, and what was read of it. It is to be read anew, since its name is a part
    /// of its objects' ages.
    pub fn rename(&mut self, old: &Arc<str>, new: &Arc<str>) {
        let Some(from) = self.files.get_mut(old) else { return };
        let mut documents = std::mem::take(&mut from.documents);
        from.broken = None;
        self.talk.extend([old.clone(), new.clone()]);
        for (key, age) in documents.iter_mut().flat_map(|document| &mut document.claims) {
            let Some(place) = age.position.strip_prefix(&**old) else { continue };
            let renamed = Age { created: age.created, position: format!("{new}{place}").into() };
            if let Some(claims) = self.claims.get_mut(key) {
                let told = claims.told.iter_mut();
                told.chain(&mut claims.ages)
                    .filter(|known| *known == age)
                    .for_each(|known| *known = renamed.clone());
            }
            *age = renamed;
        }
        let to = self.files.entry(new.clone()).or_default();
        to.documents.append(&mut documents);
        to.documents.iter_mut().for_each(|document| document.hash = 0);
    }

    fn exchange(&mut self, lost: Vec<Claim>, won: Vec<Claim>) {
        for (key, age) in lost {
            if let Some(claims) = self.claims.get_mut(&key)
                && let Some(at) = claims.ages.iter().position(|known| *known == age)
            {
                claims.ages.swap_remove(at);
                // It may have been the reason of a finding elsewhere.
                self.talk.extend(claims.ages.iter().map(|age| Arc::from(file_of(age))));
            }
            self.touched.insert(key);
        }
        for (key, age) in won {
            self.claims.entry(key.clone()).or_default().ages.push(age);
            self.touched.insert(key);
        }
    }

    /// Takes in that a file is gone.
    pub fn remove(&mut self, name: &Arc<str>) {
        self.set(name, Parsed::default());
    }

    /// What has changed since this was asked last.
    ///
    /// When an object is lost to another file that claimed it all along, that file has to be read once more:
    /// `reread` does.
    pub fn changes(&mut self, mut reread: impl FnMut(&str) -> Option<Parsed>) -> Vec<Change> {
        let mut changes = Vec::with_capacity(self.touched.len());
        let mut late = BTreeSet::new();
        let mut absent = BTreeSet::new();
        for key in std::mem::take(&mut self.touched) {
            match self.winner(&key) {
                Winner::Absent(file) => {
                    absent.insert(file);
                    late.insert(key);
                }
                winner => self.tell(key, winner, &mut changes),
            }
        }
        let parsed = absent.iter().filter_map(|file| reread(file));
        for document in parsed.flat_map(|parsed| parsed.documents) {
            let Content::Read(items, _) = document.content else { continue };
            for item in items {
                if let Item::Applied(applied) = item {
                    let content = (applied.key.clone(), applied.age.position.clone());
                    self.contents.insert(content, applied);
                }
            }
        }
        for key in late {
            while let Winner::Absent(_) = self.winner(&key) {
                self.forget_winner(&key);
            }
            let winner = self.winner(&key);
            self.tell(key, winner, &mut changes);
        }
        self.contents = HashMap::new();
        self.talk(&mut changes);
        changes
    }

    fn winner(&self, key: &ObjectKey) -> Winner {
        let Some(claims) = self.claims.get(key) else { return Winner::Same };
        let Some(oldest) = claims.ages.iter().min() else { return Winner::Gone };
        if self.contents.contains_key(&(key.clone(), oldest.position.clone())) {
            Winner::New(oldest.clone())
        } else if claims.told.as_ref() == Some(oldest) {
            Winner::Same
        } else {
            Winner::Absent(file_of(oldest).into())
        }
    }

    /// Takes a claim away whose content is nowhere any more. The document is read anew when its file changes.
    fn forget_winner(&mut self, key: &ObjectKey) {
        let Some(claims) = self.claims.get_mut(key) else { return };
        let Some(oldest) = claims.ages.iter().min().cloned() else { return };
        claims.ages.retain(|age| *age != oldest);
        for document in self.files.get_mut(file_of(&oldest)).into_iter().flat_map(|file| &mut file.documents)
        {
            let before = document.claims.len();
            document.claims.retain(|(claimed, age)| (claimed, age) != (key, &oldest));
            if document.claims.len() < before {
                document.hash = 0;
            }
        }
    }

    fn tell(&mut self, key: ObjectKey, winner: Winner, changes: &mut Vec<Change>) {
        let Some(claims) = self.claims.get_mut(&key) else { return };
        if claims.ages.len() > 1 {
            // Whoever claims an object that another has is to say so.
            self.talk.extend(claims.ages.iter().map(|age| Arc::from(file_of(age))));
        }
        match winner {
            Winner::New(age) => {
                if let Some(applied) = self.contents.remove(&(key, age.position.clone())) {
                    claims.told = Some(age);
                    changes.push(Change::Applied(applied));
                }
            }
            Winner::Gone => {
                let told = self.claims.remove(&key).and_then(|claims| claims.told);
                if told.is_some() {
                    changes.push(Change::Deleted(key));
                }
            }
            Winner::Same | Winner::Absent(_) => {}
        }
    }

    /// Says what has changed in the findings.
    fn talk(&mut self, changes: &mut Vec<Change>) {
        for name in std::mem::take(&mut self.talk) {
            let Some(file) = self.files.get(&name) else { continue };
            let findings = self.findings(file);
            if findings != file.said {
                changes.push(Change::Findings { place: name.clone(), findings: findings.clone() });
            }
            if let Some(file) = self.files.get_mut(&name) {
                file.said = findings;
                if file.documents.is_empty() && file.said.is_empty() {
                    self.files.remove(&name);
                }
            }
        }
    }

    fn findings(&self, file: &File) -> Vec<Finding> {
        let mut findings = Findings::default();
        for (key, age) in file.documents.iter().flat_map(|document| &document.claims) {
            let told = self.claims.get(key).and_then(|claims| claims.told.as_ref());
            if let Some(told) = told.filter(|told| *told != age) {
                let at = |age| place(age).map(|(file, number)| format!("{file}, document {number}"));
                let (this, other) = (at(age).unwrap_or_default(), at(told).unwrap_or_default());
                let message = format!("is in {other} too, which counts; that of {this} has no effect");
                findings.warning(key, "", "DuplicateObject", message);
            }
        }
        let own: Vec<Finding> = match &file.broken {
            Some(findings) => findings.clone(),
            None => file.documents.iter().flat_map(|document| document.findings.clone()).collect(),
        };
        own.into_iter().chain(findings.into_vec()).collect()
    }
}

/// Who has an object.
enum Winner {
    /// This claim, whose content was just read.
    New(Age),
    /// The one that was told.
    Same,
    /// A claim of this file, whose content was not read lately.
    Absent(Arc<str>),
    /// Nobody.
    Gone,
}

fn file_of(age: &Age) -> &str {
    age.position.split('\0').next().unwrap_or_default()
}

/// The findings of a content that is not taken in.
fn findings_of(parsed: Parsed, known: &[Known]) -> Vec<Finding> {
    let documents = parsed.documents.into_iter().enumerate();
    documents
        .flat_map(|(index, document)| match document.content {
            Content::Unchanged => known.get(index).map(|known| known.findings.clone()).unwrap_or_default(),
            Content::Unreadable(findings) | Content::Read(_, findings) => findings,
        })
        .collect()
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
