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

mod send;

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::container::Spec;
use super::translate::translate;
use super::{Door, Error, Line, Mount, Order, Policy, Sandbox, User, WORKSPACE};
use crate::engine::{Engine, Kind};
use crate::text::one_line;
use crate::workspace::mirror::{self, Mirror};

/// The port on that sandbox's loopback over which files come and go.
const PORT: u16 = 4143;
const SOCKET: &str = "files.sock";
/// A folder of the user's in a volume that is root's.
const FOLDER: &str = "files";

/// How long the last bytes may take when the program inside has ended.
const LINGER: Duration = Duration::from_secs(10);

/// How much earlier than the clock a file may have been changed, by the kernel's own steps.
const TICK: i128 = 20_000_000;

/// Takes a tar archive, and prints the clock when it is done.
const TAKE: &str = r#"set -e
cd "$1"
exec 3<>"/dev/tcp/127.0.0.1/$2"
tar --extract --preserve-permissions --no-same-owner <&3
cat <&3 >/dev/null
date +%s.%N"#;

/// Lists folders, takes the names of those files that are wanted, and gives these as a tar archive.
/// What the agent has shut is opened for as long as that takes. A second connection is waited for at
/// the end, which we end when all has come: what is still on its way when a command ends is lost.
const GIVE: &str = r#"set -e
cd "$1"
port=$2
exec 3<>"/dev/tcp/127.0.0.1/$port"
shift 2
date +%s.%N
find "$@" -printf '%y %m %C@ %p\0' \
    \( -type d ! -perm -500 -o -type f ! -perm -400 \) -fprintf /tmp/shut '%m\0%p\0' -exec chmod u+rX {} \; >&3
