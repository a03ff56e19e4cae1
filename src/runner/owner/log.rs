//! Where an owner's log goes: to its client as long as there is one, and into the run's record.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tracing_subscriber::fmt::MakeWriter;

use super::Frame;

/// Most bytes that are kept of one owner's log.
const MOST: usize = 1 << 20;

/// The log of one owner. A failed write is nobody's loss and stops nothing.
#[derive(Clone, Debug, Default)]
pub struct OwnerLog(Arc<Mutex<Places>>);

#[derive(Debug, Default)]
struct Places {
    client: Option<mpsc::UnboundedSender<Frame>>,
    path: Option<PathBuf>,
    /// Made when there is something to write.
    file: Option<File>,
    written: usize,
}

impl OwnerLog {
    pub(super) fn tell(&self, client: mpsc::UnboundedSender<Frame>) {
        self.lock().client = Some(client);
    }

    /// Lets the client go: who waits for the last frame is to see their end.
    pub(super) fn hang_up(&self) {
        self.lock().client = None;
    }

    pub(super) fn keep_in(&self, path: PathBuf) {
        self.lock().path = Some(path);
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.written + bytes.len() > MOST {
            return Ok(());
        }
        let file = if let Some(file) = &mut self.file {
            file
        } else {
            let mut options = File::options();
            self.file.insert(options.create(true).append(true).mode(0o600).open(path)?)
        };
        self.written += bytes.len();
        file.write_all(bytes)
    }
}

/// Writes one line of the log at a time, as the subscriber hands them over.
#[derive(Debug)]
pub struct Writer(OwnerLog);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut places = self.0.lock();
        if let Some(client) = &places.client {
            let _ = client.send(Frame::Log(String::from_utf8_lossy(bytes).into_owned()));
        }
        // Without a record there is no place for it, and nobody to tell.
        let _ = places.keep(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for OwnerLog {
    type Writer = Writer;

    fn make_writer(&'a self) -> Writer {
        Writer(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_told_and_kept_up_to_its_bound() {
        let folder = tempfile::tempdir().expect("temp");
        let path = folder.path().join("owner.log");
        let log = OwnerLog::default();
        let say = |text: &str| log.make_writer().write_all(text.as_bytes()).expect("never fails");
        say("before there is a place\n");
        let (client, mut told) = mpsc::unbounded_channel();
        log.tell(client);
        log.keep_in(path.clone());
        assert!(!path.exists());
        say("one\n");
        assert!(matches!(told.try_recv(), Ok(Frame::Log(line)) if line == "one\n"));
        drop(told);
        for _ in 0..3 {
            say(&"x".repeat(MOST / 2));
        }
        let kept = std::fs::read_to_string(&path).expect("kept");
        assert!(kept.starts_with("one\nx") && kept.len() <= MOST, "{}", kept.len());
        log.hang_up();
        std::fs::remove_dir_all(folder.path()).expect("removed");
        say("still well\n");
    }
}
