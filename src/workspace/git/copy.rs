//! Copying the small files of a git directory, and nothing else of it.
//!
//! Into a folder of ours that nobody else reaches yet, from a repository that others may be at work
//! in: each file is taken as it is at one moment, and loose references before packed ones, because
//! git moves them in this direction.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType};

use super::super::walk::{open_folder, step};
use super::read::{look, open_file, small};
use super::settings;

/// Most of one file of each kind.
const SETTINGS: u64 = 1 << 20;
const REFERENCE: u64 = 4 << 10;
const STATE: u64 = 4 << 20;
const LOG: u64 = 256 << 10;
const PACKED: u64 = 256 << 20;
const INDEX: u64 = 1 << 30;

/// Folders in folders: deeper than names of branches go.
const DEEPEST: usize = 32;

/// What else of a working tree git keeps in folders: what it is in the middle of.
const STATES: &[&str] = &["rebase-merge", "rebase-apply", "sequencer"];

/// References that each working tree has for itself.
const OWN_REFERENCES: &[&str] = &["bisect", "worktree", "rewritten"];

/// Why a git directory was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("copy the git directory to `{}`: {source}", crate::text::one_line(&.path.display().to_string(), 200))]
    Io { path: PathBuf, source: io::Error },
    #[error("copy the git directory: it has more than {0}")]
    TooMuch(&'static str),
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::Io { path, source }
}

/// What is still to be copied at most, of all repositories of a run.
#[derive(Debug)]
pub(super) struct Copier {
    pub files: u64,
    pub bytes: u64,
    /// Who is to own it, where that is to be said.
    pub owner: Option<(u32, u32)>,
}

/// Which part of a repository is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it: there is one working tree.
    Whole,
    /// What all working trees share.
    Common,
    /// What one linked working tree has for itself.
    Worktree,
}

impl Copier {
    pub fn new(owner: Option<(u32, u32)>) -> Self {
        Self { files: 200_000, bytes: 2 << 30, owner }
    }

