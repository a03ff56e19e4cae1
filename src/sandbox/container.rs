//! The life of one container: made, checked, given its work, followed, removed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::guest::{self, Nonce, Order, Word, Words};
use super::image::has_profile;
use super::listing::{self, EntrySeen, FolderSeen};
use super::pipe::{Doors, Kind, Pipe, VERSION};
use super::transfer::{Copies, Sending, Take, Transfer};
use super::translate::{translate, volume_options};
use super::{Error, Labels, Line, Policy, Receipt};
use crate::engine::{self, Engine, Exit};
use crate::text::one_line;

/// Longest line of the agent that is read whole; a file written by a tool comes as one line.
pub const GUEST_LINE_LIMIT: usize = 4 << 20;

/// How long the guest may take from its start to its receipt.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(20);

/// Most bytes of a list of folders: some million names.
const LISTED: usize = 512 << 20;

/// Most lines that PID 1 says before its receipt.
const SAID: usize = 100;

/// How long the engine may take to tell the end of a container whose output has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Copies of its files, for an engine that does not see ours.
    transfer: Option<Arc<Mutex<Option<Transfer>>>>,
    pub(super) words: Words,
    /// For the end of the order that goes on.
    nonce: Option<Nonce>,
    /// Lines of an order that were read while it was paused.
    pub(super) held: VecDeque<Line>,
    pub(super) held_bytes: usize,
    /// The pause that goes on.
    pub(super) pause: Option<Nonce>,
}

