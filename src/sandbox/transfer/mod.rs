//! Copies of a run's mounts on the machine of an engine that does not see our files.
//!
//! ```text
//!  this machine                          the engine's machine
//!    each mount's source ── tar ──▶  volume: 0/ 1/ 2/ …  ◀── mounted into the run's sandbox
//!    the same, mended    ◀── tar ──  what changed of those that may be written to
//! ```
//!
//! A sandbox of its own has the volume, and takes and gives files over a connection of its pipe. It
//! runs nothing of the agent's. What comes back is brought into the local copies, so that all that
//! reads a view finds it where it is without such an engine.

mod copies;
mod scripts;
mod send;
mod volumes;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::container::Spec;
use super::labels::of_kept;
use super::{Error, Line, Order, Policy, Sandbox, User, WORKSPACE};
use crate::engine::{Engine, Kind};
use crate::text::one_line;
use scripts::{GIVE, TAKE, USAGE};
use volumes::{Kept, give_folders, own_policy, owner};

pub use copies::{Copies, Sending};

/// The port on that sandbox's loopback over which files come and go.
const PORT: u16 = 4143;
const SOCKET: &str = "files.sock";
/// A folder of the user's in a volume that is root's.
const FOLDER: &str = "files";

/// Longest time for the last bytes when the program inside has ended.
const LINGER: Duration = Duration::from_secs(10);

/// Nanoseconds by which a file may seem to be changed too early, by the kernel's own steps.
const TICK: i128 = 20_000_000;

/// What is to be brought up to date, and what is known of the other side.
#[derive(Debug)]
pub struct Coming {
    /// The local copies by their names on the other side.
    pub roots: BTreeMap<String, PathBuf>,
    /// When both sides were the same, on the other side's clock, in nanoseconds.
    pub since: i128,
    /// `uid` and `gid` of what is made, where this process may choose.
    pub owner: (u32, u32),
    /// Most bytes of contents.
    pub most: u64,
}

/// Speaks with the other side until the local copies are as those there. Blocking.
pub type Take = fn(&Coming, UnixStream) -> io::Result<()>;

/// The copies of a run, and a sandbox that has them.
#[derive(Debug)]
pub struct Transfer {
    engine: Engine,
    copies: Copies,
    sandbox: Sandbox,
    listener: UnixListener,
    /// Our side of an exchange that goes on, or was given up.
    speaking: Option<JoinHandle<io::Result<()>>>,
    user: User,
    /// True where somebody else removes the volume.
    is_left: bool,
}

impl Transfer {
    /// Copies the mounts of a policy to the engine's machine. Returns the policy with the copies in
    /// their place, too.
    pub async fn open(
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
        sending: Arc<Sending>,
    ) -> Result<(Self, Policy), Error> {
        let volume = format!("sandbox-mcp-{}-files", spec.labels.run);
        let owner = owner(engine, policy.user);
        let kept_volume = sending.kept.clone();
        let labels = of_kept(&kept_volume, &sending.keeper);
        let kept = engine.create_volume(&kept_volume, owner.clone(), labels).await?;
        let labels = spec.labels.render_for_files(&sending.keeper);
        let own = engine.create_volume(&volume, owner, labels).await?;
        let parts = Copies::parts(policy, &spec.labels.run);
        // A run may pass its limit by as much before it is ended.
        let most = policy.file_bytes.saturating_mul(2);
        let copies = Copies { volume, kept_volume, own, kept, parts, most, since: 0 };
        match Self::fill(engine, policy, spec, copies.clone(), sending).await {
            Ok(transfer) => {
                let policy = transfer.copies.policy(policy);
                Ok((transfer, policy))
            }
            Err(error) => {
                copies.remove(engine).await?;
                Err(error)
            }
        }
    }

    async fn fill(
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
        mut copies: Copies,
        sending: Arc<Sending>,
    ) -> Result<Self, Error> {
        if engine.kind() == Kind::Docker {
            let own = own_policy(policy, &copies, Kept::Mounted);
            give_folders(engine, policy.user, &own, spec).await?;
            copies.own.push(FOLDER);
            copies.kept.push(FOLDER);
        }
        let mut transfer = Self::begin(engine, policy, spec, copies, Kept::Mounted).await?;
        let sent = transfer.send(sending).await;
        let copies = transfer.copies.clone();
        Box::pin(transfer.sandbox.remove()).await?;
        sent?;
        // What is kept is out of reach when there is an agent that could lead a script astray.
        Self::begin(engine, policy, spec, copies, Kept::Held).await
    }

