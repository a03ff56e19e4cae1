//! A result as a patch that `git apply` takes.
//!
//! Git's extended format: additions, deletions, renames, modes, symbolic links and binary files.
//! Folders are not in it, and of permissions only whether a file can be executed. Whatever cannot
//! be in it is named in comments at its beginning.

mod binary;
mod quote;
mod text;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};

use super::super::walk::open_root;
use super::node::{Seen, look, name_of, parent_of, regular, same_content};
use super::store::copy;
use super::{Alteration, Blobs, Manifest, Node, RelPath};
use crate::text::hex;

/// Largest patch; what does not fit is left out. It is put together in memory.
const LARGEST: usize = 64 << 20;

/// What is read of one, which has some comments besides.
pub const LARGEST_PATCH: u64 = 65 << 20;

/// Larger files are not compared line by line.
const LARGEST_TEXT: u64 = 1 << 20;

/// How long the search for small hunks may take, over all files.
const SEARCH: Duration = Duration::from_secs(3);

/// Most of what is left out that the patch names.
const NAMED: usize = 100;

/// What became of the changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchReport {
    /// What is not in the patch, and why.
    pub left_out: Vec<(RelPath, &'static str)>,
}

impl PatchReport {
    /// Whether the patch makes everything that a patch can make.
    pub fn is_complete(&self) -> bool {
        self.left_out.is_empty()
    }
}

/// Writes the patch. `base` is the workspace, which old contents are taken from, and `blobs` has
/// the new ones.
pub fn write_patch(
    manifest: &Manifest,
    base: &Path,
    blobs: &Blobs,
    out: &mut impl Write,
) -> io::Result<PatchReport> {
    let base = open_root(base)?;
    let writer = Writer {
        base: base.as_fd(),
        blobs,
        deleted: manifest
            .changes
            .iter()
            .filter(|change| change.after.is_none())
            .map(|change| (&change.path, change))
            .collect(),
        deadline: Instant::now() + SEARCH,
    };
    let mut report = PatchReport::default();
    let mut body = Vec::new();
    let mut taken = HashSet::new();
    // Names that change come first, so that what they take away is known when it is passed by.
    let (renames, others): (Vec<_>, Vec<_>) =
        manifest.changes.iter().partition(|change| change.from.is_some());
    for change in renames.into_iter().chain(others) {
        let is_gone = change.after.is_none() && taken.contains(&change.path);
        if is_gone || manifest.repositories.iter().any(|made| made.has(&change.path)) {
            continue;
        }
        let from = writer.source(change).filter(|from| !taken.contains(&from.path));
        let mut part = Vec::new();
        let written = match from {
            Some(from) => writer.rename(from, change, &mut part),
            None => writer.change(change, LARGEST - body.len(), &mut part),
        };
        match written {
            Ok(()) if body.len() + part.len() <= LARGEST => {
                body.extend(part);
                taken.extend(from.map(|from| from.path.clone()));
            }
            Ok(()) => report.left_out.push((change.path.clone(), TOO_LARGE)),
            Err(LeftOut::Why(why)) => report.left_out.push((change.path.clone(), why)),
            Err(LeftOut::Failed(error)) => return Err(error),
        }
    }
    if !manifest.complete {
        writeln!(out, "# incomplete: the list of the run's changes ended at a bound")?;
    }
    for made in &manifest.repositories {
        // A patch cannot make a repository; a person is told.
        out.write_all(b"# not in this patch: ")?;
        out.write_all(&quote::name("", &made.git))?;
        writeln!(out, " (a new repository)")?;
    }
    for (path, why) in report.left_out.iter().take(NAMED) {
        out.write_all(b"# not in this patch: ")?;
        out.write_all(&quote::name("", path))?;
        writeln!(out, " ({why})")?;
    }
    if report.left_out.len() > NAMED {
        writeln!(out, "# not in this patch: {} more", report.left_out.len() - NAMED)?;
    }
    out.write_all(&body)?;
    Ok(report)
}

const TOO_LARGE: &str = "too large";
const NOT_THE_BASE: &str = "the workspace no longer has what the run began with";
const DAMAGED: &str = "its new content is not on record";

