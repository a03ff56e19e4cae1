//! The life of one container: made, checked, given its work, followed, removed.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::guest::{self, Nonce, Order, Word, Words};
use super::listing::{self, FolderSeen};
use super::pipe::{Doors, Kind, Pipe, VERSION};
use super::{AUTHORITIES, Error, Labels, Line, Mount, Overlay, Policy, Receipt};
use crate::engine::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount as EngineMount, MountBindOptions, MountType, MountVolumeOptions, ResourcesUlimits,
};
use crate::engine::{Engine, Exit};
use crate::text::one_line;

/// Longest line of the agent that is read whole; a file written by a tool comes as one line.
pub const GUEST_LINE_LIMIT: usize = 4 << 20;

/// How long the guest may take from its start to its receipt.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the engine may take to tell the end of a container whose output has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

const OVERLAY_OPTIONS: &str = "redirect_dir=on,metacopy=off,index=off,nfs_export=off,xino=on";

/// What one container is made from.
#[derive(Debug)]
pub struct Spec<'a> {
    pub image: &'a str,
    pub labels: &'a Labels,
    /// The folder of the sockets that the policy's doors lead to; none for a sandbox that leads
    /// nowhere.
    pub sockets: Option<&'a Path>,
}

/// A running container. [`Sandbox::remove`] it; dropping it unremoved closes its standard input,
/// which ends it, and leaves the remains to the reaper.
#[derive(Debug)]
pub struct Sandbox {
    engine: Engine,
    id: String,
    /// Made for it, and to be removed with it.
    volumes: Vec<String>,
    pub(super) words: Words,
    /// For the end of the order that goes on.
    nonce: Option<Nonce>,
    /// Lines of an order that were read while it was paused.
    pub(super) held: VecDeque<Line>,
    /// The pause that goes on.
    pub(super) pause: Option<Nonce>,
}

