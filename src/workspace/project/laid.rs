//! What a run in a view of its own made, laid over the project as it is.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Error;
use super::place::{Place, shown};
use crate::workspace::changeset::{Blobs, Manifest, Node};

/// Rules of which no more is read.
const LARGEST_RULES: u64 = 256 << 10;

/// Most files of rules that are read.
const MOST_RULES: usize = 1000;

/// Most files that are looked at.
const MOST: usize = 100_000;

#[derive(Debug)]
pub(super) struct Laid {
    /// What is at each changed path; nothing where it is gone. In the order of paths, so that what
    /// is in a folder follows it.
    at: BTreeMap<PathBuf, Option<Node>>,
    blobs: Blobs,
}

impl Laid {
    pub fn new(changes: &Manifest, blobs: Blobs) -> Self {
        let at = changes.changes.iter();
        let at = at.map(|change| (change.path.as_path().to_owned(), change.after.clone()));
        Self { at: at.collect(), blobs }
    }

    /// What a path leads to, if the run decides about it and not the project.
    pub fn find(&self, path: &Path) -> Result<Option<Place>, Error> {
        let given = || shown(path);
        let mut ways: Vec<_> = path.ancestors().collect();
        ways.reverse();
        for way in ways {
            let end = way == path;
            match self.at.get(way) {
                Some(None) => return Err(Error::Missing { given: given() }),
                Some(Some(Node::Link { .. })) if end => {
                    return Err(Error::Link { given: given() });
                }
                Some(Some(Node::File { sha256, size, .. })) if end => {
                    let file = self.blobs.open(sha256, *size);
                    let file = file.map_err(|error| Error::Unreadable {
                        given: given(),
                        source: std::io::Error::other(error.to_string()),
                    })?;
                    return Ok(Some(Place::File(file)));
                }
                Some(Some(Node::Link { .. } | Node::File { .. })) => {
                    return Err(Error::Blocked { given: given() });
                }
                Some(Some(Node::Folder { .. })) if end => return Ok(Some(Place::Made)),
                Some(Some(Node::Folder { .. })) | None => {}
            }
        }
        Ok(None)
    }

    /// Whether the project's own entry at a path is not what the run left there.
    pub fn hides(&self, path: &Path, is_dir: bool) -> bool {
        match self.at.get(path) {
            Some(Some(Node::Folder { .. })) => !is_dir,
            Some(_) => true,
            None => false,
        }
    }

    /// Whether the run decides about a path.
    pub fn has(&self, path: &Path) -> bool {
        self.at.contains_key(path)
    }

    /// Files below a folder, and links; the second is whether those are all.
    pub fn below<'a>(&'a self, folder: &'a Path) -> (impl Iterator<Item = (&'a Path, bool)>, bool) {
        let all = self.at.range(folder.to_owned()..);
        let all = all.take_while(move |(path, _)| path.starts_with(folder));
        let files = all.filter_map(|(path, node)| match node {
            Some(Node::File { .. }) => Some((path.as_path(), true)),
            Some(Node::Link { .. }) => Some((path.as_path(), false)),
            _ => None,
        });
        (files.take(MOST), self.at.len() <= MOST)
    }

    /// The rules that the run left in folders, each with its text.
    pub fn rules(&self) -> impl Iterator<Item = (&Path, String)> {
        let all = self.at.iter().filter_map(|(path, node)| match node {
            Some(Node::File { sha256, size, .. }) if *size <= LARGEST_RULES => {
                (path.file_name()? == ".gitignore").then_some((path, sha256, size))
            }
            _ => None,
        });
        all.take(MOST_RULES).filter_map(|(path, sha256, size)| {
            let mut bytes = Vec::new();
            let file = self.blobs.open(sha256, *size).ok()?;
            file.take(*size).read_to_end(&mut bytes).ok()?;
            Some((path.parent()?, String::from_utf8_lossy(&bytes).into_owned()))
        })
    }
}