/// Why a change is not in the patch, or there is no patch.
enum LeftOut {
    Why(&'static str),
    Failed(io::Error),
}

impl From<io::Error> for LeftOut {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

struct Writer<'a> {
    base: BorrowedFd<'a>,
    blobs: &'a Blobs,
    deleted: HashMap<&'a RelPath, &'a Alteration>,
    deadline: Instant,
}

impl<'a> Writer<'a> {
    /// Where an addition has its content from, if that is gone.
    fn source(&self, change: &Alteration) -> Option<&'a Alteration> {
        let from = *self.deleted.get(change.from.as_ref()?)?;
        let same = match (&from.before, &change.after) {
            (Some(Node::File { sha256: old, .. }), Some(Node::File { sha256: new, .. })) => {
                old == new && change.before.is_none()
            }
            _ => false,
        };
        same.then_some(from)
    }

    fn rename(&self, from: &Alteration, to: &Alteration, out: &mut Vec<u8>) -> Result<(), LeftOut> {
        let (Some(before), Some(after)) = (&from.before, &to.after) else { return Ok(()) };
        // Git would rename whatever is there.
        let sizes = if let Node::File { size, .. } = before { *size } else { 0 };
        let seen = parent_of(self.base, &from.path)
            .map_err(io::Error::from)
            .and_then(|parent| look(parent.as_fd(), name_of(&from.path), &[sizes]));
        if !seen.is_ok_and(|seen: Seen| is_same(seen.node(), before)) {
            return Err(LeftOut::Why(NOT_THE_BASE));
        }
        header(&from.path, &to.path, out);
        if git_mode(before) != git_mode(after) {
            writeln!(out, "old mode {}\nnew mode {}", git_mode(before), git_mode(after))?;
        }
        out.extend(b"similarity index 100%\nrename from ");
        out.extend(quote::name("", &from.path));
        out.extend(b"\nrename to ");
        out.extend(quote::name("", &to.path));
        out.push(b'\n');
        Ok(())
    }

    fn change(&self, change: &Alteration, room: usize, out: &mut Vec<u8>) -> Result<(), LeftOut> {
        let [before, after] = [&change.before, &change.after]
            .map(|node| node.as_ref().filter(|node| !matches!(node, Node::Folder { .. })));
        let path = &change.path;
        match (before, after) {
            (None, None) => Ok(()),
            (Some(before), Some(after)) if is_same(Some(before), after) => {
                if git_mode(before) != git_mode(after) {
                    header(path, path, out);
                    writeln!(out, "old mode {}\nnew mode {}", git_mode(before), git_mode(after))?;
                }
                Ok(())
            }
            (Some(before), Some(after)) => {
                let old = self.old(path, before, room)?;
                let new = self.new_content(after, room)?;
                if is_link(before) == is_link(after) {
                    return self.diff(path, Some((before, &old)), Some((after, &new)), out);
                }
                // Another kind of thing is another thing.
                self.diff(path, Some((before, &old)), None, out)?;
                self.diff(path, None, Some((after, &new)), out)
            }
            (Some(before), None) => {
                let old = self.old(path, before, room)?;
                self.diff(path, Some((before, &old)), None, out)
            }
            (None, Some(after)) => {
                let new = self.new_content(after, room)?;
                self.diff(path, None, Some((after, &new)), out)
            }
        }
    }

    fn diff(
        &self,
        path: &RelPath,
        before: Option<(&Node, &[u8])>,
        after: Option<(&Node, &[u8])>,
        out: &mut Vec<u8>,
    ) -> Result<(), LeftOut> {
        header(path, path, out);
        match (before, after) {
            (None, Some((node, _))) => writeln!(out, "new file mode {}", git_mode(node))?,
            (Some((node, _)), None) => writeln!(out, "deleted file mode {}", git_mode(node))?,
            (Some((old, _)), Some((new, _))) if git_mode(old) != git_mode(new) => {
                writeln!(out, "old mode {}\nnew mode {}", git_mode(old), git_mode(new))?;
            }
            _ => {}
        }
        let id = |side: Option<(&Node, &[u8])>| match side {
            Some((_, content)) => object_id(content),
            None => "0".repeat(40),
        };
        write!(out, "index {}..{}", id(before), id(after))?;
        match (before, after) {
            (Some((old, _)), Some((new, _))) if git_mode(old) == git_mode(new) => {
                writeln!(out, " {}", git_mode(new))?;
            }
            _ => out.push(b'\n'),
        }
        let old = before.map_or(&b""[..], |(_, content)| content);
        let new = after.map_or(&b""[..], |(_, content)| content);
        if is_binary(old) || is_binary(new) {
            return Ok(binary::literal(new, out)?);
        }
        if old == new {
            // An empty file, which came or went.
            return Ok(());
        }
        let mut side = |mark: &[u8], side: &str, there: bool| {
            out.extend(mark);
            if there {
                out.extend(quote::name(side, path));
            } else {
                out.extend(b"/dev/null");
            }
            out.push(b'\n');
        };
        side(b"--- ", "a/", before.is_some());
        side(b"+++ ", "b/", after.is_some());
        Ok(text::hunks(old, new, self.deadline, out)?)
    }

