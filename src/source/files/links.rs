//! What links lead through, so that a change of it is seen as a change of the links.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How many links a path may lead through, which is the kernel's own limit.
const MAX_LINKS: usize = 40;

/// The links of a folder.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// What each link leads through.
    ways: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    /// The links that lead through a path.
    through: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
}

impl Links {
    /// Takes in where a link leads now; one that is no link any more is forgotten. Answers the folders in which a change
    /// may lead it elsewhere.
    pub(super) fn follow(&mut self, link: &Path) -> BTreeSet<PathBuf> {
        for place in self.ways.remove(link).unwrap_or_default() {
            if let Some(links) = self.through.get_mut(&place) {
                links.remove(link);
                if links.is_empty() {
                    self.through.remove(&place);
                }
            }
        }
        let way = way(link);
        for place in &way {
            self.through.entry(place.clone()).or_default().insert(link.to_owned());
        }
        let folders = way.iter().filter_map(|place| place.parent()).map(Path::to_owned).collect();
        if !way.is_empty() {
            self.ways.insert(link.to_owned(), way);
        }
        folders
    }

    /// The links that lead through a path, by whatever name of its folder.
    pub(super) fn through(&self, path: &Path) -> Vec<PathBuf> {
        if self.through.is_empty() {
            return Vec::new();
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
        let Ok(folder) = fs::canonicalize(folder) else { return Vec::new() };
        self.through.get(&folder.join(name)).into_iter().flatten().cloned().collect()
    }
}

/// The links that a link leads through, and what it leads to in the end or, where that is not there, the first part of the
/// way that is missing. Of a link that leads nowhere, since it leads to itself, all that are on its way.
fn way(link: &Path) -> BTreeSet<PathBuf> {
    let mut way = BTreeSet::new();
    let (Some(folder), Ok(target)) = (link.parent(), fs::read_link(link)) else { return way };
    let Ok(mut at) = fs::canonicalize(folder) else { return way };
    let mut rest: VecDeque<OsString> = VecDeque::new();
    let push = |rest: &mut VecDeque<OsString>, target: &Path| {
        for component in target.components().rev() {
            rest.push_front(component.as_os_str().to_owned());
        }
    };
    push(&mut rest, &target);
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::Normal(name)) => {
                let place = at.join(name);
                if let Ok(target) = fs::read_link(&place) {
                    way.insert(place);
                    links += 1;
                    if links == MAX_LINKS {
                        return way;
                    }
                    push(&mut rest, &target);
                } else if place.exists() {
                    at = place;
                } else {
                    way.insert(place);
                    return way;
                }
            }
            _ => {}
        }
    }
    way.insert(at);
    way
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_way_ends_at_what_is_there_or_missing() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let at = |name: &str| root.join(name);
        fs::create_dir_all(at("volume/..1")).unwrap();
        fs::write(at("volume/..1/a"), "").unwrap();
        symlink("..1", at("volume/..data")).unwrap();
        symlink("..data/a", at("volume/a")).unwrap();
        symlink(at("volume/a"), at("link")).unwrap();
        symlink("volume/../volume/none/a", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let way = |name: &str| way(&at(name)).into_iter().collect::<Vec<_>>();
        assert_eq!(way("link"), [at("volume/..1/a"), at("volume/..data"), at("volume/a")]);
        assert_eq!(way("dangling"), [at("volume/none")]);
        assert!(way("volume/..1/a").is_empty());
        assert_eq!(way("loop"), [at("loop")]);

        let mut links = Links::default();
        assert_eq!(links.follow(&at("link")), [at("volume"), at("volume/..1")].into());
        assert_eq!(links.through(&at("volume/../volume/..data")), [at("link")]);
        fs::remove_file(at("link")).unwrap();
        assert!(links.follow(&at("link")).is_empty());
        assert!(links.through.is_empty() && links.ways.is_empty());
    }
}
