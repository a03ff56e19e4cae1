//! Which projects' files a person has looked at and trusts, as direnv does: by path and content.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::layers::{Effective, LoadOptions, load, load_for};
use super::project::Project;
use crate::files::{Durability, write_json};
use crate::text::one_line;

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

/// Returns the settings in force in a workspace with a project's file in it or above, as far as the
/// file is trusted. Without such a file there are none, and the settings are those of [`load`]. An
/// error in a file that nobody trusts stops nothing: it is told, and the file is left out.
pub fn load_at(
    options: &LoadOptions,
    workspace: &Path,
    trust: &Trust,
) -> Result<Option<Effective>, super::Error> {
    let without = |why: String| {
        let mut effective = load(options)?;
        effective.remark = Some(why);
        Ok(Some(effective))
    };
    let roots = load(options)?.config.workspace.roots;
    let project = match Project::find(workspace, &roots) {
        Ok(Some(project)) => project,
        Ok(None) => return Ok(None),
        Err(error) => return without(format!("no settings of the project are in force: {error}")),
    };
    let standing = trust.standing(&project);
    let trusted = standing == Standing::Trusted;
    let mut effective = match load_for(options, Some(&project), trusted) {
        Err(error) if !trusted => {
            return without(format!("no settings of the project are in force: {error}"));
        }
        other => other?,
    };
    effective.project = Some(project.path().to_owned());
    if !effective.inert.is_empty() {
        let why = match standing {
            Standing::Changed => "has changed since it was trusted",
            Standing::Trusted | Standing::Unknown => "is not trusted",
        };
        effective.remark = Some(one_line(
            &format!(
                "{} {why}, so these are not in force: {}; a person can look at them \
                 with `sandbox-mcp trust`",
                project.path().display(),
                effective.inert.join(", ")
            ),
            400,
        ));
    }
    Ok(Some(effective))
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
        write_json(&self.place(project.path()), &record, Durability::Lazy)
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