impl Sandbox {
    /// Creates, attaches and starts, in this order: an engine loses what a container says before
    /// anyone listens. What fails after the creation is removed here.
    pub async fn start(engine: &Engine, policy: &Policy, spec: &Spec<'_>) -> Result<Self, Error> {
        let has_profile = engine.kind() != engine::Kind::Docker
            && engine.image(spec.image).await?.is_some_and(|image| has_profile(&image));
        let translated = translate(engine.kind(), policy, spec, has_profile)?;
        for mount in &policy.mounts {
            if let Some(overlay) = &mount.overlay {
                let options = volume_options(mount, overlay);
                engine.create_volume(&overlay.volume, options, spec.labels.render()).await?;
            }
        }
        let id = match engine.create(translated.body).await {
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
                transfer: None,
                words: Words::new(Pipe::new(attached, doors(policy, spec)), GUEST_LINE_LIMIT),
                nonce: None,
                held: VecDeque::new(),
                held_bytes: 0,
                pause: None,
            }),
            Err(error) => {
                engine.remove(&id).await?;
                remove_volumes(engine, policy).await?;
                Err(error.into())
            }
        }
    }

    /// The same for an engine that does not see our files: copies of what is mounted are there first,
    /// and `sending` tells of it. Returns the policy with these mounts, too.
    pub async fn start_with_copies(
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
        sending: Arc<Sending>,
    ) -> Result<(Self, Policy), Error> {
        let (transfer, policy) = Transfer::open(engine, policy, spec, sending).await?;
        Ok((Self::start_over(engine, &policy, spec, transfer).await?, policy))
    }

    /// The same over copies that an earlier process left, which stay.
    pub async fn start_again_with_copies(
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
        copies: &Copies,
    ) -> Result<(Self, Policy), Error> {
        let mut transfer = Transfer::reopen(engine, policy, spec, copies.clone()).await?;
        transfer.leave();
        let policy = transfer.policy(policy);
        Ok((Self::start_over(engine, &policy, spec, transfer).await?, policy))
    }

    async fn start_over(
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
        transfer: Transfer,
    ) -> Result<Self, Error> {
        match Self::start(engine, policy, spec).await {
            Ok(sandbox) => {
                let transfer = Arc::new(Mutex::new(Some(transfer)));
                Ok(Self { transfer: Some(transfer), ..sandbox })
            }
            Err(error) => {
                transfer.remove().await?;
                Err(error)
            }
        }
    }

    /// Returns the copies that the sandbox works on, if it does, for somebody to note and remove.
    pub async fn leave_copies(&mut self) -> Option<Copies> {
        self.transfer.as_ref()?.lock().await.as_mut().map(Transfer::leave)
    }

    /// Returns what tells how much the copies take, if the sandbox works on some.
    pub fn usage(&self) -> Option<Usage> {
        self.transfer.clone().map(Usage)
    }

    /// Has `take` bring what the run has changed so far into the local copies, where the engine does
    /// not see them. Nothing may be running in the sandbox.
    pub async fn bring_back(&mut self, take: Take) -> Result<(), Error> {
        let Some(transfer) = &self.transfer else { return Ok(()) };
        match &mut *transfer.lock().await {
            // Boxed, because it has a sandbox of its own.
            Some(transfer) => Box::pin(transfer.bring_back(take)).await,
            None => Ok(()),
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits for the guest's receipt and holds it against the policy.
    pub async fn receipt(&mut self, policy: &Policy) -> Result<Receipt, Error> {
        let mut said = Vec::new();
        let until = Instant::now() + RECEIPT_TIMEOUT;
        let mut receipt = loop {
            let word = match timeout_at(until, self.words.next()).await {
                Err(_) => {
                    let seconds = RECEIPT_TIMEOUT.as_secs();
                    return Err(Error::Silent { seconds, said: quote(&said) });
                }
                Ok(None) => {
                    let code = self.exit().await?.code;
                    return Err(Error::Stillborn { code, said: quote(&said) });
                }
                Ok(Some(Err(Error::Wrong(wrong)))) => return Err(Error::OtherVersion(wrong)),
                Ok(Some(word)) => word?,
            };
            match word {
                Word::Receipt(receipt) if receipt.pipe == VERSION => break receipt,
                Word::Line(Line::Stderr(text)) if said.len() < SAID => said.push(text),
                _ => return Err(Error::NoSense),
            }
        };
        let mut wrong = receipt.mismatches(policy);
        wrong.extend(receipt.misplaced(policy));
        if !wrong.is_empty() {
            return Err(Error::Mismatch(wrong));
        }
        receipt.tell_missing(policy);
        Ok(*receipt)
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
        let (mut seen, mut listed_bytes) = (Vec::new(), 0);
        for order in listing::orders(folders) {
            let nonce = Nonce::new()?;
            listing::send(&self.words.pipe, &order, &nonce)?;
            let listed = format!("listed {}", nonce.as_str());
            loop {
                let why = match self.words.next().await.transpose()? {
                    Some(Word::Said(word)) if word == listed => break,
                    Some(Word::Listed(line)) if listing::read(&line, &mut seen) => {
                        listed_bytes += line.len() + size_of::<EntrySeen>();
                        if listed_bytes <= LISTED {
                            continue;
                        }
                        "more than can be kept".to_owned()
                    }
                    // What was on its way when all was paused.
                    Some(Word::Line(line)) if self.pause.is_some() => {
                        if self.hold(line) {
                            continue;
                        }
                        "more than can be kept".to_owned()
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
            self.held_bytes = self.held_bytes.saturating_sub(line.size());
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
        let Some(transfer) = self.transfer else { return Ok(()) };
        // Taken, because a watch may still hold the other handle.
        match transfer.lock().await.take() {
            Some(transfer) => transfer.remove().await,
            None => Ok(()),
        }
    }
}

/// The room that a run's copies take on the engine's machine.
#[derive(Clone, Debug)]
pub struct Usage(Arc<Mutex<Option<Transfer>>>);

impl Usage {
    /// Returns bytes and the number of things; none when the copies are gone.
    pub async fn look(&self) -> Result<Option<(u64, u64)>, Error> {
        match &mut *self.0.lock().await {
            Some(transfer) => Box::pin(transfer.usage()).await.map(Some),
            None => Ok(None),
        }
    }
}

/// What the guest said before it failed, for the error's message.
fn quote(said: &[String]) -> String {
    if said.is_empty() { String::new() } else { format!(": {}", one_line(&said.join(" "), 600)) }
}

/// Sockets that the ports inside lead to.
fn doors(policy: &Policy, spec: &Spec<'_>) -> Doors {
    let doors = policy.doors.iter();
    let all = doors.filter_map(|door| Some((door.port, spec.sockets?.join(&door.socket))));
    all.collect()
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
