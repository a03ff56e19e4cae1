//! What goes to the engine's machine, as a tar archive.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

/// Sends each source under its number. Sockets, pipes and what cannot be read are left out.
pub fn all(sources: &[PathBuf], stream: UnixStream) -> io::Result<()> {
    let mut archive = Builder::new(BufWriter::with_capacity(1 << 16, stream));
    for (number, source) in sources.iter().enumerate() {
        add(&mut archive, source, Path::new(&number.to_string()))?;
    }
    let stream = archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    stream.shutdown(std::net::Shutdown::Write)
}

fn add(archive: &mut Builder<impl Write>, source: &Path, name: &Path) -> io::Result<()> {
    let Ok(meta) = source.symlink_metadata() else { return Ok(()) };
    let mut header = Header::new_gnu();
    header.set_metadata(&meta);
    let kind = meta.file_type();
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        add_time(archive, &meta)?;
        archive.append_data(&mut header, name, io::empty())?;
        let entries = match fs::read_dir(source) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            add(archive, &entry.path(), &name.join(entry.file_name()))?;
        }
    } else if kind.is_symlink() {
        let Ok(target) = fs::read_link(source) else { return Ok(()) };
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, name, target)?;
    } else if kind.is_file() {
        let file = match File::open(source) {
            Err(error)
                if [ErrorKind::PermissionDenied, ErrorKind::NotFound].contains(&error.kind()) =>
            {
                return Ok(());
            }
            file => file?,
        };
        // Whatever becomes of the file meanwhile, as many bytes follow as were said.
        header.set_size(meta.size());
        add_time(archive, &meta)?;
        let bytes = file.chain(io::repeat(0));
        archive.append_data(&mut header, name, bytes.take(meta.size()))?;
    }
    Ok(())
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
