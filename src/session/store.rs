//! Making, taking and forking sessions.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{AGENT, LOCK, NOTE, SessionId, folder_of, folder_of_sessions};
use crate::files::{Durability, open_locked, write_json};
use crate::history::remove_tree;
use crate::ids::RunId;

/// What a session that is being removed is called meanwhile: none, and rubbish after a crash.
const GONE: &str = ".gone";

/// How many of its runs a session remembers.
const RUNS: usize = 100;

/// Why there is no such session to go on with. Each message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Id(#[from] super::NotASessionId),
    #[error("`session_fork` needs the id of a `session` that there is")]
    Fork,
    #[error("there is no session `{0}` (any more); begin one with `session` = `new`")]
    Unknown(SessionId),
    #[error(
        "session `{0}` has a run that goes on; wait for its end, or go on beside it with \
         `session_fork`"
    )]
    Busy(SessionId),
    #[error(
        "session `{id}` is about the workspace {}; go on there, or begin one with `session` = `new`",
        .about.display()
    )]
    OtherWorkspace { id: SessionId, about: PathBuf },
    #[error("failed to {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
}

fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |source| Error::Io { what, path: path.to_owned(), source }
}

/// What is written down of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    workspace: PathBuf,
    /// The agent's own name for the conversation, once there is one.
    #[serde(default)]
    agent_session: Option<String>,
    /// The newest last.
    #[serde(default)]
    runs: Vec<RunId>,
    #[serde(default)]
    forked_from: Option<SessionId>,
    /// The last run of the session that this one was forked from, at that time.
    #[serde(default)]
    forked_after: Option<RunId>,
    last_used: Timestamp,
}

/// A session in a list.
#[derive(Clone, Debug, Serialize)]
pub struct Glance {
    pub session: SessionId,
    pub workspace: PathBuf,
    pub runs: usize,
    pub last_run: Option<RunId>,
    pub forked_from: Option<SessionId>,
    pub last_used: Timestamp,
}

/// A session that no other run can have at the same time. Dropping it gives it back.
#[derive(Debug)]
pub struct Held {
    id: SessionId,
    folder: PathBuf,
    note: Note,
    /// Held open: closing it is the unlocking.
    _lock: File,
}

/// Begins a session about `workspace`.
pub fn create(state: &Path, workspace: &Path) -> Result<Held, Error> {
    let note = Note {
        workspace: workspace.to_owned(),
        agent_session: None,
        runs: Vec::new(),
        forked_from: None,
        forked_after: None,
        last_used: Timestamp::now(),
    };
    make(state, note)
}

/// Whether there is such a session.
pub fn check_known(state: &Path, id: &SessionId) -> Result<(), Error> {
    read(&folder_of(state, id), id).map(drop)
}

/// Whether a session could be taken up for `workspace`, but for a run that has it.
pub fn check(state: &Path, id: &SessionId, workspace: &Path) -> Result<(), Error> {
    about(id, &read(&folder_of(state, id), id)?, workspace)
}

fn about(id: &SessionId, note: &Note, workspace: &Path) -> Result<(), Error> {
    if note.workspace == workspace {
        return Ok(());
    }
    Err(Error::OtherWorkspace { id: id.clone(), about: note.workspace.clone() })
}

/// Takes a session up again.
pub fn take(state: &Path, id: &SessionId, workspace: &Path) -> Result<Held, Error> {
    let folder = folder_of(state, id);
    let lock = lock(&folder, id)?.ok_or_else(|| Error::Busy(id.clone()))?;
    // Only now: whoever had it may have changed it, or removed it.
    let note = read(&folder, id)?;
    about(id, &note, workspace)?;
    Ok(Held { id: id.clone(), folder, note, _lock: lock })
}

/// Begins a session with all that another one knows. `copy` copies the agent's folder, which holds
/// whatever the agent wanted it to; the other session stays as it is.
pub fn fork(
    state: &Path,
    id: &SessionId,
    workspace: &Path,
    copy: impl FnOnce(&Path, &Path) -> std::io::Result<()>,
) -> Result<Held, Error> {
    let origin = take(state, id, workspace)?;
    let note = Note {
        runs: Vec::new(),
        forked_from: Some(id.clone()),
        forked_after: origin.earlier().next().cloned(),
        last_used: Timestamp::now(),
        ..origin.note.clone()
    };
    let forked = make(state, note)?;
    let copied = copy(&origin.agent_folder(), &forked.agent_folder());
    if let Err(source) = copied {
        let failed = io("copy the agent's state of", &origin.folder)(source);
        forked.discard()?;
        return Err(failed);
    }
    Ok(forked)
}

