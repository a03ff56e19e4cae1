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
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::{JoinHandle, spawn_blocking};

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
tar --extract --preserve-permissions --no-same-owner <"/dev/tcp/127.0.0.1/$2"
date +%s.%N"#;

/// Lists folders, takes the names of those files that are wanted, and gives these as a tar archive.
/// What the agent has shut is opened for as long as that takes.
const GIVE: &str = r#"set -e
cd "$1"
exec 3<>"/dev/tcp/127.0.0.1/$2"
shift 2
date +%s.%N
find "$@" -printf '%y %m %C@ %p\0' \
    \( -type d ! -perm -500 -o -type f ! -perm -400 \) -fprintf /tmp/shut '%m\0%p\0' -exec chmod u+rX {} \; >&3
printf '\0' >&3
tar --create --format=posix --hard-dereference --no-recursion --null --verbatim-files-from --files-from=- <&3 >&3
while IFS= read -r -d '' mode && IFS= read -r -d '' path; do modes+=("$mode"); paths+=("$path"); done </tmp/shut
for ((at = ${#paths[@]} - 1; at >= 0; at--)); do chmod "${modes[at]}" "${paths[at]}"; done"#;

/// A volume with copies, and the sandbox that has it.
#[derive(Debug)]
pub struct Transfer {
    engine: Engine,
    volume: String,
    sandbox: Sandbox,
    listener: UnixListener,
    /// Places on this machine, in the order of their copies.
    sources: Vec<PathBuf>,
    /// Numbers of those that the run may write to.
    writable: Vec<usize>,
    user: User,
    /// Most bytes that may come back.
    most: u64,
    /// The engine's clock when both sides were last the same.
    since: i128,
}

impl Transfer {
    /// Copies the mounts of a policy to the engine's machine. Returns the policy with the copies in
    /// their place, too.
    pub async fn open(
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
    ) -> Result<(Self, Policy), Error> {
        let Some(sockets) = spec.sockets else {
            return Err(Error::Transfer { what: "copy to", why: "it has no folder".to_owned() });
        };
        let volume = format!("sandbox-mcp-{}-files", spec.labels.run);
        let options = match engine.kind() {
            // Podman gives a volume to whom it is told, which is root in a rootless one's eyes.
            Kind::Podman { is_rootless: false } => {
                let owner = format!("uid={},gid={}", policy.user.uid(), policy.user.gid());
                HashMap::from([("o".to_owned(), owner)])
            }
            _ => HashMap::new(),
        };
        let place = engine.create_volume(&volume, options, spec.labels.render()).await?;
        match Self::fill(engine, policy, spec, sockets, (&volume, place)).await {
            Ok(filled) => Ok(filled),
            Err(error) => {
                engine.remove_volume(&volume).await?;
                Err(error)
            }
        }
    }

    async fn fill(
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
        sockets: &Path,
        (volume, place): (&str, PathBuf),
    ) -> Result<(Self, Policy), Error> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| Error::Io { what, source }
        };
        let own_spec = Spec { image: spec.image, labels: spec.labels, sockets: Some(sockets) };
        let place = match engine.kind() {
            Kind::Docker => {
                give_folder(engine, policy.user, &own_policy(policy, &place), &own_spec).await?;
                place.join(FOLDER)
            }
            Kind::Podman { .. } => place,
        };
        let own = own_policy(policy, &place);
        let listener = UnixListener::bind(sockets.join(SOCKET)).map_err(io("listen for files"))?;
        let sandbox = Sandbox::start(engine, &own, &own_spec).await?;
        let mut transfer = Self {
            engine: engine.clone(),
            volume: volume.to_owned(),
            sandbox,
            listener,
            sources: policy.mounts.iter().map(|mount| mount.source.clone()).collect(),
            writable: (0..policy.mounts.len()).filter(|at| !policy.mounts[*at].read_only).collect(),
            user: policy.user,
            most: policy.file_bytes,
            since: 0,
        };
        let sent = async {
            transfer.sandbox.receipt(&own).await?;
            transfer.send().await
        };
        if let Err(error) = sent.await {
            transfer.sandbox.remove().await?;
            return Err(error);
        }
        let copied = |(number, mount): (usize, &Mount)| Mount {
            source: place.join(number.to_string()),
            ..mount.clone()
        };
        let mounts = policy.mounts.iter().enumerate().map(copied).collect();
        Ok((transfer, Policy { mounts, is_copied: true, ..policy.clone() }))
    }

    async fn send(&mut self) -> Result<(), Error> {
        let sources = self.sources.clone();
        let said = self.exchange("copy to", TAKE, &[], move |stream| send::all(&sources, stream));
        let ((), said) = said.await?;
        self.since = clock(&said).ok_or(Error::NoSense)? - TICK;
        Ok(())
    }

    /// Brings what has changed on the engine's machine into the local copies.
    pub async fn bring_back(&mut self) -> Result<(), Error> {
        if self.writable.is_empty() {
            return Ok(());
        }
        let mut mirror = Mirror {
            roots: self
                .writable
                .iter()
                .map(|at| (at.to_string(), self.sources[*at].clone()))
                .collect(),
            since: self.since,
            owner: (self.user.uid(), self.user.gid()),
            most: self.most,
        };
        let names: Vec<_> = mirror.roots.keys().cloned().collect();
        let brought = self.exchange("copy from", GIVE, &names, move |stream| mirror.take(stream));
        let ((), said) = brought.await?;
        self.since = clock(&said).ok_or(Error::NoSense)? - TICK;
        Ok(())
    }

    /// Runs a script inside, and has `with` speak to it over its connection.
    async fn exchange<T: Send + 'static>(
        &mut self,
        what: &'static str,
        script: &str,
        arguments: &[String],
        with: impl FnOnce(UnixStream) -> std::io::Result<T> + Send + 'static,
    ) -> Result<(T, Vec<String>), Error> {
        let argv = ["/bin/bash", "-c", script, "files", WORKSPACE].map(str::to_owned);
        let argv = [&argv[..], &[PORT.to_string()], arguments].concat();
        self.sandbox.order(&Order { argv: &argv, environment: &[], task: b"" })?;
        let failed = |why: String| Error::Transfer { what, why: one_line(&why, 300) };
        let speaking = async {
            let (stream, _) = self.listener.accept().await?;
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            let spoken: JoinHandle<_> = spawn_blocking(move || with(stream));
            spoken.await.map_err(std::io::Error::other)?
        };
        tokio::pin!(speaking);
        let (mut said, mut complaints) = (Vec::new(), Vec::new());
        let mut spoken = None;
        let code = loop {
            let line = tokio::select! {
                done = &mut speaking, if spoken.is_none() => {
                    spoken = Some(done);
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
        if code != 0 {
            // Our own side's reason comes first: the other's follows from it.
            if let Some(Err(error)) = spoken {
                return Err(failed(error.to_string()));
            }
            return Err(failed(format!("exit code {code}: {}", complaints.join("; "))));
        }
        let spoken = match spoken {
            Some(spoken) => spoken,
            None => tokio::time::timeout(LINGER, speaking)
                .await
                .map_err(|_| failed("the connection does not end".to_owned()))?,
        };
        Ok((spoken.map_err(|error| failed(error.to_string()))?, said))
    }

    /// Removes the sandbox and the volume.
    pub async fn remove(self) -> Result<(), Error> {
        // Boxed, because a sandbox may have one of these.
        Box::pin(self.sandbox.remove()).await?;
        Ok(self.engine.remove_volume(&self.volume).await?)
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
    let id = engine.create(translate(engine.kind(), policy, spec)?.body).await?;
    let given = engine.unpack(&id, WORKSPACE, archive).await;
    engine.remove(&id).await?;
    Ok(given?)
}

/// The clock that a script printed, in nanoseconds.
fn clock(said: &[String]) -> Option<i128> {
    mirror::nanoseconds(said.first()?)
}
