use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::source::files::parse;
use crate::store::Object;

/// A folder and a listener that holds what it was told.
#[derive(Default)]
struct World {
    disk: BTreeMap<Arc<str>, String>,
    folder: Folder,
    /// Objects, and the text in them.
    objects: BTreeMap<ObjectKey, String>,
    findings: BTreeMap<Arc<str>, Vec<Finding>>,
}

impl World {
    fn write(&mut self, file: &str, text: &str) {
        let file: Arc<str> = file.into();
        let parsed = parse(&file, text.as_bytes(), &self.folder.known(&file));
        self.folder.set(&file, parsed);
        self.disk.insert(file, text.to_owned());
    }

    fn remove(&mut self, file: &str) {
        self.folder.remove(&file.into());
        self.disk.remove(file);
    }

    /// Takes the changes in; says them, a line each.
    fn changes(&mut self) -> Vec<String> {
        let disk = &self.disk;
        let changes = self.folder.changes(|name| Some(parse(name, disk.get(name)?.as_bytes(), &[])));
        changes.into_iter().map(|change| self.take(change)).collect()
    }

    fn take(&mut self, change: Change) -> String {
        match change {
            Change::Applied(applied) => {
                let key = applied.key.clone();
                let Object::ConfigMap(map) = applied.object.clone() else { panic!("{key}") };
                let text = map.data.unwrap_or_default().remove("x").unwrap_or_default();
                let line = format!("{} {text}", key.name);
                self.objects.insert(key, text);
                line
            }
            Change::Deleted(key) => {
                assert!(self.objects.remove(&key).is_some(), "{key} was never told");
                format!("-{}", key.name)
            }
            Change::Findings { place, findings } => {
                let line =
                    findings.iter().map(|it| format!("{} {}", it.object, it.reason)).collect::<Vec<_>>();
                self.findings.insert(place.clone(), findings);
                format!("{place}: {}", line.join(", "))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn map(name: &str, text: &str) -> String {
    format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{x: {text}}}}}\n")
}

#[test]
fn what_was_read_goes_with_the_name() {
    let mut world = World::default();
    let (good, broken) = (map("one", "a") + &map("two", "[1]"), "{apiVersion: v1, ki");
    world.write("b", &map("two", "b"));
    world.write("c", &map("one", "c"));
    world.changes();
    world.write("a", &good);
    assert_eq!(
        world.changes(),
        ["one a", "a: ConfigMap/default/two Malformed", "c: ConfigMap/default/one DuplicateObject"]
    );
    world.write("a", broken);
    assert_eq!(world.changes(), ["a: Manifest/a#1 Unreadable"]);
    world.folder.rename(&"a".into(), &"d".into());
    world.write("d", broken);
    world.remove("a");
    assert_eq!(
        world.changes(),
        ["a: ", "d: Manifest/d#1 Unreadable"],
        "whoever was first stays so until its file can be read"
    );
    world.write("d", &good);
    assert_eq!(
        world.changes(),
        ["one c", "c: ", "d: ConfigMap/default/two Malformed, ConfigMap/default/one DuplicateObject"],
        "by its new name it is the younger one"
    );
}

#[test]
fn what_has_changed_is_told_once() {
    let mut world = World::default();
    world.write("a", &(map("one", "a") + &map("two", "a")));
    assert_eq!(world.changes(), ["one a", "two a"]);
    assert_eq!(world.changes(), [""; 0]);
    world.write("a", &(map("one", "a") + &map("two", "b")));
    assert_eq!(world.changes(), ["two b"]);
    world.write("a", &map("two", "b"));
    // It is the first in the file now, which makes it another one in age.
    assert_eq!(world.changes(), ["-one", "two b"]);
    world.remove("a");
    assert_eq!(world.changes(), ["-two"]);
    assert!(world.folder.files.is_empty() && world.folder.claims.is_empty());
}

#[test]
fn a_file_that_is_not_yaml_keeps_all_it_had() {
    let mut world = World::default();
    world.write("a", &(map("one", "a") + &map("two", "a")));
    world.changes();
    world.write("a", &(map("one", "b") + "---\n{apiVersion: v1, ki"));
    assert_eq!(world.changes(), ["a: Manifest/a#2 Unreadable"]);
    world.write("a", &(map("one", "b") + &map("two", "a")));
    assert_eq!(world.changes(), ["one b", "a: "]);
    // At first there is nothing to keep: what can be read is better than nothing.
    world.write("b", &("---\n{apiVersion: v1, ki\n".to_owned() + &map("three", "b")));
    assert_eq!(world.changes(), ["three b", "b: Manifest/b#1 Unreadable"]);
}

#[test]
fn an_object_that_cannot_be_read_keeps_its_last_form() {
    let mut world = World::default();
    world.write("a", &(map("one", "a") + &map("two", "a")));
    world.changes();
    world.write("a", &(map("one", "b") + &map("two", "[1]") + &map("three", "a")));
    assert_eq!(world.changes(), ["one b", "three a", "a: ConfigMap/default/two Malformed"]);
    world.write("a", &(map("two", "[1]") + &map("one", "b")));
    // The finding is about another document now.
    assert_eq!(world.changes(), ["one b", "-three", "a: ConfigMap/default/two Malformed"]);
    assert_eq!(world.objects.len(), 2);
    world.write("a", &map("one", "b"));
    assert_eq!(world.changes(), ["one b", "-two", "a: "]);
}

#[test]
fn the_first_of_several_counts() {
    let mut world = World::default();
    world.write("b", &map("one", "b"));
    world.changes();
    world.write("c", &map("one", "c"));
    assert_eq!(world.changes(), ["c: ConfigMap/default/one DuplicateObject"]);
    let message = &world.findings["c"][0].message;
    assert_eq!(message, "is in b, document 1 too, which counts; that of c, document 1 has no effect");
    world.write("a", &map("one", "a"));
    assert_eq!(
        world.changes(),
        ["one a", "b: ConfigMap/default/one DuplicateObject", "c: ConfigMap/default/one DuplicateObject"]
    );
    // The object goes to a file that was read long ago.
    world.remove("a");
    assert_eq!(world.changes(), ["one b", "b: ", "c: ConfigMap/default/one DuplicateObject"]);
    // Moved to another name: it was never away.
    world.remove("b");
    world.write("bb", &map("one", "b"));
    assert_eq!(world.changes(), ["one b", "c: ConfigMap/default/one DuplicateObject"]);
    // A stamp makes it older than any without.
    let stamped =
        map("one", "d").replace("{name: one}", "{name: one, creationTimestamp: '2020-01-01T00:00:00Z'}");
    world.write("d", &stamped);
    assert_eq!(world.changes()[0], "one d");
    // Twice in one file.
    world.write("e", &(map("two", "a") + &map("two", "b")));
    assert_eq!(world.changes(), ["two a", "e: ConfigMap/default/two DuplicateObject"]);
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<(usize, usize)>),
    Garble(usize, Vec<(usize, usize)>),
    Remove(usize),
    Tell,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let content = prop::collection::vec((0..3_usize, 0..3_usize), 0..3);
    let step = prop_oneof![
        4 => (0..3_usize, content.clone()).prop_map(|(file, content)| Step::Write(file, content)),
        1 => (0..3_usize, content).prop_map(|(file, content)| Step::Garble(file, content)),
        1 => (0..3_usize).prop_map(Step::Remove),
        3 => Just(Step::Tell),
    ];
    prop::collection::vec(step, 0..12)
}

