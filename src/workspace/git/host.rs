//! Running git on this machine: as our own child, for a bounded time and output, with everything
//! off that a repository could have it run.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::super::project::find_git;

/// What would lead git to another repository than the one that is named.
const LEADING: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_CEILING_DIRECTORIES",
    "GIT_EXTERNAL_DIFF",
    "GIT_PROXY_COMMAND",
    "GIT_TRACE",
];

/// How often an end is looked for.
const LOOK: Duration = Duration::from_millis(3);

/// One question to git.
#[derive(Debug)]
pub(super) struct Ask(Command);

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub stdout: Vec<u8>,
    /// Whether git said that all went well, in time.
    pub ok: bool,
}

impl Ask {
    /// Git in `folder`, whose programs are never taken; none where there is no git.
    pub fn at(folder: &Path) -> Option<Self> {
        let program = find_git(&std::env::var_os("PATH")?, folder)?;
        let mut command = Command::new(program);
        command
            .arg("-C")
            .arg(folder)
            .args(["--no-pager", "--no-optional-locks"])
            .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
            // Not in the folder: nothing there is to be found by a relative name.
            .current_dir("/")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_ALLOW_PROTOCOL", "none")
            .env("GIT_PAGER", "cat")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // So that a program that git started ends with it.
            .process_group(0);
        for name in LEADING {
            command.env_remove(name);
        }
        Some(Self(command))
    }

    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.0.args(args);
        self
    }

    /// Runs it. What takes longer or says more than it may is ended. Blocking.
    pub fn run(mut self, time: Duration, most: u64) -> Answer {
        let until = Instant::now() + time;
        let Ok(mut child) = self.0.spawn() else { return Answer::default() };
        let reader = child.stdout.take().map(|out| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let read = out.take(most + 1).read_to_end(&mut bytes);
                (bytes, read.is_ok())
            })
        });
        let ended = loop {
            match has_ended(&child) {
                Ok(true) => break true,
                Ok(false) if Instant::now() < until => std::thread::sleep(LOOK),
                Ok(false) | Err(_) => break false,
            }
        };
        let status = end(&mut child);
        let (stdout, read) = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
        let ok = ended && status && read && stdout.len() as u64 <= most;
        Answer { stdout, ok }
    }
}

/// Whether it has ended; it stays a zombie, so that its number is nobody else's.
fn has_ended(child: &Child) -> rustix::io::Result<bool> {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match pid(child) {
        Some(pid) => waitid(WaitId::Pid(pid), look).map(|status| status.is_some()),
        None => Ok(true),
    }
}

/// Ends a child and all that it started; answers whether it had succeeded.
fn end(child: &mut Child) -> bool {
    if let Some(group) = pid(child) {
        // There is nothing to end where nothing was left.
        let _ = kill_process_group(group, Signal::KILL);
    }
    child.wait().is_ok_and(|status| status.success())
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}
