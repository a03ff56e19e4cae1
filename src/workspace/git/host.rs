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

/// Most memory of a bounded git, in KiB of addresses.
const MEMORY: u64 = 4 << 20;

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
        Some(Self::of(Command::new(program), folder))
    }

    /// The same with a bound on its memory, for what comes from inside.
    pub fn bounded(folder: &Path) -> Option<Self> {
        let program = find_git(&std::env::var_os("PATH")?, folder)?;
        // A process can bound itself, but not one of another user's.
        let mut command = Command::new("/bin/sh");
        let bound = format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\"");
        command.arg("-c").arg(bound).arg(program);
        // Packs of the user's are mapped in parts, so that they fit whatever their size.
        let parts = ["-c", "core.packedGitWindowSize=32m", "-c", "core.packedGitLimit=256m"];
        Some(Self::of(command, folder).args(parts))
    }

    fn of(mut command: Command, folder: &Path) -> Self {
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
        Self(command)
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    #[must_use]
    pub fn input(mut self, input: Stdio) -> Self {
        self.0.stdin(input);
        self
    }

    /// As the owner of a repository, where we are root: what root writes there the user cannot
    /// change. The settings of root are not the owner's then.
    #[must_use]
    pub fn of_owner(mut self, (uid, gid): (u32, u32)) -> Self {
        if rustix::process::geteuid().is_root() && uid != 0 {
            self.0.uid(uid).gid(gid).env("HOME", "/").env_remove("XDG_CONFIG_HOME");
            self.0.env("GIT_CONFIG_GLOBAL", "/dev/null");
        }
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_git_gets_no_more_memory_than_it_may() {
        let place = tempfile::tempdir().expect("temp");
        let look = ["-c", "alias.look=!ulimit -v", "look"];
        let told = |ask: Ask| {
            let answer = ask.run(Duration::from_secs(10), 100);
            String::from_utf8_lossy(&answer.stdout).trim().to_owned()
        };
        let most = MEMORY.to_string();
        assert_eq!(told(Ask::bounded(place.path()).expect("git").args(look)), most);
        assert_ne!(told(Ask::at(place.path()).expect("git").args(look)), most);
    }
}
