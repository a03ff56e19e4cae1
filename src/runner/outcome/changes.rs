//! The changes of a run as its record has them, or as its view is now.

use std::fs::File;
use std::io::{ErrorKind, Read};

use super::OutcomeError;
use crate::history::{Entry, State};
use crate::runner::{PastReport, commits, live};
use crate::text::count;
use crate::workspace::changeset::{self, Blobs, Fate, Manifest, read_manifest, write_patch};

/// The changes of a run, of one that goes on those so far; or why there are none. Blocking.
pub fn changes_now(entry: &Entry) -> Result<Manifest, OutcomeError> {
    if entry.state() == State::Running {
        return Ok(live::look(entry)?.manifest);
    }
    changes_of(entry)
}

/// The changes of a run that has ended, or why there are none.
pub fn changes_of(entry: &Entry) -> Result<Manifest, OutcomeError> {
    let id = || entry.id().clone();
    if entry.state() == State::Running {
        return Err(OutcomeError::Running(id()));
    }
    let fate = Fate::read(&entry.applied())?;
    match read_manifest(&entry.changes())? {
        _ if fate.discarded_at.is_some() => Err(OutcomeError::Discarded(id())),
        Some(manifest)
            if manifest.changes.is_empty() && manifest.complete && !entry.commits().exists() =>
        {
            Err(OutcomeError::Unchanged(id()))
        }
        Some(manifest) => Ok(manifest),
        None => {
            let report = entry.report().ok().flatten();
            let report = report.and_then(|report| PastReport::of(&report).ok());
            let mode = report.map(|report| report.workspace.mode.0).unwrap_or_default();
            Err(match mode.as_str() {
                "read_only" => OutcomeError::ReadOnly(id()),
                "direct" | "isolated" => OutcomeError::Unchanged(id()),
                _ => OutcomeError::NoList(id()),
            })
        }
    }
}

/// The patch of a run, behind its commits as comments: the one on record, else one made now of what
/// is there; of a run that goes on what it has changed so far. Blocking.
pub fn patch_of(entry: &Entry) -> Result<Vec<u8>, OutcomeError> {
    if entry.state() == State::Running {
        let live::Look { manifest, blobs, .. } = live::look(entry)?;
        let mut patch = Vec::new();
        write_patch(&manifest, &manifest.workspace, &blobs, &mut patch)
            .map_err(OutcomeError::io(&manifest.workspace))?;
        return Ok(patch);
    }
    let manifest = changes_of(entry)?;
    let kept = entry.patch();
    let mut patch = Vec::new();
    if let Some(commits) = commits::commits_of(entry)? {
        patch
            .extend(commits.list.iter().flat_map(|line| format!("# commit {line}\n").into_bytes()));
        let more = commits.count.saturating_sub(commits.list.len());
        if more > 0 {
            patch.extend(format!("# and {}\n", count(more, "more commit")).bytes());
        }
    }
    match File::open(&kept) {
        Ok(file) => {
            file.take(changeset::LARGEST_PATCH)
                .read_to_end(&mut patch)
                .map_err(OutcomeError::io(&kept))?;
            Ok(patch)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let blobs = Blobs::new(entry.blobs()).with_before(entry.before());
            write_patch(&manifest, &manifest.workspace, &blobs, &mut patch)
                .map_err(OutcomeError::io(&manifest.workspace))?;
            Ok(patch)
        }
        Err(error) => Err(OutcomeError::io(&kept)(error)),
    }
}