    /// Starts a sandbox over a run's copies that are there.
    pub async fn reopen(
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
        copies: Copies,
    ) -> Result<Self, Error> {
        if !engine.has_volume(&copies.volume).await? {
            return Err(Error::Gone { volume: copies.volume });
        }
        // What is kept from run to run may be gone.
        Self::begin(engine, policy, spec, copies, Kept::Absent).await
    }

    async fn begin(
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
        copies: Copies,
        kept: Kept,
    ) -> Result<Self, Error> {
        let io = |source| Error::Io { what: "listen for files".to_owned(), source };
        let Some(sockets) = spec.sockets else {
            let why = "there is no folder for its socket".to_owned();
            return Err(Error::Transfer { what: "copy to", why });
        };
        let socket = sockets.join(SOCKET);
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(io)?;
        let own = own_policy(policy, &copies, kept);
        let mut sandbox = Box::pin(Sandbox::start(engine, &own, spec)).await?;
        if let Err(error) = sandbox.receipt(&own).await {
            Box::pin(sandbox.remove()).await?;
            return Err(error);
        }
        Ok(Self {
            engine: engine.clone(),
            copies,
            sandbox,
            listener,
            speaking: None,
            user: policy.user,
            is_left: false,
        })
    }

    pub fn policy(&self, policy: &Policy) -> Policy {
        self.copies.policy(policy)
    }

    /// Returns what is to be noted. The volume stays for whoever has the note.
    pub fn leave(&mut self) -> Copies {
        self.is_left = true;
        self.copies.clone()
    }

