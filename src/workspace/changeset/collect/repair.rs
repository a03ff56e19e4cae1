//! Putting back bytes that an agent's editor could not read.
//!
//! Editors of agents read a file as UTF-8 and write it back whole. Each byte that is none becomes
//! U+FFFD, wherever the edit itself was.

use super::{Collector, Node, tree};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

/// Larger files are not edited by hand.
const LARGEST: u64 = 8 << 20;

const REPLACEMENT: &str = "\u{fffd}";

/// What became of a file whose bytes an edit had replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Repaired {
    Whole(Vec<u8>),
    /// Some lines are as the agent left them.
    Partly(Vec<u8>),
}

/// Puts back the bytes of `before` that are no UTF-8 where `after` has replacement characters.
/// Nothing where there is nothing to put back.
pub(super) fn repair(before: &[u8], after: &[u8]) -> Option<Repaired> {
    let after = std::str::from_utf8(after).ok().filter(|text| text.contains(REPLACEMENT))?;
    // Characters of its own would be taken for replaced bytes.
    let valid = before.utf8_chunks().all(|chunk| !chunk.valid().contains(REPLACEMENT));
    let broken: Vec<_> = before
        .utf8_chunks()
        .map(|chunk| chunk.invalid())
        .filter(|bytes| !bytes.is_empty())
        .collect();
    if !valid || broken.is_empty() {
        return None;
    }
    let parts: Vec<_> = after.split(REPLACEMENT).collect();
    if parts.len() == broken.len() + 1 {
        let mut bytes = Vec::with_capacity(after.len());
        for (number, part) in parts.iter().enumerate() {
            bytes.extend_from_slice(part.as_bytes());
            bytes.extend_from_slice(broken.get(number).copied().unwrap_or_default());
        }
        return Some(Repaired::Whole(bytes));
    }
    // Some are gone with what was edited. A line that is otherwise as it was has its own bytes.
    let mut old =
        before.split_inclusive(|byte| *byte == b'\n').collect::<std::collections::VecDeque<_>>();
    let mut bytes = Vec::with_capacity(after.len());
    let mut whole = true;
    for line in after.split_inclusive('\n') {
        if !line.contains(REPLACEMENT) {
            bytes.extend_from_slice(line.as_bytes());
            continue;
        }
        let same = |old: &&[u8]| String::from_utf8_lossy(old) == line;
        if let Some(at) = old.iter().position(same) {
            bytes.extend_from_slice(old[at]);
            // Lines keep their order.
            old.drain(..=at);
        } else {
            bytes.extend_from_slice(line.as_bytes());
            whole = false;
        }
    }
    Some(if whole { Repaired::Whole(bytes) } else { Repaired::Partly(bytes) })
}

impl Collector<'_> {
    /// Takes a new content of a file and gives the one with the bytes put back.
    pub(super) fn repaired(&mut self, path: &Path, before: Option<&Node>, after: Node) -> Node {
        let (Some(Node::File { size: old, .. }), Node::File { sha256, size, mode }) =
            (before, &after)
        else {
            return after;
        };
        if *old > LARGEST || *size > LARGEST {
            return after;
        }
        let Some(repaired) = self.contents(path, sha256).and_then(|(old, new)| repair(&old, &new))
        else {
            return after;
        };
        let (bytes, told) = match repaired {
            Repaired::Whole(bytes) => {
                (bytes, "an edit had replaced bytes that are no UTF-8, which are put back")
            }
            Repaired::Partly(bytes) => {
                (bytes, "an edit replaced bytes that are no UTF-8; not all could be put back")
            }
        };
        match self.blobs.put(&bytes) {
            Ok((sha256, size)) => {
                if self.remarks.len() < MOST_TOLD {
                    let path = crate::workspace::changes::shown(path, false);
                    self.remarks.push(format!("{path}: {told}"));
                }
                Node::File { sha256, size, mode: *mode }
            }
            Err(error) => {
                self.failed = Some(error);
                after
            }
        }
    }

    fn contents(&mut self, path: &Path, sha256: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        let new = self.blobs.get(sha256, LARGEST)?;
        if !new.windows(3).any(|three| three == REPLACEMENT.as_bytes()) {
            return None;
        }
        let (folder, name) = self.base.parent(path)?;
        let (file, _) = tree::open_file(folder.as_fd(), &name).ok()?;
        let mut old = Vec::new();
        file.take(LARGEST).read_to_end(&mut old).ok()?;
        Some((old, new))
    }
}

/// Most files that are told one by one.
const MOST_TOLD: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_where_they_were() {
        let whole = |bytes: &[u8]| Some(Repaired::Whole(bytes.to_vec()));
        let before = b"one caf\xe9\ntwo \xff\xfe\nthree\n";
        let read = String::from_utf8_lossy(before).replace("one", "ONE");
        let expected = b"ONE caf\xe9\ntwo \xff\xfe\nthree\n";
        assert_eq!(repair(before, read.as_bytes()), whole(expected));
        // The edited line has lost its byte, the others have theirs.
        let edited = "one coffee\ntwo \u{fffd}\u{fffd}\nthree\n";
        assert_eq!(repair(before, edited.as_bytes()), whole(b"one coffee\ntwo \xff\xfe\nthree\n"));
        let lost = "one c\u{fffd}\ntwo\nthree\n";
        assert_eq!(repair(before, lost.as_bytes()), Some(Repaired::Partly(lost.into())));
        assert_eq!(repair(before, b"plain"), None);
        assert_eq!(repair(b"plain", "\u{fffd}".as_bytes()), None, "the agent's own");
        assert_eq!(repair("\u{fffd}\u{e9}".as_bytes(), "\u{fffd}".as_bytes()), None);
        assert_eq!(repair(b"\xff", b"\xff\xef\xbf\xbd"), None, "written as bytes");
    }
}
