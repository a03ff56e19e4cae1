//! What goes to the engine's machine, as a tar archive: of what is kept there from run to run only
//! what differs.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use tar::{Builder, EntryType, Header};

use super::copies::{Part, Sending};
use super::nanoseconds;

/// Longest record of a list: a path, or where a link leads.
const LONGEST: u64 = 1 << 14;

/// A thing as both sides know it: kind, mode, size, time of modification and where a link leads. Of
/// a folder size and time say nothing, of a link its mode and time.
#[derive(Debug, PartialEq, Eq)]
struct Known(u8, u32, u64, i128, Vec<u8>);

/// Sends each part under its name: `own/NUMBER`, or `kept/NAME`. Sockets, pipes and what cannot be
/// read are left out.
pub fn all(parts: &[Part], stream: UnixStream, sending: &Sending) -> io::Result<()> {
    let there = read(&mut BufReader::new(stream.try_clone()?))?;
    let mut plan = Plan { there, wanted: Vec::new(), gone: Vec::new(), size: 0 };
    for (number, part) in parts.iter().enumerate() {
        let name = match &part.kept {
            Some(kept) => Path::new("kept").join(kept),
            None => Path::new("own").join(number.to_string()),
        };
        plan.add(&part.source, &name, part.kept.is_some())?;
    }
    sending.size.store(plan.size, Ordering::Relaxed);
    let mut out = BufWriter::with_capacity(1 << 16, Counting { stream, sending });
    plan.gone.extend(plan.there.into_keys());
    for gone in &plan.gone {
        out.write_all(&[gone.as_os_str().as_bytes(), b"\0"].concat())?;
    }
    out.write_all(b"\0")?;
    let mut archive = Builder::new(out);
    for (source, name) in &plan.wanted {
        append(&mut archive, source, name)?;
    }
    let counting = archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    counting.stream.shutdown(std::net::Shutdown::Write)
}

/// Reads `KIND MODE SIZE MODIFIED PATH` and where it leads, of each thing that is kept there.
fn read(reader: &mut impl BufRead) -> io::Result<HashMap<PathBuf, Known>> {
    let mut all = HashMap::new();
    loop {
        let mut next = || {
            let mut record = Vec::new();
            reader.by_ref().take(LONGEST).read_until(0, &mut record)?;
            if record.pop() == Some(0) { Ok(record) } else { Err(wrong()) }
        };
        let record = next()?;
        if record.is_empty() {
            return Ok(all);
        }
        let target = next()?;
        let (path, known) = parse(&record, target).ok_or_else(wrong)?;
        all.insert(path, known);
    }
}

fn wrong() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the list of what is kept makes no sense")
}

fn parse(record: &[u8], target: Vec<u8>) -> Option<(PathBuf, Known)> {
    let mut parts = record.splitn(5, |byte| *byte == b' ');
    let mut next = || std::str::from_utf8(parts.next()?).ok();
    let kind = *next()?.as_bytes().first()?;
    let mode = u32::from_str_radix(next()?, 8).ok()?;
    let (size, modified) = (next()?.parse().ok()?, nanoseconds(next()?)?);
    let path = PathBuf::from(std::ffi::OsString::from_vec(parts.next()?.to_vec()));
    Some((path, known(kind, mode, size, modified, target)))
}

fn known(kind: u8, mode: u32, size: u64, modified: i128, target: Vec<u8>) -> Known {
    match kind {
        b'f' => Known(kind, mode, size, modified, Vec::new()),
        b'd' => Known(kind, mode, 0, 0, Vec::new()),
        b'l' => Known(kind, 0, 0, 0, target),
        _ => Known(kind, 0, 0, 0, Vec::new()),
    }
}

/// What differs.
struct Plan {
    /// What is there and was not found here yet.
    there: HashMap<PathBuf, Known>,
    wanted: Vec<(PathBuf, PathBuf)>,
    /// What is there as another kind of thing.
    gone: Vec<PathBuf>,
    /// Bytes of all files.
    size: u64,
}

impl Plan {
    fn add(&mut self, source: &Path, name: &Path, is_kept: bool) -> io::Result<()> {
        let Ok(meta) = source.symlink_metadata() else { return Ok(()) };
        let kind = match meta.file_type() {
            kind if kind.is_dir() => b'd',
            kind if kind.is_file() => b'f',
            kind if kind.is_symlink() => b'l',
            _ => return Ok(()),
        };
        if kind == b'f' && rustix::fs::access(source, rustix::fs::Access::READ_OK).is_err() {
            // What was sent when it could be read goes.
            return Ok(());
        }
        self.size += if kind == b'f' { meta.size() } else { 0 };
        let target = if kind == b'l' { fs::read_link(source)?.into_os_string() } else { "".into() };
        let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        let here = known(kind, meta.mode() & 0o7777, meta.size(), modified, target.into_vec());
        let there = self.there.remove(name);
        let is_same = there.as_ref() == Some(&here);
        // A folder that is shut was opened there just now.
        let is_shut = kind == b'd' && meta.mode() & 0o700 != 0o700;
        if !is_kept || !is_same || is_shut {
            if there.is_some_and(|there| there.0 != kind) {
                self.gone.push(name.to_owned());
            }
            self.wanted.push((source.to_owned(), name.to_owned()));
        }
        if kind != b'd' {
            return Ok(());
        }
        let entries = match fs::read_dir(source) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            self.add(&entry.path(), &name.join(entry.file_name()), is_kept)?;
        }
        Ok(())
    }
}

fn append(archive: &mut Builder<impl Write>, source: &Path, name: &Path) -> io::Result<()> {
    let Ok(meta) = source.symlink_metadata() else { return Ok(()) };
    let mut header = Header::new_gnu();
    header.set_metadata(&meta);
    header.set_size(0);
    let kind = meta.file_type();
    if kind.is_dir() {
        add_time(archive, &meta)?;
        header.set_entry_type(EntryType::Directory);
        archive.append_data(&mut header, name, io::empty())
    } else if kind.is_symlink() {
        let Ok(target) = fs::read_link(source) else { return Ok(()) };
        header.set_entry_type(EntryType::Symlink);
        archive.append_link(&mut header, name, target)
    } else if kind.is_file() {
        let file = match File::open(source) {
            Err(error)
                if [ErrorKind::PermissionDenied, ErrorKind::NotFound].contains(&error.kind()) =>
            {
                return Ok(());
            }
            file => file?,
        };
        add_time(archive, &meta)?;
        // Whatever becomes of the file meanwhile, as many bytes follow as were said.
        header.set_size(meta.size());
        archive.append_data(&mut header, name, file.chain(io::repeat(0)).take(meta.size()))
    } else {
        Ok(())
    }
}

/// Says when the next entry was written: its own header has whole seconds, and a build would find
/// files out of order.
fn add_time(archive: &mut Builder<impl Write>, meta: &Metadata) -> io::Result<()> {
    let record = format!(" mtime={}.{:09}\n", meta.mtime(), meta.mtime_nsec());
    // The length counts its own digits: two, for a record of this size.
    let record = format!("{}{record}", record.len() + 2);
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(record.len() as u64);
    header.set_cksum();
    archive.append(&header, record.as_bytes())
}

/// Counts what passes, and ends where the run is cancelled.
#[derive(Debug)]
struct Counting<'a> {
    stream: UnixStream,
    sending: &'a Sending,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.sending.is_over.load(Ordering::Relaxed) {
            return Err(io::Error::other("the run was cancelled"));
        }
        let written = self.stream.write(bytes)?;
        self.sending.bytes.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
