//! A project with the changes of a run laid over it is what it is when they are carried over.

use std::fs;
use std::path::Path;

use super::tests::Place;
use super::*;
use crate::workspace::changeset::testing::{Dice, Tree, between, changed, random, read, write};

fn laid(place: &Place, after: &Tree) -> Project {
    let blobs = Blobs::new(place.folder.path().join("blobs"));
    let manifest = between(&place.path, &read(&place.path), after, &blobs, true);
    place.project().with(&manifest, blobs)
}

fn everything() -> Selection {
    Selection { hidden: true, ..Selection::default() }
}

fn seen(project: &Project, selection: &Selection) -> (Vec<String>, usize, usize, bool) {
    let files = project.gather(selection).expect("a listing");
    (files.paths, files.links, files.unnameable, files.complete)
}

#[test]
fn it_is_what_it_is_when_they_are_carried_over() {
    for round in 0..60 {
        let mut dice = Dice(0xabcd_ef01 ^ (round << 24));
        let (place, other) = (Place::new(), Place::new());
        let mut before = random(&mut dice);
        let rules = [&b"a\n"[..], b"b/\n!a\n", b"*\n!*/\n"][dice.roll(3)].to_vec();
        before.insert(
            ".gitignore".into(),
            crate::workspace::changeset::testing::Item::File(rules, 0o644),
        );
        let after = changed(&before, &mut dice);
        write(&place.path, &before);
        write(&other.path, &after);
        let (laid, plain) = (laid(&place, &after), other.project());
        assert_eq!(seen(&laid, &everything()), seen(&plain, &everything()), "round {round}");
        for path in after.keys().chain(before.keys()) {
            let Some(path) = path.to_str() else { continue };
            let range = Range { start: 1, lines: None };
            let text = |project: &Project| match project.read(path, range) {
                Ok(excerpt) => Ok(excerpt.text),
                Err(error) => Err(error.to_string()),
            };
            assert_eq!(text(&laid), text(&plain), "round {round}: {path:?}");
            let selection = Selection { path: path.into(), ..everything() };
            let files = |project: &Project| {
                project.gather(&selection).map(|files| files.paths).map_err(|e| e.to_string())
            };
            assert_eq!(files(&laid), files(&plain), "round {round}: {path:?}");
        }
        let query = |project: &Project| {
            let query = Query {
                pattern: "line 3|new".into(),
                case_sensitive: true,
                context: 1,
                most: 50,
                selection: everything(),
            };
            serde_json::to_string(&project.search(&query).expect("searched")).expect("JSON")
        };
        assert_eq!(query(&laid), query(&plain), "round {round}");
    }
}

#[test]
fn rules_that_the_run_wrote_count() {
    let place = Place::new();
    place
        .write("kept", "1")
        .write("build/x", "1")
        .write("docs/.gitignore", "*.md")
        .write("docs/a.md", "1");
    let other = Place::new();
    other
        .write("kept", "1")
        .write("build/x", "1")
        .write(".gitignore", "build/\n")
        .write("new/y", "1");
    other.write("docs/a.md", "1").write("build/z", "1");
    let project = laid(&place, &read(&other.path));
    let files = project.list(&Selection::default(), None).expect("listed").files;
    assert_eq!(files, ["kept", "docs/a.md", "new/y"]);
    let only = Selection { path: "new".into(), ..Selection::default() };
    assert_eq!(project.list(&only, None).expect("listed").files, ["new/y"]);
}

#[test]
fn damaged_contents_are_not_shown() {
    let place = Place::new();
    place.write("a", "1");
    let other = Place::new();
    other.write("a", "2");
    let project = laid(&place, &read(&other.path));
    for entry in fs::read_dir(place.folder.path().join("blobs")).expect("blobs") {
        fs::write(entry.expect("entry").path(), "?").expect("damaged");
    }
    let refused = project.read("a", Range { start: 1, lines: None }).expect_err("damaged");
    assert!(refused.to_string().contains("is not what it was"), "{refused}");
    assert!(!Path::new(&place.path).join("b").exists());
}
