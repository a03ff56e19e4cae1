//! One client's registration in one file: looked up, written, removed.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::around::Around;
use super::clients::Client;
use super::document::{self, Document};
use super::entry::{self, Scope};
use super::file::{self, Settings, Visibility};

/// Completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] file::Error),
    #[error("change {}, which was left as it is: failed to {source}; mend it, or paste what `--print` shows", path.display())]
    Document { path: PathBuf, source: document::Error },
    #[error("register as `{name}`: {} has a server of that name that is not ours; choose another with `--name`", path.display())]
    Taken { name: String, path: PathBuf },
    #[error("remove `{name}`: in {} it starts another program than sandbox-mcp; choose ours with `--name`, or remove it by hand", path.display())]
    NotOurs { name: String, path: PathBuf },
    #[error(
        "register with {client} for a project: it has no settings of projects; leave `--scope` out"
    )]
    NoProjects { client: &'static str },
    #[error("register for a project in {}: its file there is the user's own; go to the project's folder", .0.display())]
    UsersOwn(PathBuf),
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    Written { backup: Option<PathBuf>, kept: Option<PathBuf> },
    Refreshed { backup: Option<PathBuf>, kept: Option<PathBuf> },
    Already,
    Removed { backup: Option<PathBuf>, kept: Option<PathBuf> },
    NotThere,
}

/// Where a client keeps its servers, as it is now.
#[derive(Debug)]
pub struct Place {
    pub client: &'static Client,
    pub scope: Scope,
    settings: Settings,
    document: Document,
}

impl Place {
    /// Of several files that the client reads, the one with `name` in it, else the first that is
    /// there, else the first.
    pub fn find(
        client: &'static Client,
        scope: Scope,
        name: &str,
        around: &Around,
    ) -> Result<Self, Error> {
        let paths = paths(client, scope, around)?;
        let mut places = Vec::new();
        for path in &paths {
            places.push(Self::read(client, scope, path, around)?);
        }
        let at = places
            .iter()
            .position(|place| place.entry(name).is_some())
            .or_else(|| places.iter().position(|place| place.settings.bytes().is_some()))
            .unwrap_or(0);
        Ok(places.swap_remove(at))
    }

    fn read(
        client: &'static Client,
        scope: Scope,
        path: &Path,
        around: &Around,
    ) -> Result<Self, Error> {
        let settings = match scope {
            Scope::User => Settings::read(path)?,
            Scope::Project => Settings::read_within(path, &around.project)?,
        };
        let document = match settings.bytes() {
            Some(bytes) => Document::parse(bytes.to_vec(), client.format)
                .map_err(|source| Error::Document { path: path.to_owned(), source })?,
            None => Document::empty(client.format),
        };
        Ok(Self { client, scope, settings, document })
    }

    pub fn path(&self) -> &Path {
        self.settings.path()
    }

    fn entry(&self, name: &str) -> Option<&Value> {
        self.document.get(&[self.client.servers, name])
    }

    /// Our registrations in this file.
    pub fn ours(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.document.entries(self.client.servers).filter(|(_, entry)| entry::is_ours(entry))
    }

    pub fn register(&self, name: &str, new: &Value) -> Result<Done, Error> {
        let old = self.entry(name);
        if old.is_some_and(|old| !entry::is_ours(old)) {
            return Err(Error::Taken { name: name.into(), path: self.path().into() });
        }
        let merged = old.map(|old| entry::refreshed(old, new));
        if merged.as_ref() == old && old.is_some() {
            return Ok(Done::Already);
        }
        let value = merged.as_ref().unwrap_or(new);
        let edited = self.document.with(&[self.client.servers, name], value);
        let (backup, kept) = self.write(edited)?;
        Ok(match old {
            Some(_) => Done::Refreshed { backup, kept },
            None => Done::Written { backup, kept },
        })
    }

    pub fn unregister(&self, name: &str) -> Result<Done, Error> {
        match self.entry(name) {
            None => Ok(Done::NotThere),
            Some(entry) if !entry::is_ours(entry) => {
                Err(Error::NotOurs { name: name.into(), path: self.path().into() })
            }
            Some(_) => {
                let edited = self.document.without(&[self.client.servers, name]);
                let (backup, kept) = self.write(edited)?;
                Ok(Done::Removed { backup, kept })
            }
        }
    }

    /// The backup that was made, or else the earlier one that was left.
    fn write(
        &self,
        edited: Result<Document, document::Error>,
    ) -> Result<(Option<PathBuf>, Option<PathBuf>), Error> {
        let edited =
            edited.map_err(|source| Error::Document { path: self.path().to_owned(), source })?;
        let visibility = match self.scope {
            Scope::User => Visibility::Private,
            Scope::Project => Visibility::Shared,
        };
        // A file that holds an entry of ours is an edited one already, and an earlier backup of
        // what was before is worth more.
        let untouched = self.ours().next().is_none();
        let backup = self.settings.back_up(untouched)?;
        self.settings.replace(edited.text().as_bytes(), visibility)?;
        let earlier = self.settings.backup_path();
        let kept = (backup.is_none() && earlier.is_file()).then_some(earlier);
        Ok((backup, kept))
    }
}

fn paths(client: &'static Client, scope: Scope, around: &Around) -> Result<Vec<PathBuf>, Error> {
    let users: Vec<_> = client.user.iter().map(|place| around.path(place)).collect();
    match scope {
        Scope::User => Ok(users),
        Scope::Project if client.project.is_empty() => {
            Err(Error::NoProjects { client: client.name })
        }
        Scope::Project => {
            let paths: Vec<_> =
                client.project.iter().map(|file| around.project.join(file)).collect();
            // A home may be reached through a link, and a working folder's name never has one.
            let real = |path: &PathBuf| {
                let folder = file::target(path.parent()?).ok()?;
                Some(folder.join(path.file_name()?))
            };
            let own: Vec<PathBuf> = users.iter().filter_map(real).collect();
            let is_own = |path| real(path).is_some_and(|path| own.contains(&path));
            if paths.iter().any(|path| users.contains(path) || is_own(path)) {
                return Err(Error::UsersOwn(around.project.clone()));
            }
            Ok(paths)
        }
    }
}

/// What to paste where, without a look at what is there.
pub fn snippet(
    client: &'static Client,
    scope: Scope,
    name: &str,
    new: &Value,
    around: &Around,
) -> Result<(PathBuf, String), Error> {
    let paths = paths(client, scope, around)?;
    let path = paths.iter().find(|path| path.exists()).or(paths.first()).cloned();
    let path = path.unwrap_or_default();
    let document = Document::empty(client.format)
        .with(&[client.servers, name], new)
        .map_err(|source| Error::Document { path: path.clone(), source })?;
    Ok((path, document.text().to_owned()))
}

/// Whether a client is on this machine.
pub fn is_installed(client: &Client, around: &Around) -> bool {
    client.programs.iter().any(|program| around.has_program(program))
        || client.marks.iter().any(|mark| around.path(mark).exists())
}