fn text_of(content: &[(usize, usize)]) -> String {
    content.iter().map(|(name, text)| map(&format!("n{name}"), &format!("t{text}"))).collect()
}

proptest! {
    /// However a folder came to be as it is, what was told in all is what a reader finds who comes now.
    #[test]
    fn changes_add_up(steps in steps()) {
        let mut world = World::default();
        for step in &steps {
            match step {
                Step::Write(file, content) => world.write(&format!("f{file}"), &text_of(content)),
                Step::Garble(file, content) => world.write(&format!("f{file}"), &(text_of(content) + "---\n{")),
                Step::Remove(file) => world.remove(&format!("f{file}")),
                Step::Tell => drop(world.changes()),
            }
        }
        // Broken files are mended, since a reader who comes now has nothing to keep.
        for file in world.disk.keys().cloned().collect::<Vec<_>>() {
            let text = world.disk[&file].trim_end_matches("---\n{").to_owned();
            world.write(&file, &text);
        }
        world.changes();
        let mut fresh = World::default();
        for (file, text) in &world.disk {
            fresh.write(file, text);
        }
        fresh.changes();
        prop_assert_eq!(&world.objects, &fresh.objects);
        world.findings.retain(|_, findings| !findings.is_empty());
        prop_assert_eq!(&world.findings, &fresh.findings);
    }
}
