//! The sweep after a run whose process was killed: what was known at its start is written down, so
//! that whoever comes next can make up for the sweep that never was.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::{FileType, OFlags};
use serde::{Deserialize, Serialize};

use super::find::{Identity, Known};
use super::{Before, SweepLimits, Swept};
use crate::workspace::gitconfig::Setting;
use crate::workspace::walk::open_root;
use crate::workspace::{GuardError, WorkspacePath, WriterLock};

/// More than this is not written down; then such a sweep goes by times alone.
const MOST: usize = 50_000;
const LARGEST: u64 = 64 << 20;

/// How long after the last sign of life something can still be the run's doing.
const LATE: i128 = 15_000_000_000;

#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    workspace: PathBuf,
    identity: (u64, u64),
    taken: i128,
    extra: Vec<String>,
    places: Vec<Place>,
    own: Vec<(String, Vec<Setting>)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Place {
    path: String,
    inode: (u64, u64),
    mode: u32,
    changed: i128,
}

/// What became of a killed run's workspace.
#[derive(Debug)]
pub enum Killed {
    /// There was nothing to make up for.
    Nothing,
    /// Another run writes there now; ask again later.
    Busy,
    Swept(PathBuf, Swept),
}

impl Before {
    /// Writes down what is known, for [`sweep_killed`]. Names that are not UTF-8 are left out: of
    /// what is not written down, the times decide.
    pub fn remember(&self, workspace: &WorkspacePath, file: &Path) -> Result<(), GuardError> {
        let text = |path: &PathBuf| path.to_str().map(str::to_owned);
        let places = self.known.places.iter().take(MOST);
        let memory = Memory {
            workspace: workspace.path().to_owned(),
            identity: workspace.identity(),
            taken: self.known.taken,
            extra: self.extra.iter().cloned().collect(),
            places: places
                .filter_map(|(path, identity)| {
                    let (inode, mode) = (identity.inode, identity.kind.as_raw_mode());
                    Some(Place { path: text(path)?, inode, mode, changed: identity.changed() })
                })
                .collect(),
            own: self
                .own
                .iter()
                .filter_map(|(path, settings)| Some((text(path)?, settings.clone())))
                .collect(),
        };
        let failed = |source| GuardError::io("write down what is known in", file, source);
        let bytes = serde_json::to_vec(&memory).map_err(|error| failed(error.into()))?;
        let mut written =
            File::options().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
        written.write_all(&bytes).map_err(failed)
    }
}

/// Sweeps the workspace of a killed run by what it wrote down in `memory`, which its watch touched
/// as long as it lived: what has changed since then is the user's own.
pub fn sweep_killed(
    memory: &Path,
    locks: &Path,
    into: &Path,
    limits: SweepLimits,
) -> Result<Killed, GuardError> {
    let failed = |source| GuardError::io("read what was known in", memory, source);
    let Some((told, until)) = read(memory).map_err(failed)? else { return Ok(Killed::Nothing) };
    let root = open_root(&told.workspace).ok().filter(|root| {
        rustix::fs::fstat(root).is_ok_and(|now| (now.st_dev, now.st_ino) == told.identity)
    });
    // A workspace that was moved or removed took everything along.
    let Some(root) = root else { return Ok(Killed::Nothing) };
    let lock = WriterLock::try_folder(locks, &told.workspace, told.identity)?;
    let Some(_held) = lock else { return Ok(Killed::Busy) };
    let places = told.places.into_iter().map(|place| {
        let kind = FileType::from_raw_mode(place.mode);
        (PathBuf::from(place.path), Identity::again(place.inode, kind, place.changed))
    });
    let known = Known {
        places: places.collect(),
        taken: told.taken,
        until: Some(until + LATE),
        closed: HashSet::new(),
        // What is not written down was left out or is new; its times tell.
        complete: false,
    };
    let own: HashMap<_, _> =
        told.own.into_iter().map(|(path, settings)| (PathBuf::from(path), settings)).collect();
    let extra = told.extra.into_iter().collect();
    let before = Before { root: Some(root), extra, known, own, portion: 10_000 };
    Ok(Killed::Swept(told.workspace, before.sweep(into, limits)))
}

/// The memory and when it was touched last.
fn read(path: &Path) -> io::Result<Option<(Memory, i128)>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let touched = file.metadata()?.modified()?;
    let since = touched.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    // It was killed while it wrote: the agent had not begun.
    let Ok(memory) = serde_json::from_slice(&bytes) else { return Ok(None) };
    Ok(Some((memory, i128::try_from(since.as_nanos()).unwrap_or(i128::MAX))))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::workspace::Limits;

    fn workspace() -> (tempfile::TempDir, WorkspacePath, PathBuf) {
        let place = tempfile::tempdir().expect("temp");
        let folder = place.path().canonicalize().expect("real").join("w");
        fs::create_dir_all(folder.join("old/.vscode")).expect("made");
        fs::write(folder.join("old/.vscode/settings.json"), "{}").expect("written");
        let workspace = WorkspacePath::check(Some(&folder), &folder, &[]).expect("a workspace");
        (place, workspace, folder)
    }

    #[test]
    fn what_a_killed_run_planted_is_swept_and_the_users_is_not() {
        let (place, workspace, folder) = workspace();
        let (memory, locks) = (place.path().join("memory"), place.path().join("locks"));
        let into = place.path().join("swept");
        let before = Before::take(&workspace, &[], Limits::default());
        before.remember(&workspace, &memory).expect("written");
        drop(before);
        fs::create_dir_all(folder.join("new/.vscode")).expect("planted");
        fs::write(folder.join("new/.vscode/tasks.json"), "evil").expect("planted");
        fs::write(folder.join("old/.vscode/settings.json"), "evil").expect("changed");

        let held = WriterLock::try_lock(&locks, &workspace).expect("locks").expect("free");
        let busy = sweep_killed(&memory, &locks, &into, SweepLimits::default()).expect("read");
        assert!(matches!(busy, Killed::Busy));
        drop(held);
        let swept = sweep_killed(&memory, &locks, &into, SweepLimits::default()).expect("swept");
        let Killed::Swept(_, swept) = swept else { panic!("{swept:?}") };
        let mut paths: Vec<_> = swept.moved.iter().map(|item| item.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["new/.vscode/", "old/.vscode/settings.json"]);
        assert!(!folder.join("new/.vscode").exists() && folder.join("old/.vscode").exists());
    }

    #[test]
    fn what_came_long_after_the_last_sign_of_life_is_the_users() {
        let (place, workspace, folder) = workspace();
        let (memory, locks) = (place.path().join("memory"), place.path().join("locks"));
        let before = Before::take(&workspace, &[], Limits::default());
        before.remember(&workspace, &memory).expect("written");
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        let file = File::options().write(true).open(&memory).expect("there");
        file.set_modified(long_ago).expect("touched");
        fs::create_dir_all(folder.join("mine/.vscode")).expect("made");
        fs::write(folder.join("mine/.vscode/tasks.json"), "mine").expect("written");
        let into = place.path().join("swept");
        let swept = sweep_killed(&memory, &locks, &into, SweepLimits::default()).expect("swept");
        let Killed::Swept(_, swept) = swept else { panic!("{swept:?}") };
        assert!(swept.moved.is_empty(), "{swept:?}");
        assert!(folder.join("mine/.vscode/tasks.json").exists());
        fs::write(&memory, "{\"cut").expect("written");
        let nothing = sweep_killed(&memory, &locks, &into, SweepLimits::default());
        assert!(matches!(nothing, Ok(Killed::Nothing)), "killed before the agent began");
    }
}