impl Sandbox {
    /// Creates, attaches and starts, in this order: an engine loses what a container says before
    /// anyone listens. What fails after the creation is removed here.
    pub async fn start(engine: &Engine, policy: &Policy, spec: &Spec<'_>) -> Result<Self, Error> {
        for mount in &policy.mounts {
            if let Some(overlay) = &mount.overlay {
                let options = volume_options(mount, overlay);
                engine.create_volume(&overlay.volume, options, spec.labels.render()).await?;
            }
        }
        let id = match engine.create(body(policy, spec)).await {
            Err(error) if error.is_missing() => {
                remove_volumes(engine, policy).await?;
                return Err(Error::NoImage { image: spec.image.to_owned() });
            }
            Err(error) => {
                remove_volumes(engine, policy).await?;
                return Err(error.into());
            }
            Ok(id) => id,
        };
        let started = async {
            let attached = engine.attach(&id).await?;
            engine.start(&id).await?;
            Ok::<_, crate::engine::Error>(attached)
        };
        match started.await {
            Ok(attached) => Ok(Self {
                engine: engine.clone(),
                id,
                volumes: volumes(policy).map(str::to_owned).collect(),
                words: Words::new(Pipe::new(attached, doors(policy, spec)), GUEST_LINE_LIMIT),
                nonce: None,
                held: VecDeque::new(),
                pause: None,
            }),
            Err(error) => {
                engine.remove(&id).await?;
                remove_volumes(engine, policy).await?;
                Err(error.into())
            }
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits for the guest's receipt and holds it against the policy.
    pub async fn receipt(&mut self, policy: &Policy) -> Result<Receipt, Error> {
        let mut said = Vec::new();
        let receipt = loop {
            let word = match tokio::time::timeout(RECEIPT_TIMEOUT, self.words.next()).await {
                Err(_) => {
                    let seconds = RECEIPT_TIMEOUT.as_secs();
                    return Err(Error::Silent { seconds, said: quote(&said) });
                }
                Ok(None) => {
                    let code = self.exit().await?.code;
                    return Err(Error::Stillborn { code, said: quote(&said) });
                }
                Ok(Some(word)) => word?,
            };
            match word {
                Word::Receipt(receipt) if receipt.pipe == VERSION => break *receipt,
                Word::Line(Line::Stderr(text)) => said.push(text),
                _ => return Err(Error::NoSense),
            }
        };
        let mut wrong = receipt.mismatches(policy);
        wrong.extend(receipt.misplaced(policy));
        if wrong.is_empty() { Ok(receipt) } else { Err(Error::Mismatch(wrong)) }
    }

    /// Has the guest run something. One order at a time: the next when [`Line::Ended`] was read.
    pub fn order(&mut self, order: &Order<'_>) -> Result<(), Error> {
        guest::order(&self.words.pipe, order, self.nonce.insert(Nonce::new()?))
    }

    /// Has the guest end the order that goes on; its [`Line::Ended`] follows.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.pause = None;
        self.words.pipe.send(Kind::Stop, b"")
    }

    /// Returns true while no order goes on.
    pub fn is_idle(&self) -> bool {
        self.nonce.is_none()
    }

    /// Has PID 1 tell folders of the workspace, while nothing else lives in the sandbox, or all of it
    /// is paused.
    pub async fn list(&mut self, folders: &[PathBuf]) -> Result<Vec<FolderSeen>, Error> {
        let mut seen = Vec::new();
        for order in listing::orders(folders) {
            let nonce = Nonce::new()?;
            listing::send(&self.words.pipe, &order, &nonce)?;
            let listed = format!("listed {}", nonce.as_str());
            loop {
                let why = match self.words.next().await.transpose()? {
                    Some(Word::Said(word)) if word == listed => break,
                    Some(Word::Listed(line)) if listing::read(&line, &mut seen) => continue,
                    // What was on its way when all was paused.
                    Some(Word::Line(line)) if self.pause.is_some() => {
                        self.held.push_back(line);
                        continue;
                    }
                    Some(
                        Word::Listed(line) | Word::Said(line) | Word::Line(Line::Stderr(line)),
                    ) => one_line(&line, 200),
                    Some(_) => "something else".to_owned(),
                    None => "it has ended".to_owned(),
                };
                return Err(Error::NoListing { why });
            }
        }
        Ok(seen)
    }

    /// The next line of output; none at the end of the container. Safe to drop and call again.
    pub async fn next_line(&mut self) -> Option<Result<Line, Error>> {
        if let Some(line) = self.held.pop_front() {
            return Some(Ok(line));
        }
        loop {
            match self.next_word().await? {
                Ok(Word::Line(line)) => return Some(Ok(line)),
                // Of a pause that was given up.
                Ok(Word::Said(_) | Word::Listed(_)) => {}
                Ok(Word::Receipt(_) | Word::Ended(..)) => return Some(Err(Error::NoSense)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next word; the end of the order that goes on is a line.
    pub(super) async fn next_word(&mut self) -> Option<Result<Word, Error>> {
        let word = self.words.next().await?;
        Some(match word {
            Ok(Word::Ended(nonce, ended))
                if self.nonce.as_ref().is_some_and(|own| own.as_str() == nonce) =>
            {
                self.nonce = None;
                Ok(Word::Line(Line::Ended(ended)))
            }
            other => other,
        })
    }

    /// How the container ended, once its output has.
    pub async fn exit(&mut self) -> Result<Exit, Error> {
        match tokio::time::timeout(EXIT_TIMEOUT, self.engine.wait(&self.id)).await {
            Ok(code) => {
                code?;
                Ok(self.engine.exit(&self.id).await?)
            }
            Err(_) => Err(crate::engine::Error::TimedOut {
                verb: "tell the container's end",
                seconds: EXIT_TIMEOUT.as_secs(),
            }
            .into()),
        }
    }

    /// Kills and removes; returns when the engine has confirmed it.
    pub async fn remove(self) -> Result<(), Error> {
        self.words.pipe.hang_up().await;
        self.engine.remove(&self.id).await?;
        for volume in &self.volumes {
            self.engine.remove_volume(volume).await?;
        }
        Ok(())
    }
}

/// What the guest said before it failed, for the error's message.
fn quote(said: &[String]) -> String {
    if said.is_empty() { String::new() } else { format!(": {}", one_line(&said.join(" "), 600)) }
}

/// Where the ports inside lead.
fn doors(policy: &Policy, spec: &Spec<'_>) -> Doors {
    let doors = policy.doors.iter();
    let all = doors.filter_map(|door| Some((door.port, spec.sockets?.join(&door.socket))));
    all.collect()
}

/// The guest's command line: its ports and its time. What it is to run comes later.
fn command(policy: &Policy, spec: &Spec<'_>) -> Vec<String> {
    let mut command = Vec::new();
    for door in &policy.doors {
        command.extend(["--port".into(), door.port.to_string()]);
    }
    if let Some(authority) = policy.authority {
        command.extend(["--authority".into(), format!("{authority}={AUTHORITIES}")]);
    }
    command.extend([
        "--lifetime".into(),
        spec.labels.lifetime.as_secs().to_string(),
        "--umask".into(),
        policy.umask.clone(),
        "--workspace".into(),
        policy.workspace.to_string_lossy().into_owned(),
        "--disk".into(),
        policy.deleted_bytes.to_string(),
    ]);
    command
}

/// Translates the policy into the engine's words, and adds nothing to it.
fn body(policy: &Policy, spec: &Spec<'_>) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.to_owned()),
        hostname: Some(policy.hostname.to_owned()),
        user: Some(policy.user.to_string()),
        working_dir: Some(policy.workspace.to_string_lossy().into_owned()),
        entrypoint: Some(vec!["/opt/sandbox/init".into()]),
        cmd: Some(command(policy, spec)),
        labels: Some(spec.labels.render()),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        // Our end of standard input is the dead-man's switch, so it must close when we go.
        stdin_once: Some(true),
        // A terminal would merge the streams and lose bytes.
        tty: Some(false),
        host_config: Some(host_config(policy)),
        ..Default::default()
    }
}

fn host_config(policy: &Policy) -> HostConfig {
    let amount = |bytes: u64| Some(i64::try_from(bytes).unwrap_or(i64::MAX));
    let ulimit = |name: &str, value: i64| ResourcesUlimits {
        name: Some(name.into()),
        soft: Some(value),
        hard: Some(value),
    };
    let core = i64::try_from(policy.core_dump_bytes).unwrap_or(0);
    HostConfig {
        network_mode: Some(policy.network.into()),
        group_add: Some(policy.groups.iter().map(u32::to_string).collect()),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(policy.capabilities.clone()),
        privileged: Some(false),
        security_opt: Some(vec![
            format!("no-new-privileges:{}", policy.no_new_privileges),
            format!("seccomp={}", super::policy::SECCOMP),
        ]),
        readonly_rootfs: Some(policy.read_only_root),
        masked_paths: Some(strings(policy.masked_paths)),
        readonly_paths: Some(strings(policy.read_only_paths)),
        runtime: policy.runtime.clone(),
        memory: amount(policy.memory),
        memory_swap: amount(policy.memory_and_swap),
        nano_cpus: Some(nano(policy.cpus)),
        pids_limit: Some(policy.pids.into()),
        ulimits: Some(vec![
            ulimit("core", core),
            ulimit("nofile", policy.open_files),
            ulimit("fsize", i64::try_from(policy.file_bytes).unwrap_or(i64::MAX)),
        ]),
        shm_size: amount(policy.shared_memory),
        tmpfs: Some(
            policy
                .tmpfs
                .iter()
                .map(|tmpfs| (tmpfs.path.to_owned(), tmpfs.options.clone()))
                .collect::<HashMap<_, _>>(),
        ),
        mounts: Some(policy.mounts.iter().map(engine_mount).collect()),
        log_config: Some(HostConfigLogConfig { typ: Some(policy.log_driver.into()), config: None }),
        ipc_mode: Some("private".into()),
        // Engines on cgroup v1 give the host's unless they are asked.
        cgroupns_mode: policy.cgroup_namespace.parse::<HostConfigCgroupnsModeEnum>().ok(),
        // PID 1 is our own guest, which reaps and ends by itself; a second init would only stand
        // between it and its signals.
        init: Some(false),
        // When the machine itself runs out of memory, the sandbox goes first.
        oom_score_adj: Some(500),
        ..Default::default()
    }
}

fn engine_mount(mount: &Mount) -> EngineMount {
    let target = Some(mount.target.to_string_lossy().into_owned());
    let read_only = Some(mount.read_only);
    match &mount.overlay {
        None => EngineMount {
            typ: Some(MountType::BIND),
            source: Some(mount.source.to_string_lossy().into_owned()),
            target,
            read_only,
            // What is mounted below would stay writable on most kernels.
            bind_options: mount
                .read_only
                .then(|| MountBindOptions { non_recursive: Some(true), ..Default::default() }),
            ..Default::default()
        },
        Some(overlay) => EngineMount {
            typ: Some(MountType::VOLUME),
            source: Some(overlay.volume.clone()),
            target,
            read_only,
            // Else the engine fills an empty volume, and its root's owner, from the image.
            volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
            ..Default::default()
        },
    }
}

/// What makes a volume an overlay, complete, so that no default of the system counts: without
/// `redirect_dir` no folder that was there can be renamed, and with `metacopy` the layer has files
/// of zeros.
fn volume_options(mount: &Mount, overlay: &Overlay) -> HashMap<String, String> {
    let options = format!(
        "lowerdir={},upperdir={},workdir={},{OVERLAY_OPTIONS}",
        mount.source.display(),
        overlay.upper.display(),
        overlay.work.display()
    );
    [("type", "overlay"), ("device", "overlay"), ("o", &options)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn volumes(policy: &Policy) -> impl Iterator<Item = &str> {
    policy.mounts.iter().filter_map(|mount| Some(mount.overlay.as_ref()?.volume.as_str()))
}

/// Removes the volumes of a sandbox whose container is gone, or was never made.
async fn remove_volumes(engine: &Engine, policy: &Policy) -> Result<(), Error> {
    for volume in volumes(policy) {
        engine.remove_volume(volume).await?;
    }
    Ok(())
}

fn strings(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|&path| path.to_owned()).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "processor counts are small")]
fn nano(cpus: f64) -> i64 {
    (cpus * 1e9) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_mounted_below_comes_with_a_read_only_mount() {
        let mount = engine_mount(&Policy::workspace_mount("/w".into(), "/w".into(), true));
        assert_eq!(mount.bind_options.and_then(|options| options.non_recursive), Some(true));
    }
}
