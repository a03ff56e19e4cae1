//! The names of runs and of the processes that own them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The id of one run: the UTC time of its start and four random characters, so that ids sort by
/// time, can be said aloud, and fit a socket path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

/// A text that is not a run id.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a run id (they look like 20260131-235959-k3f9)")]
pub struct NotARunId(String);

impl RunId {
    pub fn new() -> Self {
        let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
        Self(format!("{now}-{}", random_word(4)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How long ago the run began; none where the digits are no time, or one that is to come.
    pub fn age(&self) -> Option<std::time::Duration> {
        let began = jiff::civil::DateTime::strptime("%Y%m%d-%H%M%S", &self.0[..15]).ok()?;
        let began = began.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        jiff::Timestamp::now().duration_since(began).try_into().ok()
    }
}

impl Default for RunId {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns random characters that cannot be misread for one another. They are no secret.
pub fn random_word(length: usize) -> String {
    const ALPHABET: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
    // `RandomState` is seeded by the operating system for each thread and stepped for each use.
    let seed = || {
        let state = std::hash::RandomState::new();
        std::hash::BuildHasher::hash_one(&state, std::process::id()).to_le_bytes()
    };
    std::iter::repeat_with(seed)
        .flatten()
        .take(length)
        .map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]))
        .collect()
}

impl FromStr for RunId {
    type Err = NotARunId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = text.len() == 20
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 15 => byte == b'-',
                0..=14 => byte.is_ascii_digit(),
                _ => byte.is_ascii_lowercase() || byte.is_ascii_digit(),
            });
        if shape { Ok(Self(text.to_owned())) } else { Err(NotARunId(text.to_owned())) }
    }
}

impl TryFrom<String> for RunId {
    type Error = NotARunId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which process owns a container: pid, start time and boot id together never name two processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pid: u32,
    started: u64,
    boot: String,
}

impl Owner {
    /// This process.
    pub fn current() -> std::io::Result<Self> {
        let pid = std::process::id();
        Ok(Self { pid, started: start_time(pid)?, boot: boot_id()? })
    }

    /// Asks the process to end. False when it is gone, so that no other one is ever asked: a
    /// handle of the process is taken before its identity is looked at.
    pub fn terminate(&self) -> std::io::Result<bool> {
        use rustix::io::Errno;
        use rustix::process::{
            Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal,
        };
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(false);
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Some(handle),
            Err(Errno::SRCH) => return Ok(false),
            // Kernels before 5.3 have no handles; there a moment of doubt remains.
            Err(Errno::NOSYS) => None,
            Err(errno) => return Err(errno.into()),
        };
        if !self.is_alive() {
            return Ok(false);
        }
        let asked = match handle {
            Some(handle) => pidfd_send_signal(handle, Signal::TERM),
            None => kill_process(pid, Signal::TERM),
        };
        match asked {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// False where the machine has been started again since.
    pub fn is_of_this_boot(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot)
    }

    /// Whether the process still runs, as far as this machine can tell.
    pub fn is_alive(&self) -> bool {
        self.is_of_this_boot() && start_time(self.pid).is_ok_and(|started| started == self.started)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.pid, self.started, self.boot)
    }
}

impl FromStr for Owner {
    type Err = NotAnOwner;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().ok_or_else(|| NotAnOwner(text.to_owned()));
        let pid = next()?.parse().map_err(|_| NotAnOwner(text.to_owned()))?;
        let started = next()?.parse().map_err(|_| NotAnOwner(text.to_owned()))?;
        Ok(Self { pid, started, boot: next()?.to_owned() })
    }
}

/// A label that does not name an owner.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` does not name a process (expected <pid>.<start time>.<boot id>)")]
pub struct NotAnOwner(String);

/// Clock ticks from boot to the start of `pid`: field 22 of `/proc/<pid>/stat`, counted behind the
/// last parenthesis because the command's name may hold spaces and parentheses of its own.
fn start_time(pid: u32) -> std::io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
    fields
        // A zombie is dead; only its parent has not asked yet, and some hosts never do.
        .filter(|fields| !matches!(fields.clone().next(), Some("Z" | "X")))
        .and_then(|mut fields| fields.nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| std::io::Error::other(format!("/proc/{pid}/stat has no start time")))
}

/// The time since the machine's start, suspension included. Unlike the wall clock nobody sets it.
pub fn uptime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::from_secs(now.tv_sec.unsigned_abs())
}

fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_survives_its_text() {
        let id = RunId::new();
        assert_eq!(id.as_str().parse::<RunId>().expect("own form"), id);
        for wrong in ["", "../../etc/passwd", "20260131-235959-K3F9", "20260131-235959-k3f9x"] {
            assert!(wrong.parse::<RunId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_run_id_tells_its_age() {
        let age = |id: &str| id.parse::<RunId>().expect("a run id").age();
        assert!(RunId::new().age().is_some_and(|age| age.as_secs() < 60));
        let year = age("20250101-000000-aaaa").expect("in the past");
        assert!(year.as_secs() > 86_400 * 365, "{year:?}");
        assert_eq!(age("99999999-999999-aaaa"), None);
        assert_eq!(age("99990101-000000-aaaa"), None);
    }

    #[test]
    fn a_child_that_nobody_waited_for_is_dead() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = child.id();
        let started = start_time(pid).expect("it runs");
        let owner = Owner { pid, started, boot: boot_id().expect("proc") };
        assert!(owner.is_alive());
        child.kill().expect("killed");
        let gone = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            !owner.is_alive()
        });
        assert!(gone, "a zombie passes for alive");
        child.wait().expect("waited for");
    }

    #[test]
    fn only_the_very_process_is_asked_to_end() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = child.id();
        let started = start_time(pid).expect("it runs");
        let owner = Owner { pid, started, boot: boot_id().expect("proc") };
        let other = Owner { started: started + 1, ..owner.clone() };
        assert!(!other.terminate().expect("looked"), "another process has the number now");
        assert!(!Owner { pid: 0, ..owner.clone() }.terminate().expect("looked"));
        assert!(owner.is_alive());
        assert!(owner.terminate().expect("asked"));
        child.wait().expect("ended");
        assert!(!owner.terminate().expect("looked"), "it is gone");
    }

    #[test]
    fn this_process_is_alive_and_its_predecessor_is_not() {
        let me = Owner::current().expect("proc");
        assert!(me.is_alive());
        assert_eq!(me.to_string().parse::<Owner>().expect("own form"), me);
        let before = Owner { started: me.started + 1, ..me.clone() };
        assert!(!before.is_alive());
        let other_boot = Owner { boot: "00000000-0000-0000-0000-000000000000".into(), ..me };
        assert!(!other_boot.is_alive());
    }
}
