//! Putting a run's version of a text together with what somebody has made of it meanwhile.

use std::io::Read;
use std::os::fd::AsFd;

use super::super::node::{name_of, parent_of, permissions, regular};
use super::super::{Alteration, Blobs, Manifest, Node, RelPath};
use super::error::ApplyError;
use crate::text::hex;
use crate::workspace::WorkspacePath;
use crate::workspace::git::merge_file;
use crate::workspace::walk::open_root;
use sha2::{Digest, Sha256};

/// Largest text that is merged.
pub const LARGEST_MERGED: u64 = 1 << 20;

/// Returns the list of changes with merged texts in it, and their paths. A text is merged where it is
/// neither what the run found nor what it left, and both have changed it in different places.
/// Blocking.
pub fn merged(
    workspace: &WorkspacePath,
    mut manifest: Manifest,
    blobs: &Blobs,
) -> Result<(Manifest, Vec<RelPath>), ApplyError> {
    let Ok(root) = open_root(workspace.path()) else { return Ok((manifest, Vec::new())) };
    let mut found = Vec::new();
    for (at, change) in manifest.changes.iter().enumerate() {
        let Some((now, ours)) = Some(change)
            .filter(|change| !change.base_moved && is_text_change(change))
            .and_then(|change| current(root.as_fd(), change))
        else {
            continue;
        };
        let content = |node: &Option<Node>| {
            let Some(Node::File { sha256, size, .. }) = node else { return None };
            let mut content = Vec::new();
            blobs.open(sha256, *size).ok()?.read_to_end(&mut content).ok()?;
            Some(content)
        };
        let Some((base, theirs)) = content(&change.before).zip(content(&change.after)) else {
            continue;
        };
        let Some(text) = merge_file(&base, &ours, &theirs) else { continue };
        let kept = blobs.put(&mut text.as_slice());
        let (sha256, size) = kept.map_err(ApplyError::content(&change.path))?;
        let mode = match (&change.before, &change.after, &now) {
            (Some(Node::File { mode: was, .. }), Some(Node::File { mode, .. }), _)
                if was != mode =>
            {
                *mode
            }
            (_, _, Node::File { mode, .. }) => *mode,
            _ => continue,
        };
        found.push((at, now, Node::File { sha256, size, mode }));
    }
    let mut paths = Vec::new();
    for (at, now, text) in found {
        let Some(change) = manifest.changes.get_mut(at) else { continue };
        paths.push(change.path.clone());
        (change.before, change.after) = (Some(now), Some(text));
    }
    Ok((manifest, paths))
}

/// Returns true for a small file that had one content and has another.
fn is_text_change(change: &Alteration) -> bool {
    match (&change.before, &change.after) {
        (
            Some(Node::File { sha256: before, size: was, .. }),
            Some(Node::File { sha256: after, size, .. }),
        ) => before != after && *was.max(size) <= LARGEST_MERGED,
        _ => false,
    }
}

/// A file as it is now, if it is neither what the run found nor what it left.
fn current(root: std::os::fd::BorrowedFd<'_>, change: &Alteration) -> Option<(Node, Vec<u8>)> {
    let parent = parent_of(root, &change.path).ok()?;
    let (file, stat) = regular(parent.as_fd(), name_of(&change.path)).ok()??;
    let mut content = Vec::new();
    file.take(LARGEST_MERGED + 1).read_to_end(&mut content).ok()?;
    let sha256 = hex(&Sha256::digest(&content));
    let is_known = [&change.before, &change.after]
        .into_iter()
        .any(|node| matches!(node, Some(Node::File { sha256: known, .. }) if *known == sha256));
    let size = content.len() as u64;
    let now = Node::File { sha256, size, mode: permissions(&stat) };
    (size <= LARGEST_MERGED && !is_known).then_some((now, content))
}