    fn old(&self, path: &RelPath, node: &Node, room: usize) -> Result<Vec<u8>, LeftOut> {
        let (sha256, size) = match node {
            Node::Link { target } => {
                let seen = parent_of(self.base, path)
                    .map_err(io::Error::from)
                    .and_then(|parent| look(parent.as_fd(), name_of(path), &[]));
                let same = seen.is_ok_and(|seen| seen.is(Some(node)));
                return same.then(|| target.0.clone()).ok_or(LeftOut::Why(NOT_THE_BASE));
            }
            Node::File { sha256, size, .. } => (sha256, *size),
            Node::Folder { .. } => return Ok(Vec::new()),
        };
        bounded(size, room)?;
        let opened = parent_of(self.base, path)
            .map_err(io::Error::from)
            .and_then(|parent| regular(parent.as_fd(), name_of(path)));
        let mut content = Vec::new();
        if let Ok(Some((file, _))) = opened
            && copy(&mut file.take(size + 1), &mut content).is_ok_and(|(found, _)| found == *sha256)
        {
            return Ok(content);
        }
        // The run's own change may be there already.
        content.clear();
        let kept = self.blobs.open_before(sha256, size);
        let read = kept.and_then(|mut kept| kept.read_to_end(&mut content).ok());
        read.map(|_| content).ok_or(LeftOut::Why(NOT_THE_BASE))
    }

    fn new_content(&self, node: &Node, room: usize) -> Result<Vec<u8>, LeftOut> {
        match node {
            Node::Link { target } => Ok(target.0.clone()),
            Node::Folder { .. } => Ok(Vec::new()),
            Node::File { sha256, size, .. } => {
                bounded(*size, room)?;
                let opened = self.blobs.open(sha256, *size);
                let file = opened.map_err(|_| LeftOut::Why(DAMAGED))?;
                let mut content = Vec::new();
                file.take(*size).read_to_end(&mut content)?;
                Ok(content)
            }
        }
    }
}

/// A content that is larger than what is left of the patch may still shrink, but not for certain.
fn bounded(size: u64, room: usize) -> Result<(), LeftOut> {
    if size <= room as u64 { Ok(()) } else { Err(LeftOut::Why(TOO_LARGE)) }
}

fn header(old: &RelPath, new: &RelPath, out: &mut Vec<u8>) {
    out.extend(b"diff --git ");
    out.extend(quote::name("a/", old));
    out.push(b' ');
    out.extend(quote::name("b/", new));
    out.push(b'\n');
}

/// Whether the content is the same, whatever the mode.
fn is_same(found: Option<&Node>, wanted: &Node) -> bool {
    same_content(found, Some(wanted)) || found == Some(wanted)
}

fn is_link(node: &Node) -> bool {
    matches!(node, Node::Link { .. })
}

/// Git knows two modes of files.
fn git_mode(node: &Node) -> &'static str {
    match node {
        Node::File { mode, .. } if mode & 0o100 != 0 => "100755",
        Node::File { .. } => "100644",
        Node::Link { .. } => "120000",
        Node::Folder { .. } => "040000",
    }
}

fn is_binary(content: &[u8]) -> bool {
    content.len() as u64 > LARGEST_TEXT
        || content.contains(&0)
        || std::str::from_utf8(content).is_err()
}

fn object_id(content: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", content.len()));
    hash.update(content);
    hex(&hash.finalize())
}
