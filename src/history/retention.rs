//! Which records stay.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Entry, Error, State, folder_of_runs, remove_tree, runs};
use crate::config;
use crate::ids::RunId;

/// What a record that is being removed is called meanwhile: no run, and rubbish after a crash.
const GONE: &str = ".gone";

/// How much may stay. The oldest go first, and never a run that goes on.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub runs: usize,
    pub age: Duration,
    pub bytes: u64,
}

impl From<&config::History> for Retention {
    fn from(history: &config::History) -> Self {
        Self {
            runs: history.keep,
            age: Duration::from_secs(history.max_age_days.saturating_mul(86_400)),
            bytes: history.max_bytes.bytes(),
        }
    }
}

/// What was removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The newest first.
    pub runs: Vec<RunId>,
    pub bytes: u64,
}

/// Removes the oldest records beyond what may stay; `spared`, the run that has just ended, stays
/// whatever its size. What cannot be removed stops nothing else, and the first of it is told.
/// `forget` removes what is elsewhere of a run, before its record goes.
pub fn prune(
    state: &Path,
    retention: &Retention,
    spared: Option<&RunId>,
    forget: fn(&Entry),
) -> Result<Removed, Error> {
    let mut failed = sweep_up(state).err();
    let mut removed = Removed::default();
    let (mut count, mut bytes) = (0_usize, 0_u64);
    for id in runs(state) {
        let Some(entry) = Entry::of(state, &id) else { continue };
        let size = size(entry.folder());
        count += 1;
        bytes = bytes.saturating_add(size);
        let old = id.age().is_some_and(|age| age > retention.age);
        let fits = count <= retention.runs && bytes <= retention.bytes && !old;
        if fits || spared == Some(&id) || entry.state() == State::Running {
            continue;
        }
        match remove(&entry, forget) {
            Ok(()) => {
                removed.runs.push(id);
                removed.bytes += size;
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(removed), Err)
}

/// Removes one record, after what `forget` removes. Whether its run goes on is the caller's to ask.
pub fn remove(entry: &Entry, forget: fn(&Entry)) -> Result<(), Error> {
    forget(entry);
    let folder = entry.folder();
    let gone = folder.with_file_name(format!(".{}{GONE}", entry.id()));
    // At once no run any more: half a record would look like a run that died.
    match fs::rename(folder, &gone) {
        Ok(()) => remove_all(&gone),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::of(folder)(error)),
    }
}

/// Removes what a crash left half removed.
fn sweep_up(state: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(folder_of_runs(state)).into_iter().flatten().flatten();
    let half = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let id = name.strip_prefix('.').and_then(|name| name.strip_suffix(GONE));
        id.is_some_and(|id| id.parse::<RunId>().is_ok())
    });
    half.map(|entry| remove_all(&entry.path())).fold(Ok(()), Result::and)
}

fn remove_all(path: &Path) -> Result<(), Error> {
    match remove_tree(path) {
        // Somebody else removes the same.
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::of(path)(error)),
        _ => Ok(()),
    }
}

/// Bytes below a folder, as far as they can be seen. Follows no links.
pub fn size(folder: &Path) -> u64 {
    let mut open: Vec<PathBuf> = vec![folder.to_owned()];
    let mut bytes = 0_u64;
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => open.push(entry.path()),
                Ok(found) => bytes = bytes.saturating_add(found.len()),
                Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::{Record, folder_of};
    use super::*;

    const ALL: Retention = Retention { runs: usize::MAX, age: Duration::MAX, bytes: u64::MAX };

    fn id(days_ago: i64, suffix: &str) -> RunId {
        let then = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days_ago);
        format!("{}-{suffix}", then.strftime("%Y%m%d-%H%M%S")).parse().expect("an id")
    }

    /// Ended runs of 1000 bytes and some, and what is left of them.
    fn ended(state: &Path, ids: &[RunId]) {
        for id in ids {
            let mut record = Record::create(state, id).expect("record");
            record.log(&"x".repeat(1000));
            record.finish(&()).expect("finished");
        }
    }

    fn left(state: &Path, ids: &[RunId]) -> Vec<bool> {
        ids.iter().map(|id| folder_of(state, id).exists()).collect()
    }

    #[test]
    fn the_oldest_go_first_and_unfinished_ones_stay() {
        let state = tempfile::tempdir().expect("temp dir");
        let ids = ["20260101-000000-aaaa", "20260102-000000-aaaa", "20260103-000000-aaaa"];
        for (at, id) in ids.iter().enumerate() {
            let record = Record::create(state.path(), &id.parse().expect("id")).expect("record");
            if at != 0 {
                record.finish(&()).expect("finished");
            }
        }
        prune(state.path(), &Retention { runs: 1, ..ALL }, None, |_| {}).expect("pruned");
        let left = ids.map(|id| state.path().join("runs").join(id).exists());
        assert_eq!(left, [true, false, true]);
    }

    #[test]
    fn age_and_bytes_bound_them_too_but_never_what_has_just_ended() {
        let state = tempfile::tempdir().expect("temp dir");
        let ids = [id(0, "aaaa"), id(3, "aaaa"), id(5, "aaaa"), id(7, "aaaa")];
        ended(state.path(), &ids);
        assert_eq!(prune(state.path(), &ALL, None, |_| {}).expect("pruned"), Removed::default());
        let week = Retention { age: Duration::from_secs(6 * 86_400), ..ALL };
        let removed = prune(state.path(), &week, None, |_| {}).expect("pruned");
        assert_eq!(removed.runs, [ids[3].clone()]);
        assert!(removed.bytes > 1000, "{}", removed.bytes);

        // A record of 1000 bytes and some is less than 1500, two of them are not.
        let small = Retention { bytes: 1500, ..ALL };
        prune(state.path(), &small, Some(&ids[1]), |_| {}).expect("pruned");
        assert_eq!(left(state.path(), &ids), [true, true, false, false]);
        let tiny = Retention { bytes: 1, ..ALL };
        prune(state.path(), &tiny, Some(&ids[0]), |_| {}).expect("pruned");
        assert_eq!(left(state.path(), &ids), [true, false, false, false]);
    }

    #[test]
    fn what_died_can_go_and_what_a_crash_left_does() {
        let state = tempfile::tempdir().expect("temp dir");
        let ids = [id(1, "aaaa"), id(2, "aaaa")];
        for id in &ids {
            drop(Record::create(state.path(), id).expect("record"));
        }
        let folder = folder_of(state.path(), &ids[1]);
        fs::write(folder.join(super::super::OWNER), "1.1.nowhere").expect("written");
        let half = folder_of_runs(state.path()).join(format!(".{}.gone", ids[0]));
        let other = folder_of_runs(state.path()).join(".mine.gone");
        for folder in [&half, &other] {
            fs::create_dir_all(folder.join("whole")).expect("made");
        }
        // A link in a record is removed, and not what it leads to.
        std::os::unix::fs::symlink(&other, folder.join("link")).expect("made");
        prune(state.path(), &Retention { runs: 0, ..ALL }, None, |_| {}).expect("pruned");
        assert_eq!(left(state.path(), &ids), [true, false]);
        assert!(!half.exists() && other.join("whole").exists());
    }
}
