//! A result on disk: the list of changes, and the new contents beside it.
//!
//! The folder is private, but what is in it outlives this program's version and may be damaged:
//! every content is checked against its name when it is used.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Manifest, VERSION};
use crate::files::{self, Durability, sync_folder_of};
use crate::text::{hex, one_line};

/// More than any list of changes has.
const LARGEST: u64 = 256 << 20;

/// Why a result cannot be kept or used. Each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} {}: {source}", .path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("read {}: it makes no sense ({why})", .path.display())]
    Nonsense { path: PathBuf, why: String },
    #[error(
        "read {}: its version is {version}, and this program knows {VERSION} and older; use the version that wrote it, or a newer one",
        .path.display()
    )]
    Newer { path: PathBuf, version: u32 },
    #[error("read the content {sha256}: it is not what it was when the run ended")]
    Damaged { sha256: String },
}

impl StoreError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Writes the list, whole or not at all.
pub fn write_manifest(path: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    write_json(path, manifest)
}

/// Reads the list; nothing where there is none.
pub fn read_manifest(path: &Path) -> Result<Option<Manifest>, StoreError> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let Some(text) = read_small(path, LARGEST)? else { return Ok(None) };
    let nonsense = |error: serde_json::Error| StoreError::Nonsense {
        path: path.to_owned(),
        why: one_line(&error.to_string(), 200),
    };
    // First of all: what a newer version means by the rest is not ours to guess.
    let Head { version } = serde_json::from_slice(&text).map_err(nonsense)?;
    if version > VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), version });
    }
    serde_json::from_slice(&text).map(Some).map_err(nonsense)
}

/// Writes a small file as JSON, to outlive whatever happens next.
pub(super) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), StoreError> {
    files::write_json(path, value, Durability::Durable).map_err(StoreError::io("write", path))
}

/// Reads a small file; nothing where there is none.
pub(super) fn read_small(path: &Path, largest: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let mut text = Vec::new();
    file.take(largest + 1).read_to_end(&mut text).map_err(StoreError::io("read", path))?;
    if text.len() as u64 > largest {
        let why = "it is too long".to_owned();
        return Err(StoreError::Nonsense { path: path.to_owned(), why });
    }
    Ok(Some(text))
}

/// New contents, each in a file that is named by its SHA-256.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: PathBuf,
    /// Contents that applying replaced.
    before: Option<PathBuf>,
}

impl Blobs {
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), before: None }
    }

    /// The same with a folder of contents that applying replaced.
    #[must_use]
    pub fn with_before(self, before: PathBuf) -> Self {
        Self { before: Some(before), ..self }
    }

    /// Opens a content that applying replaced.
    pub fn open_before(&self, sha256: &str, size: u64) -> Option<File> {
        Self::new(self.before.as_ref()?).open(sha256, size).ok()
    }

    /// Keeps all that `from` gives; answers its SHA-256 and its size.
    pub fn put(&self, from: &mut impl Read) -> Result<(String, u64), StoreError> {
        let failed = || StoreError::io("keep a content in", &self.folder);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed())?;
        let mut kept =
            tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder).map_err(failed())?;
        let (sha256, size) = copy(from, kept.as_file_mut()).map_err(failed())?;
        kept.as_file().sync_all().map_err(failed())?;
        let path = self.folder.join(&sha256);
        kept.persist(&path).map_err(|error| failed()(error.error))?;
        sync_folder_of(&path).map_err(failed())?;
        Ok((sha256, size))
    }

    /// Opens a content that is what its name says, from its beginning.
    pub fn open(&self, sha256: &str, size: u64) -> Result<File, StoreError> {
        let damaged = || StoreError::Damaged { sha256: one_line(sha256, 64) };
        // It becomes a path.
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(damaged());
        }
        let path = self.folder.join(sha256);
        let failed = || StoreError::io("read", &path);
        let mut file = match open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged()),
            Err(error) => return Err(failed()(error)),
        };
        let found = copy(&mut file, &mut io::sink()).map_err(failed())?;
        if found != (sha256.to_ascii_lowercase(), size) {
            return Err(damaged());
        }
        file.rewind().map_err(failed())?;
        Ok(file)
    }
}

/// Copies to the end; answers SHA-256 and length of what there was.
pub(super) fn copy(from: &mut impl Read, into: &mut impl Write) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok((hex(&hash.finalize()), length)),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..count]);
        into.write_all(&buffer[..count])?;
        length += count as u64;
    }
}

/// Opens a regular file to be read, without following a link or waiting for anybody.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written_and_newer_ones_are_refused() {
        let folder = tempfile::tempdir().expect("temp");
        let path = folder.path().join("changes.json");
        assert!(read_manifest(&path).expect("nothing").is_none());
        let manifest = Manifest {
            version: VERSION,
            workspace: "/w".into(),
            complete: true,
            ..Manifest::default()
        };
        write_manifest(&path, &manifest).expect("written");
        write_manifest(&path, &manifest).expect("written again");
        assert_eq!(read_manifest(&path).expect("read"), Some(manifest.clone()));
        assert_eq!(path.metadata().expect("there").mode() & 0o777, 0o600);
        fs::write(&path, r#"{"version":2,"new":[]}"#).expect("written");
        let newer = read_manifest(&path).expect_err("newer").to_string();
        assert!(newer.contains("its version is 2"), "{newer}");
        for nonsense in ["", "{", "[]", r#"{"version":1,"changes":[{"path":"../a"}]}"#] {
            fs::write(&path, nonsense).expect("written");
            assert!(read_manifest(&path).is_err(), "{nonsense}");
        }
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("/etc/passwd", &path).expect("link");
        assert!(read_manifest(&path).is_err(), "a link");
    }

    #[test]
    fn a_content_is_what_it_was_or_is_refused() {
        let folder = tempfile::tempdir().expect("temp");
        let blobs = Blobs::new(folder.path().join("blobs"));
        let (sha256, size) = blobs.put(&mut &b"words\n"[..]).expect("kept");
        assert_eq!(blobs.put(&mut &b"words\n"[..]).expect("again"), (sha256.clone(), size));
        let mut text = String::new();
        blobs.open(&sha256, size).expect("there").read_to_string(&mut text).expect("read");
        assert_eq!(text, "words\n");
        let path = folder.path().join("blobs").join(&sha256);
        assert_eq!(path.metadata().expect("there").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("blobs")).expect("list").count(), 1);
        assert!(blobs.open(&sha256, size + 1).is_err());
        fs::write(&path, "Words\n").expect("damaged");
        assert!(matches!(blobs.open(&sha256, size), Err(StoreError::Damaged { .. })));
        for wrong in ["", "../changes.json", &"0".repeat(64), &"g".repeat(64)] {
            assert!(matches!(blobs.open(wrong, 0), Err(StoreError::Damaged { .. })), "{wrong}");
        }
    }
}
