//! A line of waiting runs that all processes of this machine stand in, in the order in which they
//! came.
//!
//! Each that stands in it holds the kernel's lock on a file of its own, named by its number, so a
//! process that dies has left the line, however it died. Numbers come from a counter under a lock
//! and never from a clock. A ticket is locked before the counter is let go, so everything with a
//! lower number than one's own can be told dead from alive without any lock.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::files::{lockable, open_locked, try_lock};

const EXCLUSIVE: FlockOperation = FlockOperation::NonBlockingLockExclusive;

/// How often the line is looked at: a kernel's lock tells nobody when it is given back.
pub const LOOK: Duration = Duration::from_millis(100);

/// How often the counter is asked for; it is held for a moment only.
const COUNTER_FREE: Duration = Duration::from_millis(3);

const COUNTER: &str = "counter";

/// Digits of a number, so that names sort as numbers do and the counter is always as long.
const DIGITS: usize = 20;

/// One line, by its folder.
#[derive(Clone, Debug)]
pub struct Line {
    folder: PathBuf,
}

/// A place in a line, given up when dropped.
#[derive(Debug)]
pub struct Ticket {
    line: Line,
    number: u64,
    path: PathBuf,
    /// Its lock says that we live.
    held: File,
}

impl Line {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Stands at the end.
    pub async fn join(&self) -> io::Result<Ticket> {
        loop {
            if let Some(ticket) = self.try_join()? {
                return Ok(ticket);
            }
            tokio::time::sleep(COUNTER_FREE).await;
        }
    }

    fn try_join(&self) -> io::Result<Option<Ticket>> {
        let Some(mut counter) = self.counter()? else { return Ok(None) };
        let number = counter.read()?.max(self.numbers()?.into_iter().max().unwrap_or(0)) + 1;
        counter.write(number)?;
        let path = self.path_of(number);
        let held = lockable().create_new(true).open(&path)?;
        rustix::fs::flock(&held, EXCLUSIVE)?;
        Ok(Some(Ticket { line: self.clone(), number, path, held }))
    }

    /// The counter, unless somebody else has it.
    fn counter(&self) -> io::Result<Option<Counter>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let path = self.folder.join(COUNTER);
        let Some(file) = open_locked(&path, EXCLUSIVE)? else { return Ok(None) };
        // Somebody may have removed the folder meanwhile; a counter that is nowhere counts nobody.
        let (ours, there) = (file.metadata()?, fs::symlink_metadata(&path));
        let same = there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        Ok(same.then_some(Counter(file)))
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        let number = |name: String| (name.len() == DIGITS).then(|| name.parse().ok()).flatten();
        Ok(entries.filter_map(name).filter_map(number).collect())
    }

    /// How many stand in it.
    pub fn length(&self) -> io::Result<usize> {
        let mut alive = 0;
        for number in self.numbers()? {
            let file = match lockable().open(self.path_of(number)) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file?,
            };
            // Whoever stands behind a dead one buries it.
            if !try_lock(&file, FlockOperation::NonBlockingLockShared)? {
                alive += 1;
            }
        }
        Ok(alive)
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:0DIGITS$}"))
    }

    /// Takes a dead one's ticket away. Under the counter's lock and looked at again, because
    /// without a counter a number could be given twice.
    fn bury(&self, path: &Path) -> io::Result<()> {
        let counter = self.counter()?;
        if counter.is_some()
            && let Ok(file) = lockable().open(path)
            && try_lock(&file, EXCLUSIVE)?
        {
            fs::remove_file(path)?;
        }
        drop(counter);
        Ok(())
    }
}

impl Ticket {
    /// The number of those that stand before us.
    pub fn ahead(&self) -> io::Result<usize> {
        let mut ahead = 0;
        for number in self.line.numbers()?.into_iter().filter(|number| *number < self.number) {
            let path = self.line.path_of(number);
            let file = match lockable().open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file?,
            };
            if try_lock(&file, FlockOperation::NonBlockingLockShared)? {
                drop(file);
                self.line.bury(&path)?;
            } else {
                ahead += 1;
            }
        }
        Ok(ahead)
    }

    /// Whether others can still see us: somebody may have removed the folder.
    pub fn is_seen(&self) -> bool {
        let (Ok(ours), Ok(there)) = (self.held.metadata(), fs::symlink_metadata(&self.path)) else {
            return false;
        };
        (ours.dev(), ours.ino()) == (there.dev(), there.ino())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Before the lock is given back, so that nobody has to bury it.
        if self.is_seen()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!("{} stays until others see that we left: {error}", self.path.display());
        }
    }
}

/// The last number that was given, locked.
struct Counter(File);

impl Counter {
    /// What cannot be read counts as nothing: the tickets themselves are counted, too.
    fn read(&mut self) -> io::Result<u64> {
        let mut text = String::new();
        self.0.rewind()?;
        match (&mut self.0).take(DIGITS as u64).read_to_string(&mut text) {
            Err(error) if error.kind() != ErrorKind::InvalidData => Err(error),
            _ => Ok(text.parse().unwrap_or(0)),
        }
    }

