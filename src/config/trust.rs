//! Which projects' files a person has looked at and trusts, as direnv does: by path and content.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::project::Project;

/// The records of trust, in our state folder.
#[derive(Clone, Debug)]
pub struct Trust {
    folder: PathBuf,
}

/// How a project's file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Trusted,
    /// Another content at this path was trusted.
    Changed,
    Unknown,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    path: PathBuf,
    sha256: String,
}

impl Trust {
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("trust") }
    }

    pub fn standing(&self, project: &Project) -> Standing {
        let bytes = match fs::read(self.place(project.path())) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("the record of trust cannot be read: {error}");
                }
                return Standing::Unknown;
            }
        };
        match serde_json::from_slice::<Record>(&bytes) {
            Ok(record) if record.path != project.path() => Standing::Unknown,
            Ok(record) if record.sha256 == project.digest() => Standing::Trusted,
            _ => Standing::Changed,
        }
    }

    /// Trusts exactly what was read.
    pub fn grant(&self, project: &Project) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let record = Record { path: project.path().to_owned(), sha256: project.digest() };
        let place = self.place(project.path());
        let partial = place.with_extension("partial");
        let mut file = fs::File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&partial)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        fs::rename(partial, place)
    }

    /// Ends the trust in the file at `path`; answers whether there was any.
    pub fn revoke(&self, path: &Path) -> io::Result<bool> {
        match fs::remove_file(self.place(path)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn place(&self, path: &Path) -> PathBuf {
        let name = Sha256::digest(path.as_os_str().as_encoded_bytes());
        self.folder.join(crate::text::hex(&name)).with_extension("json")
    }
}
