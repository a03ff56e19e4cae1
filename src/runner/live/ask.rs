//! The side of whoever asks.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Answer, Word};
use crate::history::Entry;
use crate::runner::Runner;
use crate::runner::outcome::{Applied, ApplyOptions, Changes, OutcomeError, carry_held, hold};
use crate::runner::past::is_read_only;
use crate::text::count;
use crate::workspace::changeset::{Blobs, Manifest, RelPath, read_manifest};

/// Longest wait for an answer: a look at a large view takes some seconds.
const ANSWER: Duration = Duration::from_secs(120);

/// Longest wait for others that look at the same run.
const TURN: Duration = Duration::from_secs(30);

pub(super) fn list(entry: &Entry) -> PathBuf {
    entry.look().join("changes.json")
}

pub(super) fn blobs(entry: &Entry) -> PathBuf {
    entry.look().join("blobs")
}

/// Changes so far of a run that goes on. Nobody else looks at it meanwhile.
#[derive(Debug)]
pub struct Look {
    pub manifest: Manifest,
    pub blobs: Blobs,
    busy: Vec<RelPath>,
    has_moved_folder: bool,
    _record: File,
}

/// Looks at a run that goes on. Blocking.
pub fn look(entry: &Entry) -> Result<Look, OutcomeError> {
    look_for(entry, Word::Look)
}

fn look_for(entry: &Entry, word: Word) -> Result<Look, OutcomeError> {
    if is_read_only(entry) {
        return Err(OutcomeError::ReadOnly(entry.id().clone()));
    }
    let record = hold(entry, Some(Instant::now() + TURN))?;
    let (busy, has_moved_folder) = match ask(entry, word)? {
        Answer::Looked { busy, has_moved_folder } => (busy, has_moved_folder),
        Answer::Failed(why) => {
            return Err(OutcomeError::NotSeen { run: entry.id().clone(), why });
        }
    };
    let manifest = read_manifest(&list(entry))?;
    let manifest = manifest.ok_or_else(|| OutcomeError::NoList(entry.id().clone()))?;
    let blobs = Blobs::new(blobs(entry)).with_before(entry.before());
    Ok(Look { manifest, blobs, busy, has_moved_folder, _record: record })
}

fn idle(entry: &Entry) -> OutcomeError {
    let why = "its agent is not at work at this moment".to_owned();
    OutcomeError::NotSeen { run: entry.id().clone(), why }
}

fn ask(entry: &Entry, word: Word) -> Result<Answer, OutcomeError> {
    let socket = std::fs::read(entry.ask()).unwrap_or_default();
    let socket = PathBuf::from(OsString::from_vec(socket));
    let failed = || OutcomeError::io(&socket);
    let mut stream = match UnixStream::connect(&socket) {
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return Err(idle(entry));
        }
        other => other.map_err(failed())?,
    };
    stream.set_read_timeout(Some(ANSWER)).map_err(failed())?;
    let word = serde_json::to_vec(&word).map_err(|error| failed()(error.into()))?;
    stream.write_all(&[&word[..], b"\n"].concat()).map_err(failed())?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer) {
        // It has ended meanwhile.
        Ok(0) => Err(idle(entry)),
        Ok(_) => serde_json::from_str(&answer).map_err(|error| failed()(error.into())),
        Err(error) => Err(failed()(error)),
    }
}

/// Carries over what a run that goes on has changed so far. Blocking.
pub fn apply(
    runner: &Runner,
    entry: &Entry,
    options: &ApplyOptions,
    told: &mut dyn FnMut(&str),
) -> Result<Applied, OutcomeError> {
    let mut look = look_for(entry, Word::LookTwice)?;
    if look.has_moved_folder {
        let why = "the run gave a folder another name, and reads it from the workspace still";
        return Err(OutcomeError::NotSeen { run: entry.id().clone(), why: why.to_owned() });
    }
    let (workspace, config) = runner.target(entry, &look.manifest)?;
    let waiting = leave_busy(&mut look.manifest, &look.busy);
    let changes = Changes { manifest: &look.manifest, blobs: &look.blobs, is_final: false };
    let mut applied =
        carry_held(runner.shared(), entry, (changes, &workspace), &config, options, told)?;
    if !waiting.is_empty() {
        applied.remarks.push(format!(
            "{} left out, which the run is writing at this moment; apply again to take it",
            count(waiting.len(), "change")
        ));
        applied.pending.extend(waiting);
    }
    Ok(applied)
}

/// Takes out what is being written, and both ends of a name that changed. Answers what.
fn leave_busy(manifest: &mut Manifest, busy: &[RelPath]) -> Vec<String> {
    let mut busy: HashSet<&RelPath> = busy.iter().collect();
    let ends: Vec<_> = manifest
        .changes
        .iter()
        .filter_map(|change| Some((change.path.clone(), change.from.clone()?)))
        .collect();
    for (to, from) in &ends {
        if busy.contains(to) || busy.contains(from) {
            busy.extend([to, from]);
        }
    }
    let is_busy = |path: &RelPath| busy.contains(path);
    let waiting = manifest.changes.iter().map(|change| &change.path);
    let waiting: Vec<_> = waiting.filter(|path| is_busy(path)).map(ToString::to_string).collect();
    manifest.changes.retain(|change| !is_busy(&change.path));
    waiting
}