    fn write(&mut self, number: u64) -> io::Result<()> {
        self.0.rewind()?;
        self.0.write_all(format!("{number:0DIGITS$}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDER: &str = "SANDBOX_MCP_TEST_LINE";

    fn ahead(ticket: &Ticket) -> usize {
        ticket.ahead().expect("counted")
    }

    async fn stand(line: &Line) -> Ticket {
        line.join().await.expect("joined")
    }

    #[tokio::test]
    async fn who_leaves_makes_room_wherever_it_stood() {
        let folder = tempfile::tempdir().expect("temp");
        let line = Line::new(folder.path().join("new/line"));
        let [first, second, third] = [stand(&line).await, stand(&line).await, stand(&line).await];
        assert_eq!([&first, &second, &third].map(ahead), [0, 1, 2]);
        drop(second);
        assert_eq!([&first, &third].map(ahead), [0, 1]);
        let fourth = stand(&line).await;
        drop(first);
        assert_eq!([&third, &fourth].map(ahead), [0, 1]);
        drop((third, fourth));
        assert_eq!(line.numbers().expect("listed"), [] as [u64; 0]);
        assert_eq!(stand(&line).await.number, 5, "no number is given twice");
    }

    #[tokio::test]
    async fn a_dead_ones_ticket_counts_for_nothing_and_goes() {
        let folder = tempfile::tempdir().expect("temp");
        let line = Line::new(folder.path().to_owned());
        fs::write(line.path_of(7), "").expect("a ticket that nobody holds");
        fs::write(folder.path().join("not a number"), "").expect("written");
        let mine = stand(&line).await;
        assert_eq!((mine.number, ahead(&mine)), (8, 0));
        assert_eq!(line.numbers().expect("listed"), [8]);
        // A counter that a full disk has cut, or that somebody wrote into.
        fs::write(folder.path().join(COUNTER), b"\xff").expect("written");
        assert_eq!(stand(&line).await.number, 9);
    }

    #[tokio::test]
    async fn who_is_no_longer_seen_knows_it_and_takes_nothing_of_others() {
        let folder = tempfile::tempdir().expect("temp");
        let line = Line::new(folder.path().join("line"));
        let lost = stand(&line).await;
        assert!(lost.is_seen());
        fs::remove_dir_all(folder.path().join("line")).expect("removed");
        assert!(!lost.is_seen());
        let other = stand(&line).await;
        assert_eq!(other.number, lost.number, "a new folder counts anew");
        drop(lost);
        assert!(other.is_seen());
    }

    #[tokio::test]
    async fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().expect("temp");
        std::os::unix::fs::symlink("/dev/null", folder.path().join(COUNTER)).expect("link");
        Line::new(folder.path().to_owned()).join().await.expect_err("a link");
    }

    /// Three processes that came one after the other have their turns in that order, and one that
    /// is killed in the middle of the line holds up nobody.
    #[tokio::test]
    async fn processes_keep_their_order_and_the_dead_hold_up_nobody() {
        let name = "runner::line::tests::processes_keep_their_order_and_the_dead_hold_up_nobody";
        if let Some(told) = std::env::var_os(HOLDER) {
            return member(&told.into_string().expect("utf-8")).await;
        }
        let folder = tempfile::tempdir().expect("temp");
        let line = Line::new(folder.path().join("line"));
        let first = stand(&line).await;
        let mut members = Vec::new();
        for who in ["a", "b", "c", "d"] {
            let member = std::process::Command::new(std::env::current_exe().expect("a binary"))
                .args(["--exact", name])
                .env(HOLDER, format!("{}:{who}", folder.path().display()))
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("starts");
            members.push(member);
            let joined = folder.path().join(format!("joined-{who}"));
            for _ in 0..2000 {
                if joined.exists() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(joined.exists(), "{who} never came");
        }
        let last = stand(&line).await;
        assert_eq!(ahead(&last), 5);
        members[1].kill().expect("killed");
        members[1].wait().expect("gone");
        assert_eq!(ahead(&last), 4);
        drop(first);
        for at in [0, 2, 3] {
            assert!(members[at].wait().expect("ended").success());
        }
        assert_eq!(ahead(&last), 0);
        let order = fs::read_to_string(folder.path().join("order")).expect("written");
        assert_eq!(order, "acd");
    }

    async fn member(told: &str) {
        let (folder, who) = told.split_once(':').expect("two");
        let folder = Path::new(folder);
        let ticket = stand(&Line::new(folder.join("line"))).await;
        fs::write(folder.join(format!("joined-{who}")), "").expect("written");
        while ahead(&ticket) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let order = folder.join("order");
        let before = fs::read_to_string(&order).unwrap_or_default();
        fs::write(&order, format!("{before}{who}")).expect("written");
    }
}
