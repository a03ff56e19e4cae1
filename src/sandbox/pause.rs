//! Pausing what goes on in a sandbox, so that its files can be looked at.

use std::time::Duration;

use tokio::time::timeout;

use super::container::Sandbox;
use super::guest::{Nonce, Word};
use super::pipe::Kind;
use super::{Error, Line};

/// Longest wait for a word of PID 1, which tries for three seconds to stop everything.
const PATIENCE: Duration = Duration::from_secs(15);

/// Most bytes of the agent's output that are kept until it goes on.
const HELD: usize = 32 << 20;

impl Sandbox {
    /// Stops every process of the order that goes on. Fails where one does not stop in some seconds,
    /// and where the order has ended meanwhile.
    pub async fn pause(&mut self) -> Result<(), Error> {
        let nonce = Nonce::new()?;
        let silent = Err(Error::NotPaused { why: "it does not answer" });
        let paused = timeout(PATIENCE, self.try_to_pause(&nonce)).await.unwrap_or(silent);
        match paused {
            Ok(()) => self.pause = Some(nonce),
            // It goes on by itself, or at this word.
            Err(_) => self.words.pipe.send(Kind::Resume, b"")?,
        }
        paused
    }

    async fn try_to_pause(&mut self, nonce: &Nonce) -> Result<(), Error> {
        self.words.pipe.send(Kind::Pause, nonce.as_str().as_bytes())?;
        loop {
            match self.next_word().await.transpose()? {
                Some(Word::Said(said)) if is(&said, "paused", nonce) => return Ok(()),
                Some(Word::Said(said)) if is(&said, "restless", nonce) => {
                    return Err(Error::NotPaused { why: "a process does not stop" });
                }
                // Of a pause that was given up.
                Some(Word::Said(_) | Word::Listed(_)) => {}
                Some(Word::Line(ended @ Line::Ended(_))) => {
                    self.held.push_back(ended);
                    return Err(Error::NotPaused { why: "its work has just ended" });
                }
                Some(Word::Line(line)) => {
                    if !self.hold(line) {
                        return Err(Error::NotPaused { why: "it prints too much" });
                    }
                }
                Some(_) => return Err(Error::NoSense),
                None => return Err(Error::NotPaused { why: "it has ended" }),
            }
        }
    }

    /// Keeps a line until the order goes on. Returns false where too much is kept.
    pub(super) fn hold(&mut self, line: Line) -> bool {
        self.held_bytes += line.size();
        self.held.push_back(line);
        self.held_bytes <= HELD
    }

    /// Lets the processes go on. Fails where one of them has run meanwhile, so that what was seen may
    /// never have been at one moment.
    pub async fn resume(&mut self) -> Result<(), Error> {
        let Some(nonce) = self.pause.take() else { return Ok(()) };
        self.words.pipe.send(Kind::Resume, b"")?;
        match timeout(PATIENCE, self.resumed(&nonce)).await {
            Ok(done) => done,
            Err(_) => Err(Error::NotPaused { why: "it does not answer" }),
        }
    }

    async fn resumed(&mut self, nonce: &Nonce) -> Result<(), Error> {
        loop {
            match self.next_word().await.transpose()? {
                Some(Word::Said(said)) if is(&said, "resumed", nonce) => return Ok(()),
                Some(Word::Said(said)) if is(&said, "disturbed", nonce) => {
                    return Err(Error::NotPaused { why: "a process ran meanwhile" });
                }
                // Of a list that was given up.
                Some(Word::Said(_) | Word::Listed(_)) => {}
                Some(Word::Line(line)) => {
                    if !self.hold(line) {
                        return Err(Error::NotPaused { why: "it prints too much" });
                    }
                }
                Some(_) => return Err(Error::NoSense),
                None => return Err(Error::NotPaused { why: "it has ended" }),
            }
        }
    }
}

fn is(said: &str, word: &str, nonce: &Nonce) -> bool {
    said.split_once(' ') == Some((word, nonce.as_str()))
}
