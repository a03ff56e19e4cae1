//! Pausing what goes on in a sandbox, so that its files can be looked at.
//!
//! All that PID 1 says meanwhile comes on the error stream: a line of the agent on the other one may
//! be half written. Nothing of the agent can come between, because none of its processes runs.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::container::Sandbox;
use super::guest::Watch;
use super::listing::{self, FolderSeen};
use super::{Error, Line};
use crate::text::one_line;

/// Longest wait for a word of PID 1, which tries for three seconds to stop everything.
const PATIENCE: Duration = Duration::from_secs(15);

/// Most bytes of the agent's output that are kept until it goes on.
const HELD: usize = 32 << 20;

impl Sandbox {
    /// Stops every process of the order that goes on. Fails where one does not stop in some seconds,
    /// and where the order has ended meanwhile.
    pub async fn pause(&mut self) -> Result<(), Error> {
        let watch = Watch::new()?;
        let silent = Err(Error::NotPaused { why: "it does not answer" });
        let paused = timeout(PATIENCE, self.try_to_pause(&watch)).await.unwrap_or(silent);
        match paused {
            Ok(()) => self.pause = Some(watch),
            // It goes on by itself, or at this word.
            Err(_) => self.say("resume\n").await?,
        }
        paused
    }

    async fn try_to_pause(&mut self, watch: &Watch) -> Result<(), Error> {
        let mut held = 0;
        self.say(&format!("pause {}\n", watch.nonce())).await?;
        let (paused, restless) = (mark("paused", watch), mark("restless", watch));
        loop {
            match self.new_line().await.transpose()? {
                Some(Line::Stderr(line)) if line == paused => return Ok(()),
                Some(Line::Stderr(line)) if line == restless => {
                    return Err(Error::NotPaused { why: "a process does not stop" });
                }
                Some(ended @ Line::Ended(_)) => {
                    self.held.push_back(ended);
                    return Err(Error::NotPaused { why: "its work has just ended" });
                }
                Some(line) => {
                    if let Line::Stdout(text) | Line::Stderr(text) = &line {
                        held += text.len() + 1;
                    }
                    self.held.push_back(line);
                    if held > HELD {
                        return Err(Error::NotPaused { why: "it prints too much" });
                    }
                }
                None => return Err(Error::NotPaused { why: "it has ended" }),
            }
        }
    }

    /// Lets the processes go on. Fails where one of them has run meanwhile, so that what was seen may
    /// never have been at one moment.
    pub async fn resume(&mut self) -> Result<(), Error> {
        let Some(watch) = self.pause.take() else { return Ok(()) };
        self.say("resume\n").await?;
        match timeout(PATIENCE, self.resumed(&watch)).await {
            Ok(done) => done,
            Err(_) => Err(Error::NotPaused { why: "it does not answer" }),
        }
    }

    async fn resumed(&mut self, watch: &Watch) -> Result<(), Error> {
        let (resumed, disturbed) = (mark("resumed", watch), mark("disturbed", watch));
        loop {
            match self.new_line().await.transpose()? {
                Some(Line::Stderr(line)) if line == resumed => return Ok(()),
                Some(Line::Stderr(line)) if line == disturbed => {
                    return Err(Error::NotPaused { why: "a process ran meanwhile" });
                }
                Some(line) => self.held.push_back(line),
                None => return Err(Error::NotPaused { why: "it has ended" }),
            }
        }
    }

    pub(super) async fn list_paused(
        &mut self,
        folders: &[PathBuf],
    ) -> Result<Vec<FolderSeen>, Error> {
        let mut seen = Vec::new();
        for order in listing::orders(folders) {
            let watch = Watch::new()?;
            listing::send(&mut self.input.0, &order, &watch)
                .await
                .map_err(|source| Error::Io { what: "ask the sandbox".into(), source })?;
            let listed = mark("listed", &watch);
            loop {
                match self.new_line().await.transpose()? {
                    Some(Line::Stderr(line)) if line == listed => break,
                    // The line's end before PID 1's last word.
                    Some(Line::Stderr(line)) if line.is_empty() => {}
                    Some(Line::Stderr(line)) if listing::read(&line, &mut seen) => {}
                    Some(Line::Stderr(line)) => {
                        return Err(Error::NoListing { why: one_line(&line, 200) });
                    }
                    Some(line) => self.held.push_back(line),
                    None => return Err(Error::NoListing { why: "it has ended".into() }),
                }
            }
        }
        Ok(seen)
    }

    async fn say(&mut self, word: &str) -> Result<(), Error> {
        let said = async {
            self.input.0.write_all(word.as_bytes()).await?;
            self.input.0.flush().await
        };
        said.await.map_err(|source| Error::Io { what: "speak to the sandbox".into(), source })
    }
}

fn mark(word: &str, watch: &Watch) -> String {
    format!("sandbox.{word} {}", watch.nonce())
}
