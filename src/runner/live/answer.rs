//! The side of the run's process.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Answer, SOCKET, Word};
use crate::history::Entry;
use crate::runner::job::Job;
use crate::runner::survey;
use crate::sandbox::Sandbox;
use crate::workspace::changeset::{Known, Live, Merged, Moment, Steps, collect, write_manifest};
use crate::workspace::layer::Layer;
use crate::workspace::mirror;

/// Time between the two looks that tell what is being written.
const BETWEEN: Duration = Duration::from_millis(300);

/// Time for whoever asks to say so.
const PATIENCE: Duration = Duration::from_secs(5);

struct Ask {
    word: Word,
    answer: oneshot::Sender<Answer>,
}

/// Requests to look at a run. Nobody can ask any more when it is dropped.
#[derive(Debug)]
pub struct Asks {
    asked: mpsc::Receiver<Ask>,
    listening: JoinHandle<()>,
    /// The socket, and the file in the record that tells where it is.
    places: [PathBuf; 2],
}

impl Asks {
    /// Listens in the run's private folder.
    pub fn listen(folder: &Path, entry: &Entry) -> io::Result<Self> {
        let socket = folder.join(SOCKET);
        let listener = UnixListener::bind(&socket)?;
        // Who asks may have another runtime folder.
        let told = entry.ask();
        fs::write(&told, socket.as_os_str().as_bytes())?;
        let (sender, asked) = mpsc::channel(1);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hear(stream, sender.clone()));
            }
        });
        Ok(Self { asked, listening, places: [socket, told] })
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        self.listening.abort();
        for place in &self.places {
            // It goes with its folder at the latest.
            let _ = fs::remove_file(place);
        }
    }
}

async fn hear(stream: UnixStream, asks: mpsc::Sender<Ask>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let mut first = (&mut stream).take(100);
    if !matches!(timeout(PATIENCE, first.read_line(&mut line)).await, Ok(Ok(_))) {
        return;
    }
    let Ok(word) = serde_json::from_str(&line) else { return };
    let (answer, answered) = oneshot::channel();
    if asks.send(Ask { word, answer }).await.is_err() {
        return;
    }
    // Without an answer the end of the stream says that there is none.
    let Ok(answer) = answered.await else { return };
    match serde_json::to_vec(&answer) {
        // Who does not wait for it does not need it.
        Ok(answer) => drop(stream.write_all(&[&answer[..], b"\n"].concat()).await),
        Err(error) => tracing::error!("an answer about the run was lost: {error}"),
    }
}

/// All that looking at a run takes besides its sandbox.
#[derive(Debug)]
pub struct Looker<'a> {
    pub asks: Option<&'a mut Asks>,
    pub job: &'a Job,
    pub layer: Option<&'a Layer>,
    pub steps: Option<&'a Steps>,
    /// The end of the run's time.
    pub deadline: Instant,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Asked(Word, oneshot::Sender<Answer>);

impl Looker<'_> {
    /// Waits for the next request. Safe to drop and call again.
    pub async fn next(&mut self) -> Asked {
        let Some(asks) = &mut self.asks else { return std::future::pending().await };
        match asks.asked.recv().await {
            Some(Ask { word, answer }) => Asked(word, answer),
            None => std::future::pending().await,
        }
    }

    /// Looks and answers. Ends early when the run is cancelled: its sandbox is of no use then.
    pub async fn answer(&self, sandbox: &mut Sandbox, Asked(word, answer): Asked) {
        let looked = self.look(sandbox, word).await.unwrap_or_else(|why| {
            tracing::warn!("the run was not looked at: {why}");
            Answer::Failed(why)
        });
        // Who does not wait for it does not need it.
        drop(answer.send(looked));
    }

    async fn look(&self, sandbox: &mut Sandbox, word: Word) -> Result<Answer, String> {
        let state = &self.job.shared.state;
        let (Some(layer), Some(entry)) = (self.layer, Entry::of(state, &self.job.id)) else {
            return Err("it has no view of its own, or no record".to_owned());
        };
        let seen = tokio::select! {
            biased;
            _ = self.job.canceller.cancelled() => return Err("it is cancelled".to_owned()),
            () = sleep_until(self.deadline) => return Err("its time is over".to_owned()),
            seen = see(sandbox, layer, word) => seen,
        };
        // To its end in any case: nothing may be written to the record when the run is collected.
        let looked = match seen {
            Ok((merged, moments)) => self.collect(layer, entry, merged, moments).await,
            Err(why) => Err(why),
        };
        sandbox.resume().await.map_err(|error| error.to_string())?;
        looked
    }

    /// Collects what was changed so far, while nothing runs.
    async fn collect(
        &self,
        layer: &Layer,
        entry: Entry,
        merged: Option<Merged>,
        moments: Option<(Moment, Moment)>,
    ) -> Result<Answer, String> {
        let (layer, steps) = (layer.clone(), self.steps.cloned());
        let collecting = spawn_blocking(move || {
            let live = Live::read(&entry.live()).map_err(|error| format!("failed to {error}"))?;
            let look = entry.look();
            match fs::remove_dir_all(&look) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(format!("failed to remove the last look: {error}"));
                }
                _ => {}
            }
            let known =
                Known { merged: merged.as_ref(), steps: steps.as_ref(), live, is_over: false };
            let collected = collect(&layer, known, &super::ask::blobs(&entry));
            let collected = collected.map_err(|error| format!("failed to {error}"))?;
            fs::create_dir_all(&look).map_err(|error| error.to_string())?;
            write_manifest(&super::ask::list(&entry), &collected.manifest)
                .map_err(|error| format!("failed to {error}"))?;
            Ok(collected)
        });
        let collected = collecting.await.map_err(|error| error.to_string())??;
        let changed = collected.manifest.changes.iter().map(|change| &change.path);
        let busy = moments.map(|(before, after)| {
            changed.filter(|path| before.differs(&after, path.as_path())).cloned().collect()
        });
        let has_moved_folder = collected.has_moved_folder;
        Ok(Answer::Looked { busy: busy.unwrap_or_default(), has_moved_folder })
    }
}

/// Pauses what goes on and looks: at an overlay as it is merged, and at two moments.
async fn see(
    sandbox: &mut Sandbox,
    layer: &Layer,
    word: Word,
) -> Result<(Option<Merged>, Option<(Moment, Moment)>), String> {
    const MANY: &str = "it has too many files to tell which are being written";
    let before = match word {
        Word::Look => None,
        Word::LookTwice => {
            if layer.copies().is_some() {
                // What runs could lead the one that brings its files astray.
                sandbox.pause().await.map_err(|error| error.to_string())?;
                let brought = sandbox.bring_back(mirror::take).await;
                sandbox.resume().await.map_err(|error| error.to_string())?;
                brought.map_err(|error| error.to_string())?;
            }
            let before = moment(layer).await.ok_or(MANY)?;
            sleep(BETWEEN).await;
            Some(before)
        }
    };
    sandbox.pause().await.map_err(|error| error.to_string())?;
    let merged = survey::look_paused(sandbox, layer).await?;
    sandbox.bring_back(mirror::take).await.map_err(|error| error.to_string())?;
    let Some(before) = before else { return Ok((merged, None)) };
    let after = moment(layer).await.ok_or(MANY)?;
    Ok((merged, Some((before, after))))
}

async fn moment(layer: &Layer) -> Option<Moment> {
    let (written, most) = (layer.written(), layer.most_entries());
    spawn_blocking(move || Moment::in_passing(&written, most)).await.ok().flatten()
}