    async fn send(&mut self, sending: Arc<Sending>) -> Result<(), Error> {
        let parts = self.copies.parts.clone();
        let size = sending.size.clone();
        // Where the run may write to it, what is kept is copied once more.
        let names = parts.iter().enumerate().filter_map(|(number, part)| {
            let own = if part.is_writable { number.to_string() } else { String::new() };
            Some(format!("{}={own}", part.kept.as_ref()?))
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names.dedup();
        let said = self
            .exchange("copy to", TAKE, &names, move |stream| send::all(&parts, stream, &sending));
        let said = said.await?;
        self.copies.since = clock(&said).ok_or(Error::NoSense)? - TICK;
        let size = size.load(Ordering::Relaxed);
        self.copies.most = self.copies.most.saturating_add(size);
        Ok(())
    }

    /// Has `take` bring what has changed on the engine's machine into the local copies.
    pub async fn bring_back(&mut self, take: Take) -> Result<(), Error> {
        let numbers = self.copies.writable();
        let roots = numbers.map(|at| (at.to_string(), self.copies.parts[at].source.clone()));
        // After a crash a session may have been removed, and nobody wants what was in it.
        let roots = roots.filter(|(_, source)| source.is_dir());
        let coming = Coming {
            roots: roots.collect(),
            since: self.copies.since,
            owner: (self.user.uid(), self.user.gid()),
            most: self.copies.most,
        };
        let names: Vec<_> = coming.roots.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let brought = self.exchange("copy from", GIVE, &names, move |stream| take(&coming, stream));
        let said = brought.await?;
        self.copies.since = clock(&said).ok_or(Error::NoSense)? - TICK;
        Ok(())
    }

    /// Returns the bytes and the number of things of what the run may write to.
    pub async fn usage(&mut self) -> Result<(u64, u64), Error> {
        let names: Vec<_> = self.copies.writable().map(|at| at.to_string()).collect();
        if names.is_empty() {
            return Ok((0, 0));
        }
        self.settle().await?;
        let argv = arguments(USAGE, &names);
        self.sandbox.order(&Order { argv: &argv, environment: &[], task: b"" })?;
        let mut told = None;
        // It complains of what vanishes while it looks.
        while let Some(line) = self.sandbox.next_line().await {
            match line? {
                Line::Stdout(line) => told = Some(line),
                Line::Ended(_) => break,
                Line::Stderr(_) | Line::TooLong { .. } => {}
            }
        }
        let told = told.as_deref().and_then(|line| line.split_once(' '));
        let numbers = told.and_then(|(bytes, count)| bytes.parse().ok().zip(count.parse().ok()));
        numbers.ok_or(Error::NoSense)
    }

    /// Runs a script inside, and has `with` speak to it over its connection. Returns what it prints.
    async fn exchange(
        &mut self,
        what: &'static str,
        script: &str,
        names: &[String],
        with: impl FnOnce(UnixStream) -> io::Result<()> + Send + 'static,
    ) -> Result<Vec<String>, Error> {
        let failed = |why: String| Error::Transfer { what, why: one_line(&why, 300) };
        self.settle().await?;
        let argv = arguments(script, names);
        self.sandbox.order(&Order { argv: &argv, environment: &[], task: b"" })?;
        let (mut said, mut complaints) = (Vec::new(), Vec::new());
        let (mut with, mut spoken) = (Some(with), None);
        let code = loop {
            let line = tokio::select! {
                connection = self.listener.accept(), if with.is_some() || spoken.is_some() => {
                    let stream = connection.and_then(|(stream, _)| {
                        let stream = stream.into_std()?;
                        stream.set_nonblocking(false)?;
                        Ok(stream)
                    });
                    let stream = stream.map_err(|error| failed(error.to_string()))?;
                    // The second one asks only whether all is done.
                    if let Some(with) = with.take() {
                        self.speaking = Some(spawn_blocking(move || with(stream)));
                    }
                    continue;
                }
                done = ended(&mut self.speaking), if spoken.is_none() => {
                    if done.is_err() {
                        // It may wait for us.
                        self.sandbox.stop()?;
                    }
                    (self.speaking, spoken) = (None, Some(done));
                    continue;
                }
                line = self.sandbox.next_line() => line,
            };
            match line.transpose()? {
                Some(Line::Ended(ended)) => break ended.code,
                Some(Line::Stdout(line)) => said.push(line),
                Some(Line::Stderr(line)) if complaints.len() < 20 => complaints.push(line),
                Some(_) => {}
                None => {
                    return Err(failed(format!("its sandbox ended; {}", complaints.join("; "))));
                }
            }
        };
        let spoken = match spoken {
            Some(spoken) => spoken,
            None if self.speaking.is_none() => Err(io::Error::other("nothing was connected")),
            None => match timeout(LINGER, ended(&mut self.speaking)).await {
                Ok(done) => {
                    self.speaking = None;
                    done
                }
                Err(_) => Err(io::Error::other("the connection does not end")),
            },
        };
        if code != 0 {
            complaints.insert(0, format!("exit code {code}"));
        }
        // Our own reason comes first: the other side's mostly follows from it.
        if let Err(error) = &spoken {
            complaints.insert(0, error.to_string());
        }
        if code == 0 && spoken.is_ok() { Ok(said) } else { Err(failed(complaints.join("; "))) }
    }

    /// Ends what is left of an exchange that was given up.
    async fn settle(&mut self) -> Result<(), Error> {
        if !self.sandbox.is_idle() {
            self.sandbox.stop()?;
            while let Some(line) = self.sandbox.next_line().await {
                if matches!(line?, Line::Ended(_)) {
                    break;
                }
            }
        }
        if let Some(speaking) = self.speaking.take() {
            // Its connection is over, so it ends; what it had to say is of no use any more.
            let _ = speaking.await;
        }
        while self.listener.accept().now_or_never().is_some() {}
        Ok(())
    }

    /// Removes the sandbox, and the volume where nobody else does.
    pub async fn remove(self) -> Result<(), Error> {
        // Boxed, because a sandbox may have one of these.
        Box::pin(self.sandbox.remove()).await?;
        if self.is_left { Ok(()) } else { self.copies.remove(&self.engine).await }
    }
}

/// Returns what came of our side of an exchange; never where there is none.
async fn ended(speaking: &mut Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    match speaking {
        Some(speaking) => speaking.await.unwrap_or_else(|error| Err(io::Error::other(error))),
        None => std::future::pending().await,
    }
}

/// The command of a script: its folder, its port and the names that it is about.
fn arguments(script: &str, names: &[String]) -> Vec<String> {
    let argv = ["/bin/bash", "-c", script, "files", WORKSPACE].map(str::to_owned);
    [&argv[..], &[PORT.to_string()], names].concat()
}

/// A moment as `find` and `date` print it, seconds with a fraction, in nanoseconds.
pub fn nanoseconds(text: &str) -> Option<i128> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.bytes().chain(*b"000000000").take(9).map(char::from).collect();
    let seconds = i128::from(seconds.parse::<i64>().ok()?);
    Some(seconds * 1_000_000_000 + i128::from(digits.parse::<u32>().ok()?))
}

/// The clock that a script printed, in nanoseconds.
fn clock(said: &[String]) -> Option<i128> {
    nanoseconds(said.first()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        for (text, expected) in [
            ("1.5", Some(1_500_000_000)),
            ("1764520000.1234567890", Some(1_764_520_000_123_456_789)),
            ("12", Some(12_000_000_000)),
            ("-1.0", Some(-1_000_000_000)),
            ("x", None),
            ("1.x", None),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text}");
        }
    }
}
