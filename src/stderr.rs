//! Standard error, which nobody has to read.
//!
//! A host that starts a server may never read its log, or may have closed it. Once [`detach`] was
//! called, whoever writes here only leaves the bytes to a thread, which may block in their place.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Bytes that may wait; what comes on top is lost, and how much that was is told later.
const ROOM: usize = 1 << 20;

/// Longest wait of the program's end for them.
const LAST_WORDS: Duration = Duration::from_millis(300);

static WAITING: OnceLock<Arc<Waiting>> = OnceLock::new();

/// From here on, nobody who writes waits for a reader.
pub fn detach() {
    let waiting = WAITING.get_or_init(Arc::default).clone();
    let thread = std::thread::Builder::new().name("log".into());
    // Without the thread what is written is lost, which is what an unread log is worth.
    drop(thread.spawn(move || waiting.write_out(io::stderr)));
}

/// Writes all of it, or leaves it to be written. A closed standard error is nobody's loss.
pub fn write(bytes: &[u8]) {
    match WAITING.get() {
        Some(waiting) => waiting.push(bytes),
        None => drop(io::stderr().lock().write_all(bytes)),
    }
}

/// Waits a moment until what was left to be written is written.
pub fn flush() {
    if let Some(waiting) = WAITING.get() {
        waiting.drain(LAST_WORDS);
    }
}

/// For the log's subscriber, which hands over a whole line at a time.
#[derive(Clone, Copy, Debug)]
pub struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    lost: usize,
    is_writing: bool,
}

impl Waiting {
    fn push(&self, line: &[u8]) {
        let mut lines = self.lock();
        if lines.bytes + line.len() > ROOM {
            lines.lost += 1;
            return;
        }
        lines.bytes += line.len();
        lines.waiting.push_back(line.to_vec());
        self.changed.notify_all();
    }

    /// Writes for ever. What cannot be written is dropped: there is no better place to say so.
    fn write_out<W: Write>(&self, open: impl Fn() -> W) {
        loop {
            let mut lines = self.lock();
            lines.is_writing = false;
            self.changed.notify_all();
            while lines.waiting.is_empty() {
                lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
            }
            let line = lines.waiting.pop_front().unwrap_or_default();
            lines.bytes -= line.len();
            let lost = std::mem::take(&mut lines.lost);
            lines.is_writing = true;
            drop(lines);
            let mut out = open();
            let _ = out.write_all(&line);
            if lost > 0 {
                let _ = writeln!(out, "({lost} lines of the log are missing: nobody read it)");
            }
        }
    }

    fn drain(&self, within: Duration) {
        let busy = |lines: &mut Lines| lines.is_writing || !lines.waiting.is_empty();
        drop(self.changed.wait_timeout_while(self.lock(), within, busy));
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Nothing panics while it is held.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A pipe that nobody reads until it is told to.
    struct Stuck(Arc<Mutex<mpsc::Receiver<()>>>, Arc<Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").recv().ok();
            self.1.lock().expect("whole").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_unread_log_blocks_nobody_and_stays_small() {
        let waiting = Arc::new(Waiting::default());
        let (read, reads) = mpsc::channel();
        let (reads, written) = (Arc::new(Mutex::new(reads)), Arc::new(Mutex::new(Vec::new())));
        let (writer, out) = (waiting.clone(), written.clone());
        std::thread::spawn(move || writer.write_out(|| Stuck(reads.clone(), out.clone())));
        for number in 0..3000 {
            waiting.push(format!("{number:01000}\n").as_bytes());
        }
        assert!(waiting.lock().bytes <= ROOM);
        waiting.drain(Duration::from_millis(20));
        assert!(written.lock().expect("whole").is_empty(), "nobody has read");
        drop(read);
        waiting.drain(Duration::from_secs(20));
        let written = String::from_utf8(written.lock().expect("whole").clone()).expect("text");
        assert!(written.starts_with("000") && written.contains("lines of the log are missing"));
        waiting.push(b"late\n");
        waiting.drain(Duration::from_secs(20));
    }
}
