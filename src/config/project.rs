//! A project's own file, in its workspace or above it: inert until a person has trusted its exact content.
//!
//! Who can write to a project could otherwise decide how it is confined. What only narrows is in
//! force without trust; what is about the whole machine never is.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use sha2::{Digest, Sha256};
use toml::Value;

use super::file::{self, Setting};
use super::keys::{Key, Kind};
use super::{Config, Environment, Error, Size};

/// The file's name, in the top folder of a project.
pub const PROJECT_FILE: &str = ".sandbox-mcp.toml";

/// Longer than this is nothing that a person could have read.
const LONGEST: u64 = 64 << 10;

/// A project's file as it was read.
#[derive(Clone, Debug)]
pub struct Project {
    path: PathBuf,
    text: String,
}

/// What may be done with one setting of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// In force without trust.
    Narrows,
    /// In force with trust.
    Asks,
    /// Not a project's to set.
    Never,
}

impl Project {
    /// Reads the nearest file in `folder` or above it, where there is one. The search ends at an
    /// allowed root, below a home, and where the owner changes.
    pub fn find(folder: &Path, roots: &[PathBuf]) -> Result<Option<Self>, Error> {
        let home = Environment::default().home();
        let home = home.map(|home| home.canonicalize().unwrap_or(home));
        let owner = |folder: &Path| folder.metadata().ok().map(|found| found.uid());
        for above in folder.ancestors() {
            let is_home = home.as_ref().is_some_and(|home| home.starts_with(above));
            let is_other = owner(above) != owner(folder);
            if above != folder && (is_home || is_other || above.parent().is_none()) {
                break;
            }
            if let Some(project) = Self::read(above)? {
                return Ok(Some(project));
            }
            if roots.iter().any(|root| root == above) {
                break;
            }
        }
        Ok(None)
    }

    /// Reads the file of one folder, where there is one. It must be a regular one: what an agent
    /// could have put there instead is not opened.
    pub fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(PROJECT_FILE);
        match read(&path) {
            Ok(text) => Ok(Some(Self { path, text })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Project { path, source }),
        }
    }

    /// The folder that the file lies in.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// As if it had been read; for fuzzing.
    #[doc(hidden)]
    pub fn of(text: &str) -> Self {
        Self { path: PROJECT_FILE.into(), text: text.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hash of the content; a trusted file has exactly this one.
    pub fn digest(&self) -> String {
        crate::text::hex(&Sha256::digest(self.text.as_bytes()))
    }

    pub(super) fn settings(&self) -> Result<Vec<Setting>, Error> {
        file::parse(&self.path, &self.text)
    }

    /// Each setting of the file and what can become of it, given what is in force without it.
    pub fn asks(&self, now: &Config) -> Result<Vec<(&'static Key, String, Effect)>, Error> {
        let settings = self.settings()?;
        Ok(settings
            .into_iter()
            .map(|setting| {
                let effect = effect(setting.key, &setting.value, now);
                (setting.key, setting.value.to_string(), effect)
            })
            .collect())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
        _ => return Err(io::Error::other("it is not a regular file")),
    }
    let mut text = String::new();
    std::fs::File::from(opened).take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    Ok(text)
}

/// What a project may do to one setting.
pub(super) fn effect(key: &Key, value: &Value, now: &Config) -> Effect {
    let machine = ["engine", "history", "http", "mcp"].contains(&key.section())
        || ["workspace.roots", "limits.concurrency", "sandbox.accept"].contains(&key.path.as_str());
    if machine {
        Effect::Never
    } else if narrows(key, value, now) {
        Effect::Narrows
    } else {
        Effect::Asks
    }
}

/// Whether a value allows nothing that was not allowed before.
fn narrows(key: &Key, value: &Value, now: &Config) -> bool {
    let all = serde_json::to_value(now).unwrap_or_default();
    let current = key.value_in(&all);
    match (key.section(), key.path.as_str()) {
        // Adds to what is there; see `Layers::set_project`.
        (_, "workspace.protected") => true,
        (_, "workspace.git") => value.as_str() == Some("none"),
        // Zero is no bound at all.
        (_, "limits.stall") if value.as_integer() == Some(0) => false,
        (_, "limits.stall") if current.as_u64() == Some(0) => true,
        ("limits", _) | (_, "agent.continue") => matches!(
            (amount(&key.kind, &json(value)), amount(&key.kind, current)),
            (Some(asked), Some(now)) if asked <= now
        ),
        (_, "egress.open") => value.as_bool() == Some(false),
        ("egress" | "", _) => match (json(value), current) {
            (serde_json::Value::Array(asked), serde_json::Value::Array(now)) => {
                asked.iter().all(|one| now.contains(one))
            }
            _ => false,
        },
        (_, "env.pass" | "agent.mcp") => match (json(value), current) {
            (serde_json::Value::Object(asked), serde_json::Value::Object(now)) => {
                asked.iter().all(|(name, one)| now.get(name) == Some(one))
            }
            _ => false,
        },
        _ => false,
    }
}

fn json(value: &Value) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn amount(kind: &Kind, value: &serde_json::Value) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "sizes are far below")]
    match (kind, value) {
        (Kind::Size, serde_json::Value::String(text)) => {
            text.parse::<Size>().ok().map(|size| size.bytes() as f64)
        }
        (_, number) => number.as_f64(),
    }
}

#[cfg(test)]
#[path = "project_tests.rs"]
mod tests;