    pub fn folder(&self, path: &Path) -> Result<(), CopyError> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made.map_err(failed(path))?,
        }
        self.own(path)
    }

    /// Makes a folder and those above it, up to `root`, which is there.
    pub fn folders(&self, root: &Path, below: &Path) -> Result<PathBuf, CopyError> {
        let mut at = root.to_owned();
        for part in below {
            at.push(part);
            self.folder(&at)?;
        }
        Ok(at)
    }

    pub fn write(&mut self, path: &Path, content: &[u8]) -> Result<(), CopyError> {
        self.spend(content.len() as u64)?;
        fs::write(path, content).map_err(failed(path))?;
        self.own(path)
    }

    pub fn own(&self, path: &Path) -> Result<(), CopyError> {
        match self.owner {
            Some((uid, gid)) => {
                std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(failed(path))
            }
            None => Ok(()),
        }
    }

    fn spend(&mut self, bytes: u64) -> Result<(), CopyError> {
        self.files = self.files.checked_sub(1).ok_or(CopyError::TooMuch("200,000 references"))?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(CopyError::TooMuch("2 GiB"))?;
        Ok(())
    }

    /// Copies the files of a git directory. `worktree` is where its working tree is inside, where
    /// that has to be said.
    pub fn part(
        &mut self,
        from: BorrowedFd<'_>,
        to: &Path,
        part: Part,
        worktree: Option<&Path>,
    ) -> Result<(), CopyError> {
        self.folder(to)?;
        self.file(from, "HEAD", to, REFERENCE)?;
        if part != Part::Common {
            self.own_part(from, to, part)?;
        }
        if part == Part::Worktree {
            return Ok(());
        }
        self.tree(from, "refs", to, REFERENCE)?;
        self.folder(&to.join("refs"))?;
        for folder in ["heads", "tags"] {
            self.folder(&to.join("refs").join(folder))?;
        }
        self.file(from, "packed-refs", to, PACKED)?;
        self.file(from, "shallow", to, PACKED)?;
        self.tree(from, "logs", to, LOG)?;
        self.folder(&to.join("info"))?;
        if let Ok(info) = open_folder(from, Path::new("info")) {
            for name in ["exclude", "attributes", "grafts"] {
                self.file(info.as_fd(), name, &to.join("info"), SETTINGS)?;
            }
        }
        let theirs = small(from, "config", SETTINGS).unwrap_or_default();
        self.write(&to.join("config"), settings::inside(&theirs, worktree).as_bytes())?;
        self.folders(to, Path::new("objects/info"))?;
        self.folders(to, Path::new("objects/pack"))?;
        // Empty: what the user's hooks run is not there, but tools expect the folder.
        self.folder(&to.join("hooks"))?;
        Ok(())
    }

    /// What a working tree has for itself.
    fn own_part(&mut self, from: BorrowedFd<'_>, to: &Path, part: Part) -> Result<(), CopyError> {
        for (name, _) in names(from) {
            let Some(name) = name.to_str() else { continue };
            let state = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            if state && name != "HEAD" {
                self.file(from, name, to, STATE)?;
            } else if name == "index" || name.starts_with("sharedindex.") {
                self.file(from, name, to, INDEX)?;
            }
        }
        for state in STATES {
            self.tree(from, state, to, STATE)?;
        }
        self.folder(&to.join("info"))?;
        if let Ok(info) = open_folder(from, Path::new("info")) {
            self.file(info.as_fd(), "sparse-checkout", &to.join("info"), PACKED)?;
        }
        if let Some(theirs) = small(from, "config.worktree", SETTINGS) {
            let text = settings::inside(&theirs, None);
            self.write(&to.join("config.worktree"), text.as_bytes())?;
        }
        if part == Part::Whole {
            return Ok(());
        }
        if let Ok(refs) = open_folder(from, Path::new("refs")) {
            self.folder(&to.join("refs"))?;
            for name in OWN_REFERENCES {
                self.tree(refs.as_fd(), name, &to.join("refs"), REFERENCE)?;
            }
        }
        if let Ok(logs) = open_folder(from, Path::new("logs")) {
            self.folder(&to.join("logs"))?;
            self.file(logs.as_fd(), "HEAD", &to.join("logs"), LOG)?;
        }
        Ok(())
    }

    /// Copies a folder and all below it: files of at most so many bytes, and of logs their ends.
    fn tree(
        &mut self,
        from: BorrowedFd<'_>,
        name: &str,
        to: &Path,
        most: u64,
    ) -> Result<(), CopyError> {
        let Ok(opened) = open_folder(from, Path::new(name)) else { return Ok(()) };
        self.below(opened.as_fd(), &to.join(name), most, 0)
    }

    fn below(
        &mut self,
        from: BorrowedFd<'_>,
        to: &Path,
        most: u64,
        depth: usize,
    ) -> Result<(), CopyError> {
        self.folder(to)?;
        for (name, kind) in names(from) {
            match kind {
                FileType::Directory if depth < DEEPEST => {
                    if let Ok(folder) = step(from, &name) {
                        self.spend(0)?;
                        self.below(folder.as_fd(), &to.join(&name), most, depth + 1)?;
                    }
                }
                FileType::RegularFile if !name.as_bytes().ends_with(b".lock") => {
                    self.copied(from, &name, to, most)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        name: &str,
        to: &Path,
        most: u64,
    ) -> Result<(), CopyError> {
        self.copied(from, OsStr::new(name), to, most)
    }

    /// Copies one file with its time, by which git knows what in an index was looked at too early.
    /// Of what is too long the end is taken if it is a log, else nothing.
    fn copied(
        &mut self,
        from: BorrowedFd<'_>,
        name: &OsStr,
        to: &Path,
        most: u64,
    ) -> Result<(), CopyError> {
        let Ok(mut file) = open_file(from, name) else { return Ok(()) };
        let Ok(found) = file.metadata() else { return Ok(()) };
        let to = to.join(name);
        let mut taken = found.len();
        let mut cut = Vec::new();
        if taken > most {
            match most {
                LOG if file.seek(SeekFrom::Start(taken - most)).is_ok() => {}
                INDEX | PACKED => {
                    return Err(CopyError::TooMuch(
                        "1 GiB of index or 256 MiB of packed references",
                    ));
                }
                _ => return Ok(()),
            }
            taken = most;
            // From the next line's beginning on.
            (&mut file).take(most).read_to_end(&mut cut).map_err(failed(&to))?;
            let line = cut.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            cut.drain(..line);
        }
        self.spend(taken)?;
        let mut out = File::create_new(&to).map_err(failed(&to))?;
        if cut.is_empty() {
            io::copy(&mut file.take(most), &mut out).map_err(failed(&to))?;
        } else {
            io::copy(&mut cut.as_slice(), &mut out).map_err(failed(&to))?;
        }
        if let Ok(modified) = found.modified() {
            out.set_times(FileTimes::new().set_modified(modified)).map_err(failed(&to))?;
        }
        self.own(&to)
    }
}

/// The entries of a folder, with their kinds.
pub(super) fn names(folder: BorrowedFd<'_>) -> Vec<(std::ffi::OsString, FileType)> {
    let Ok(entries) = step(folder, OsStr::new(".")).and_then(Dir::new) else { return Vec::new() };
    let entries = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(look(folder, name.to_str().ok()?)?.st_mode)
            }
            kind => kind,
        };
        let name = OsStr::from_bytes(name.to_bytes());
        (name != "." && name != "..").then(|| (name.to_owned(), kind))
    });
    // A folder of ten million names is somebody's trap.
    entries.take(300_000).collect()
}