fn make(state: &Path, note: Note) -> Result<Held, Error> {
    let all = folder_of_sessions(state);
    let private = |recursive: bool, path: &Path| {
        DirBuilder::new().recursive(recursive).mode(0o700).create(path)
    };
    private(true, &all).map_err(io("make", &all))?;
    let (id, folder) = loop {
        let id = SessionId::new();
        let folder = folder_of(state, &id);
        match private(false, &folder) {
            Ok(()) => break (id, folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io("make", &folder)(error)),
        }
    };
    let agent = folder.join(AGENT);
    private(false, &agent).map_err(io("make", &agent))?;
    let lock = lock(&folder, &id)?.ok_or_else(|| Error::Busy(id.clone()))?;
    let held = Held { id, folder, note, _lock: lock };
    held.write()?;
    Ok(held)
}

impl Held {
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The folder that the sandbox may write.
    pub fn agent_folder(&self) -> PathBuf {
        self.folder.join(AGENT)
    }

    /// A file to touch while a run has it.
    pub fn sign(&self) -> PathBuf {
        self.folder.join(LOCK)
    }

    /// The agent's own name for the conversation; none in a session that has just begun.
    pub fn agent_session(&self) -> Option<&str> {
        self.note.agent_session.as_deref()
    }

    /// Whether nothing was ever kept of it.
    pub fn is_new(&self) -> bool {
        self.note.runs.is_empty() && self.note.forked_from.is_none()
    }

    /// The runs that it goes on from, the newest first.
    pub fn earlier(&self) -> impl Iterator<Item = &RunId> {
        self.note.runs.iter().rev().chain(&self.note.forked_after)
    }

    /// Makes the sandbox's user the owner of the agent's folder.
    pub fn hand_over(&self, uid: u32, gid: u32) -> Result<(), Error> {
        let agent = self.agent_folder();
        match std::os::unix::fs::chown(&agent, Some(uid), Some(gid)) {
            Ok(()) => Ok(()),
            Err(error) => Err(io("give the sandbox's user", &agent)(error)),
        }
    }

    /// Notes what a run has made of the session, and gives it back.
    pub fn keep(mut self, run: &RunId, agent_session: Option<&str>) -> Result<(), Error> {
        if let Some(name) = agent_session {
            self.note.agent_session = Some(name.to_owned());
        }
        self.note.runs.push(run.clone());
        let surplus = self.note.runs.len().saturating_sub(RUNS);
        self.note.runs.drain(..surplus);
        self.note.last_used = Timestamp::now();
        self.write()
    }

    /// Removes it with all that the agent knew.
    pub fn discard(self) -> Result<(), Error> {
        remove_folder(&self.folder)
    }

    fn write(&self) -> Result<(), Error> {
        let path = self.folder.join(NOTE);
        write_json(&path, &self.note, Durability::Durable).map_err(io("write", &path))
    }
}

/// All sessions, the last used first. What cannot be read is left out, and told.
pub fn list(state: &Path) -> Vec<Glance> {
    let entries = fs::read_dir(folder_of_sessions(state)).into_iter().flatten();
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok());
    let mut sessions: Vec<_> = ids
        .filter_map(|id: SessionId| {
            let note = read(&folder_of(state, &id), &id);
            let note = note.inspect_err(|error| tracing::warn!("{error}")).ok()?;
            Some(Glance {
                session: id,
                workspace: note.workspace,
                runs: note.runs.len(),
                last_run: note.runs.last().cloned(),
                forked_from: note.forked_from,
                last_used: note.last_used,
            })
        })
        .collect();
    sessions.sort_by_key(|session| std::cmp::Reverse(session.last_used));
    sessions
}

/// Removes a session that no run has.
pub fn remove(state: &Path, id: &SessionId) -> Result<(), Error> {
    let folder = folder_of(state, id);
    let _lock = lock(&folder, id)?.ok_or_else(|| Error::Busy(id.clone()))?;
    remove_folder(&folder)
}

/// Removes a session whose lock is held.
fn remove_folder(folder: &Path) -> Result<(), Error> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let gone = folder.with_file_name(format!(".{name}{GONE}"));
    // At once no session any more: nobody finds half of one, or a lock that is not ours.
    match fs::rename(folder, &gone) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("remove", folder)(error)),
        Ok(()) => remove_gone(&gone),
    }
}

fn remove_gone(gone: &Path) -> Result<(), Error> {
    match remove_tree(gone) {
        // Somebody else removes the same.
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", gone)(error)),
        _ => Ok(()),
    }
}