printf '\0' >&3
tar --create --format=posix --hard-dereference --no-recursion --null --verbatim-files-from --files-from=- <&3 >&3
while IFS= read -r -d '' mode && IFS= read -r -d '' path; do modes+=("$mode"); paths+=("$path"); done </tmp/shut
for ((at = ${#paths[@]} - 1; at >= 0; at--)); do chmod "${modes[at]}" "${paths[at]}"; done
exec 3>&-
cat <"/dev/tcp/127.0.0.1/$port""#;

/// Adds up the blocks of all inodes, and counts the names.
const USAGE: &str = r#"cd "$1"
shift 2
find "$@" -printf '%i %b\n' | awk '!seen[$1]++ { sum += $2 } END { printf "%.0f %d\n", sum * 512, NR }'"#;

/// Copies on the engine's machine, so that another process finds them after a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Copies {
    volume: String,
    /// The path of the copies there.
    place: PathBuf,
    /// Places on this machine, in the order of their copies.
    sources: Vec<PathBuf>,
    /// Numbers of those that the run may write to.
    writable: Vec<usize>,
    /// The engine's clock when both sides were the same.
    since: i128,
}

impl Copies {
    /// A policy whose mounts are the copies of those that it has.
    fn policy(&self, policy: &Policy) -> Policy {
        let copied = |mount: &Mount| {
            let number = self.sources.iter().position(|source| *source == mount.source)?;
            Some(Mount { source: self.place.join(number.to_string()), ..mount.clone() })
        };
        let mounts = policy.mounts.iter().filter_map(copied).collect();
        Policy { mounts, is_copied: true, ..policy.clone() }
    }

    /// Brings what a run changed in them into the local copies, when its sandbox is gone.
    pub async fn bring_back(
        &self,
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
    ) -> Result<(), Error> {
        let mut transfer = Transfer::reopen(engine, policy, spec, self.clone()).await?;
        transfer.leave();
        let brought = transfer.bring_back().await;
        transfer.remove().await?;
        brought
    }

    /// Removes them. Nothing may be left in them that is wanted.
    pub async fn remove(&self, engine: &Engine) -> Result<(), Error> {
        Ok(engine.remove_volume(&self.volume).await?)
    }
}

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
    /// Most bytes that may come back.
    most: u64,
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
    ) -> Result<(Self, Policy), Error> {
        let volume = format!("sandbox-mcp-{}-files", spec.labels.run);
        let options = match engine.kind() {
            // Podman gives a volume to whom it is told, which is root in a rootless one's eyes.
            Kind::Podman { is_rootless: false } => {
                let owner = format!("uid={},gid={}", policy.user.uid(), policy.user.gid());
                HashMap::from([("o".to_owned(), owner)])
            }
            _ => HashMap::new(),
        };
        let place = engine.create_volume(&volume, options, spec.labels.render_for_files()).await?;
        let copies = Copies {
            volume,
            place,
            sources: policy.mounts.iter().map(|mount| mount.source.clone()).collect(),
            writable: (0..policy.mounts.len()).filter(|at| !policy.mounts[*at].read_only).collect(),
            since: 0,
        };
        match Self::fill(engine, policy, spec, copies.clone()).await {
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
    ) -> Result<Self, Error> {
        if engine.kind() == Kind::Docker {
            give_folder(engine, policy.user, &own_policy(policy, &copies.place), spec).await?;
            copies.place.push(FOLDER);
        }
        let mut transfer = Self::reopen(engine, policy, spec, copies).await?;
        match transfer.send().await {
            Ok(()) => Ok(transfer),
            Err(error) => {
                Box::pin(transfer.sandbox.remove()).await?;
                Err(error)
            }
        }
    }

    /// Starts a sandbox over copies that are there.
    pub async fn reopen(
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
        copies: Copies,
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
        let own = own_policy(policy, &copies.place);
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
            most: policy.file_bytes,
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

    async fn send(&mut self) -> Result<(), Error> {
        let sources = self.copies.sources.clone();
        let said = self.exchange("copy to", TAKE, &[], move |stream| send::all(&sources, stream));
        let said = said.await?;
        self.copies.since = clock(&said).ok_or(Error::NoSense)? - TICK;
        Ok(())
    }

    /// Brings what has changed on the engine's machine into the local copies.
    pub async fn bring_back(&mut self) -> Result<(), Error> {
        if self.copies.writable.is_empty() {
            return Ok(());
        }
        let mut mirror = Mirror {
            roots: self
                .copies
                .writable
                .iter()
                .map(|at| (at.to_string(), self.copies.sources[*at].clone()))
                .collect(),
            since: self.copies.since,
            owner: (self.user.uid(), self.user.gid()),
            most: self.most,
        };
        let names: Vec<_> = mirror.roots.keys().cloned().collect();
        let brought = self.exchange("copy from", GIVE, &names, move |stream| mirror.take(stream));
        let said = brought.await?;
        self.copies.since = clock(&said).ok_or(Error::NoSense)? - TICK;
        Ok(())
    }

    /// Returns the bytes and the number of things of what the run may write to.
    pub async fn usage(&mut self) -> Result<(u64, u64), Error> {
        let names: Vec<_> = self.copies.writable.iter().map(ToString::to_string).collect();
        self.settle().await?;
        let argv = arguments(USAGE, &names);
        self.sandbox.order(&Order { argv: &argv, environment: &[], task: b"" })?;
        let mut told = None;
        // What it cannot look into it complains of; the agent has shut it, and it grows no more.
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

/// The policy of the sandbox that has the volume.
fn own_policy(policy: &Policy, place: &Path) -> Policy {
    let door = Door { what: "files of the run".to_owned(), port: PORT, socket: SOCKET.to_owned() };
    Policy {
        doors: vec![door],
        authority: None,
        mounts: vec![Policy::workspace_mount(place.to_owned(), WORKSPACE.into(), false)],
        workspace: WORKSPACE.into(),
        is_copied: true,
        ..policy.clone()
    }
}

/// Makes a folder of a user's in the volume. Docker makes volumes root's, and no sandbox of ours is
/// root's: a container that never starts has the folder unpacked.
async fn give_folder(
    engine: &Engine,
    user: User,
    policy: &Policy,
    spec: &Spec<'_>,
) -> Result<(), Error> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o700);
    header.set_uid(user.uid().into());
    header.set_gid(user.gid().into());
    header.set_size(0);
    let mut archive = tar::Builder::new(Vec::new());
    let archive = archive
        .append_data(&mut header, FOLDER, std::io::empty())
        .and_then(|()| archive.into_inner());
    let archive = archive.map_err(|source| Error::Io { what: "pack a folder".into(), source })?;
    let id = engine.create(translate(engine.kind(), policy, spec, false)?.body).await?;
    let given = engine.unpack(&id, WORKSPACE, archive).await;
    engine.remove(&id).await?;
    Ok(given?)
}

/// The command of a script: its folder, its port and the names that it is about.
fn arguments(script: &str, names: &[String]) -> Vec<String> {
    let argv = ["/bin/bash", "-c", script, "files", WORKSPACE].map(str::to_owned);
    [&argv[..], &[PORT.to_string()], names].concat()
}

/// The clock that a script printed, in nanoseconds.
fn clock(said: &[String]) -> Option<i128> {
    mirror::nanoseconds(said.first()?)
}
