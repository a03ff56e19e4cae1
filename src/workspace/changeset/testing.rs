//! Trees of files for tests, and what lies between two of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Alteration, Blobs, Escaped, Manifest, Node, RelPath, VERSION};

/// Numbers that are the same in each run of a test.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % sides
    }
}

/// What is at a path, content and all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    File(Vec<u8>, u32),
    Link(Vec<u8>),
    Folder(u32),
}

pub type Tree = BTreeMap<PathBuf, Item>;

/// Everything below a folder.
pub fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            let found = entry.path().symlink_metadata().expect("there");
            let mode = found.mode() & 0o777;
            let item = if found.is_dir() {
                open.push(path.clone());
                Item::Folder(mode)
            } else if found.is_symlink() {
                let target = fs::read_link(entry.path()).expect("a link");
                Item::Link(target.into_os_string().into_vec())
            } else {
                Item::File(fs::read(entry.path()).expect("a file"), mode)
            };
            tree.insert(path, item);
        }
    }
    tree
}

pub fn write(root: &Path, tree: &Tree) {
    for (path, item) in tree {
        let path = root.join(path);
        match item {
            Item::Folder(_) => fs::create_dir(&path).expect("made"),
            Item::Link(target) => {
                let target = std::ffi::OsStr::from_bytes(target);
                std::os::unix::fs::symlink(target, &path).expect("made");
            }
            Item::File(content, mode) => {
                fs::write(&path, content).expect("made");
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("chmod");
            }
        }
    }
    for (path, item) in tree.iter().rev() {
        if let Item::Folder(mode) = item {
            let mode = fs::Permissions::from_mode(*mode);
            fs::set_permissions(root.join(path), mode).expect("chmod");
        }
    }
}

fn node(item: &Item, blobs: &Blobs) -> Node {
    match item {
        Item::Folder(mode) => Node::Folder { mode: *mode },
        Item::Link(target) => Node::Link { target: Escaped(target.clone()) },
        Item::File(content, mode) => {
            let (sha256, size) = blobs.put(&mut content.as_slice()).expect("kept");
            Node::File { sha256, size, mode: *mode }
        }
    }
}

/// What a run that made `after` of `before` would have left. With `renames`, an addition with the
/// content of a deletion is told as one.
pub fn between(
    workspace: &Path,
    before: &Tree,
    after: &Tree,
    blobs: &Blobs,
    renames: bool,
) -> Manifest {
    let mut paths: Vec<_> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let mut changes = Vec::new();
    for path in paths {
        let (old, new) = (before.get(path), after.get(path));
        if old == new {
            continue;
        }
        let from = match new {
            Some(Item::File(content, _)) if renames && old.is_none() => before
                .iter()
                .find(|(other, item)| {
                    matches!(item, Item::File(text, _) if text == content)
                        && !after.contains_key(*other)
                })
                .map(|(other, _)| RelPath::new(other.clone()).expect("a path")),
            _ => None,
        };
        changes.push(Alteration {
            path: RelPath::new(path.clone()).expect("a path"),
            before: old.map(|item| node(item, blobs)),
            after: new.map(|item| node(item, blobs)),
            from,
            base_moved: false,
            written: None,
        });
    }
    Manifest {
        version: VERSION,
        workspace: workspace.to_owned(),
        changes,
        complete: true,
        ..Manifest::default()
    }
}

const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"a b",
    b"b a",
    b" lead",
    b"trail ",
    b"tab\there",
    b"new\nline",
    b"quo\"te",
    b"back\\slash",
    "\u{fc}mlaut \u{1f980}".as_bytes(),
    b"\xff\xfe",
    b"esc\x1b[31m",
    b"-dash",
    b"null",
    b"dev",
    b"100%",
    b"a => b",
    b"{x}",
    b"\x7f\r",
    b"...",
];

fn content(dice: &mut Dice) -> Vec<u8> {
    let lines: Vec<String> =
        (0..dice.roll(40)).map(|_| format!("line {}\n", dice.roll(6))).collect();
    let mut text = lines.concat().into_bytes();
    match dice.roll(8) {
        0 => text.clear(),
        1 => text.extend([0, 255, 7, b'\n', 0]),
        2 => text.extend(b"no end"),
        3 => text = (0..dice.roll(400)).map(|_| b"\x00\x80\xff\na"[dice.roll(5)]).collect(),
        4 => text.extend(b"windows\r\nold mac\rend\n"),
        _ => {}
    }
    text
}

/// Another content that has something of this one.
fn edited(old: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut lines: Vec<_> =
        old.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(lines.len() + 1);
        match dice.roll(3) {
            0 => lines.insert(at, format!("new {}\n", dice.roll(9)).into_bytes()),
            1 if at < lines.len() => drop(lines.remove(at)),
            _ => lines.push(b"tail".to_vec()),
        }
    }
    lines.concat()
}

fn item(dice: &mut Dice, folders: bool) -> Item {
    let mode = if dice.roll(3) == 0 { 0o755 } else { 0o644 };
    match dice.roll(7) {
        0 | 1 if folders => Item::Folder(0o755),
        2 => Item::Link([b"to/", NAMES[dice.roll(NAMES.len())]].concat()),
        _ => Item::File(content(dice), mode),
    }
}

fn fill(tree: &mut Tree, folder: &Path, dice: &mut Dice, depth: usize) {
    for _ in 0..=dice.roll(6) {
        let path = folder.join(std::ffi::OsStr::from_bytes(NAMES[dice.roll(NAMES.len())]));
        if tree.contains_key(&path) {
            continue;
        }
        let item = item(dice, depth < 3);
        let is_folder = matches!(item, Item::Folder(_));
        tree.insert(path.clone(), item);
        if is_folder {
            fill(tree, &path, dice, depth + 1);
        }
    }
}

pub fn random(dice: &mut Dice) -> Tree {
    let mut tree = Tree::new();
    fill(&mut tree, Path::new(""), dice, 0);
    tree
}

/// A tree that an agent could have made of this one.
pub fn changed(old: &Tree, dice: &mut Dice) -> Tree {
    let mut tree = old.clone();
    for _ in 0..=dice.roll(6) {
        let paths: Vec<_> = tree.keys().cloned().collect();
        if paths.is_empty() {
            break;
        }
        let path = paths[dice.roll(paths.len())].clone();
        let depth = path.components().count() - 1;
        let found = tree[&path].clone();
        let take = |tree: &mut Tree| tree.retain(|other, _| !other.starts_with(&path));
        match (dice.roll(7), found) {
            (0, _) => take(&mut tree),
            (1, Item::File(content, mode)) => {
                tree.insert(path, Item::File(content, mode ^ 0o111));
            }
            (2, Item::File(content, mode)) => {
                let to = path.with_file_name("moved");
                if !tree.contains_key(&to) {
                    take(&mut tree);
                    tree.insert(to, Item::File(content, mode));
                }
            }
            (3, _) => {
                take(&mut tree);
                let new = item(dice, depth < 3);
                let is_folder = matches!(new, Item::Folder(_));
                tree.insert(path.clone(), new);
                if is_folder {
                    fill(&mut tree, &path, dice, depth + 1);
                }
            }
            (4, Item::Folder(_)) => fill(&mut tree, &path, dice, depth + 1),
            (_, Item::File(content, mode)) => {
                tree.insert(path, Item::File(edited(&content, dice), mode));
            }
            (_, Item::Link(mut target)) => {
                target.push(b'x');
                tree.insert(path, Item::Link(target));
            }
            (_, Item::Folder(_)) => fill(&mut tree, Path::new(""), dice, 0),
        }
    }
    tree
}