/// Removes what a crash left half removed.
pub(super) fn sweep_up(state: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(folder_of_sessions(state)).into_iter().flatten().flatten();
    let half = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let id = name.strip_prefix('.').and_then(|name| name.strip_suffix(GONE));
        id.is_some_and(|id| id.parse::<SessionId>().is_ok())
    });
    half.map(|entry| remove_gone(&entry.path())).fold(Ok(()), Result::and)
}

/// The session's lock; none where a run has it.
fn lock(folder: &Path, id: &SessionId) -> Result<Option<File>, Error> {
    let path = folder.join(LOCK);
    open_locked(&path, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        match error.kind() {
            ErrorKind::NotFound => Error::Unknown(id.clone()),
            _ => io("take the lock", &path)(error),
        }
    })
}

fn read(folder: &Path, id: &SessionId) -> Result<Note, Error> {
    let path = folder.join(NOTE);
    let text = fs::read(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::Unknown(id.clone()),
        _ => io("read", &path)(error),
    })?;
    serde_json::from_slice(&text).map_err(|error| io("read", &path)(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground() -> (tempfile::TempDir, PathBuf) {
        (tempfile::tempdir().expect("temp dir"), PathBuf::from("/home/ann/project"))
    }

    #[test]
    fn a_session_is_one_runs_at_a_time_and_remembers() {
        let (state, workspace) = ground();
        let first = create(state.path(), &workspace).expect("made");
        let id = first.id().clone();
        assert!(first.is_new() && first.agent_session().is_none());
        assert!(matches!(take(state.path(), &id, &workspace), Err(Error::Busy(_))));
        assert!(matches!(remove(state.path(), &id), Err(Error::Busy(_))));
        let run = RunId::new();
        first.keep(&run, Some("ses_abc")).expect("kept");

        let again = take(state.path(), &id, &workspace).expect("free again");
        assert_eq!(again.agent_session(), Some("ses_abc"));
        assert!(!again.is_new());
        again.keep(&RunId::new(), None).expect("kept");
        let listed = list(state.path());
        assert_eq!((listed.len(), listed[0].runs), (1, 2));
        let again = take(state.path(), &id, &workspace).expect("free again");
        assert_eq!(again.agent_session(), Some("ses_abc"), "a run that failed forgets nothing");
    }

    #[test]
    fn a_session_belongs_to_its_workspace() {
        let (state, workspace) = ground();
        let held = create(state.path(), &workspace).expect("made");
        let id = held.id().clone();
        drop(held);
        let elsewhere = take(state.path(), &id, Path::new("/home/ann/other"));
        assert!(matches!(elsewhere, Err(Error::OtherWorkspace { .. })), "{elsewhere:?}");
        let unknown = "ses-20260131-235959-k3f9".parse().expect("an id");
        assert!(matches!(take(state.path(), &unknown, &workspace), Err(Error::Unknown(_))));
        assert!(!folder_of(state.path(), &unknown).exists());
    }

    #[test]
    fn a_fork_goes_its_own_way() {
        let (state, workspace) = ground();
        let held = create(state.path(), &workspace).expect("made");
        let id = held.id().clone();
        fs::write(held.agent_folder().join("memory"), "a").expect("written");
        let copy =
            |from: &Path, to: &Path| fs::copy(from.join("memory"), to.join("memory")).map(drop);
        assert!(matches!(fork(state.path(), &id, &workspace, copy), Err(Error::Busy(_))));
        held.keep(&RunId::new(), Some("ses_abc")).expect("kept");

        let forked = fork(state.path(), &id, &workspace, copy).expect("forked");
        assert_ne!(forked.id(), &id);
        assert_eq!(forked.agent_session(), Some("ses_abc"));
        fs::write(forked.agent_folder().join("memory"), "b").expect("written");
        let origin = take(state.path(), &id, &workspace).expect("free");
        assert_eq!(fs::read_to_string(origin.agent_folder().join("memory")).expect("there"), "a");
        drop(origin);

        let broken = fork(state.path(), &id, &workspace, |_, _| Err(ErrorKind::StorageFull.into()));
        assert!(matches!(broken, Err(Error::Io { .. })));
        assert_eq!(list(state.path()).len(), 2, "half a fork is none");
    }

    #[test]
    fn nobody_else_reads_a_session() {
        use std::os::unix::fs::PermissionsExt;
        let (state, workspace) = ground();
        let held = create(state.path(), &workspace).expect("made");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&held.folder), 0o700);
        assert_eq!(mode(&held.agent_folder()), 0o700);
        assert_eq!(mode(&held.folder.join(NOTE)), 0o600);
    }
}
