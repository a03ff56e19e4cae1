//! Which files there are: what the project's ignore rules leave, as ripgrep would list them.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ignore::overrides::{Override, OverrideBuilder};
use rustix::fs::FileType;
use serde::Serialize;

use super::super::ignores::Ignores;
use super::super::walk::{Entry, Limits, Visitor, open_folder, walk};
use super::laid::Laid;
use super::place::{self, Place};
use super::{Error, Project};
use crate::text;

/// A listing beyond these is not complete, and says so.
const WALK: Limits = Limits { entries: 100_000, time: Duration::from_secs(2) };

/// What the names of one page may take as JSON; an answer stays below 8 KiB.
const PAGE: usize = 7 * 1024;

const LONGEST_GLOB: usize = 256;

/// Which files are meant.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// A file or a folder, relative to the project; all of it when empty.
    pub path: String,
    /// As `--glob` of ripgrep: relative to the project, `!` before it excludes.
    pub glob: Option<String>,
    /// Whether names that begin with a dot count.
    pub hidden: bool,
}

/// A page of file names.
#[derive(Debug, Serialize)]
pub struct Listing {
    pub total: usize,
    /// False when there were too many to look at.
    pub complete: bool,
    /// What to ask for to see more.
    pub next_cursor: Option<String>,
    /// Regular files whose names cannot be shown faithfully.
    pub unnameable: usize,
    /// Symbolic links, which are not followed.
    pub links: usize,
    pub files: Vec<String>,
}

/// Files in the order of depth, then of names.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub paths: Vec<String>,
    pub complete: bool,
    pub unnameable: usize,
    pub links: usize,
}

impl Project {
    /// Lists files, `cursor` being the last one of the page before.
    pub fn list(&self, selection: &Selection, cursor: Option<&str>) -> Result<Listing, Error> {
        let files = self.gather(selection)?;
        let from =
            cursor.map_or(0, |last| files.paths.partition_point(|path| rank(path) <= rank(last)));
        let mut room = PAGE;
        let page: Vec<String> = files.paths[from..]
            .iter()
            .take_while(|path| {
                let length = path.chars().map(text::json_length).sum::<usize>() + 3;
                let fits = length <= room || room == PAGE;
                room = room.saturating_sub(length);
                fits
            })
            .cloned()
            .collect();
        let more = from + page.len() < files.paths.len();
        Ok(Listing {
            total: files.paths.len(),
            complete: files.complete,
            next_cursor: page.last().filter(|_| more).cloned(),
            unnameable: files.unnameable,
            links: files.links,
            files: page,
        })
    }

    pub(super) fn gather(&self, selection: &Selection) -> Result<Files, Error> {
        let path = place::relative(&selection.path)?;
        let globs = globs(&self.path, selection.glob.as_deref())?;
        let folder = match self.place(&path)? {
            Place::Folder(folder) => Some(folder),
            // The project can have a folder there, too.
            Place::Made => open_folder(self.root(), &path).ok(),
            Place::File(_) => {
                // Who names one file means it, ignored or not.
                let mut files = Files { complete: true, ..Files::default() };
                files.note(&path);
                return Ok(files);
            }
        };
        let mut ignores = Ignores::around(&self.path);
        let laid = self.laid.as_ref();
        for (folder, text) in laid.into_iter().flat_map(Laid::rules) {
            ignores.lay(folder, &text);
        }
        for above in path.ancestors().skip(1) {
            let own = laid.is_some_and(|laid| laid.has(&above.join(".gitignore")));
            if !own && let Ok(opened) = open_folder(self.root(), above) {
                ignores.read(above, opened.as_fd());
            }
        }
        let hidden = selection.hidden;
        let mut gather =
            Gather { base: path, ignores, globs, hidden, laid, files: Files::default() };
        gather.files.complete = folder.is_none_or(|folder| walk(folder.as_fd(), WALK, &mut gather));
        gather.add_laid();
        let mut files = gather.files;
        files.paths.sort_unstable_by(|left, right| rank(left).cmp(&rank(right)));
        Ok(files)
    }
}

/// The top of a project matters most, so it comes first.
fn rank(path: &str) -> (usize, &str) {
    (path.matches('/').count(), path)
}

fn globs(root: &Path, glob: Option<&str>) -> Result<Override, Error> {
    let Some(glob) = glob else { return Ok(Override::empty()) };
    let wrong =
        |why: &str| Error::Glob { given: text::one_line(glob, 100), why: text::one_line(why, 200) };
    if glob.len() > LONGEST_GLOB {
        return Err(wrong("it is too long"));
    }
    let mut builder = OverrideBuilder::new(root);
    builder.add(glob).map_err(|error| wrong(&error.to_string()))?;
    builder.build().map_err(|error| wrong(&error.to_string()))
}

struct Gather<'a> {
    base: PathBuf,
    ignores: Ignores,
    globs: Override,
    hidden: bool,
    laid: Option<&'a Laid>,
    files: Files,
}

impl Gather<'_> {
    /// Whether what has this path is shown, given that the folders on the way to it are.
    fn shows(&self, path: &Path, is_dir: bool) -> bool {
        let Some(name) = path.file_name() else { return true };
        if place::is_git(name) || (name.as_encoded_bytes().starts_with(b".") && !self.hidden) {
            return false;
        }
        // A glob that wants a file wins over the rules, as with ripgrep.
        match self.globs.matched(path, is_dir) {
            ignore::Match::Ignore(_) => false,
            ignore::Match::Whitelist(_) => true,
            ignore::Match::None => !self.ignores.hides(path, is_dir),
        }
    }

    /// What a run made.
    fn add_laid(&mut self) {
        let Some(laid) = self.laid else { return };
        let base = self.base.clone();
        let (files, all) = laid.below(&base);
        self.files.complete &= all;
        for (path, is_file) in files {
            let mut folders = path.ancestors().skip(1).take_while(|above| *above != base);
            if !self.shows(path, false) || !folders.all(|above| self.shows(above, true)) {
                continue;
            }
            if is_file {
                self.files.note(path);
            } else {
                self.files.links += 1;
            }
        }
    }
}

impl Visitor for Gather<'_> {
    fn enter(&mut self, folder: &Path, opened: BorrowedFd<'_>) {
        let folder = self.base.join(folder);
        if !self.laid.is_some_and(|laid| laid.has(&folder.join(".gitignore"))) {
            self.ignores.read(&folder, opened);
        }
    }

    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let path = self.base.join(folder).join(entry.name);
        let kind = entry.kind();
        let is_dir = kind == FileType::Directory;
        let hidden = self.laid.is_some_and(|laid| laid.hides(&path, is_dir));
        if hidden || !self.shows(&path, is_dir) {
            return false;
        }
        match kind {
            FileType::RegularFile => self.files.note(&path),
            FileType::Symlink => self.files.links += 1,
            _ => {}
        }
        is_dir
    }

    fn closed(&mut self, _folder: &Path) {
        self.files.complete = false;
    }
}

impl Files {
    /// A name that would have to be changed to be shown would name nothing.
    fn note(&mut self, path: &Path) {
        match path.to_str() {
            Some(name) if text::clean(name) == name && !name.contains(['\n', '\t']) => {
                self.paths.push(name.to_owned());
            }
            _ => self.unnameable += 1,
        }
    }
}
