//! The process environment, and the folders that it names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;

use super::Error;

/// Where variables are read: the process's own environment, or a fixed one in tests.
#[derive(Clone, Default)]
pub struct Environment(Option<BTreeMap<String, OsString>>);

/// Values may be secret; only the kind of the environment is shown.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Environment(fixed)" } else { "Environment(process)" })
    }
}

impl Environment {
    /// An environment of exactly these variables.
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        Self(Some(variables.map(|(name, value)| (name.to_owned(), value.into())).into()))
    }

    /// The value of a variable; an empty one counts as absent, as is the custom.
    pub(super) fn get(&self, name: &str) -> Option<OsString> {
        let value = match &self.0 {
            Some(fixed) => fixed.get(name).cloned(),
            None => std::env::var_os(name),
        };
        value.filter(|value| !value.is_empty())
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        let text = self.get(name).map(OsString::into_string).transpose();
        text.map_err(|_| Error::NotUnicode { variable: name })
    }

    /// A folder variable; the XDG rules say that a relative one is to be ignored.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.folder("HOME").or_else(|| {
            // The account's record, for services that are started without HOME.
            self.0.is_none().then(std::env::home_dir).flatten().filter(|path| path.is_absolute())
        })
    }

    pub(crate) fn user_file(&self) -> Option<PathBuf> {
        self.folder("XDG_CONFIG_HOME")
            .or_else(|| Some(self.home()?.join(".config")))
            .map(|folder| folder.join("sandbox-mcp/config.toml"))
    }

    pub(crate) fn state_dir(&self) -> Result<PathBuf, Error> {
        if let Some(named) = self.get("SANDBOX_MCP_STATE_DIR") {
            let named = PathBuf::from(named);
            return std::path::absolute(&named)
                .map_err(|source| Error::Folder { path: named, source });
        }
        self.folder("XDG_STATE_HOME")
            .or_else(|| Some(self.home()?.join(".local/state")))
            .map(|folder| folder.join("sandbox-mcp"))
            .ok_or(Error::NoHome)
    }

    /// Where [`runtime_dir`] is or would be made. Nothing is created.
    pub(crate) fn runtime_place(&self) -> PathBuf {
        // Socket paths have a hard limit of about 100 bytes, and run ids follow this folder.
        const LONGEST: usize = 48;
        let ours = |path: &PathBuf| {
            fs::symlink_metadata(path).is_ok_and(|folder| {
                folder.is_dir() && folder.uid() == geteuid().as_raw() && folder.mode() & 0o022 == 0
            })
        };
        match self.folder("XDG_RUNTIME_DIR") {
            Some(base) if base.as_os_str().len() <= LONGEST && ours(&base) => {
                base.join("sandbox-mcp")
            }
            _ => PathBuf::from(format!("/tmp/sandbox-mcp-{}", geteuid().as_raw())),
        }
    }
}

/// Where records of runs are kept: `SANDBOX_MCP_STATE_DIR`, else the XDG state folder. Nothing is
/// created.
pub fn state_dir() -> Result<PathBuf, Error> {
    Environment::default().state_dir()
}

/// The project that a host works in, as Claude Code tells it to the programs that it starts.
pub fn project_of_host() -> Option<PathBuf> {
    Environment::default().folder("CLAUDE_PROJECT_DIR")
}

/// Where the sockets of running sandboxes live, made (mode 0700) if need be: below
/// `XDG_RUNTIME_DIR` when that is a folder of ours, else in /tmp.
pub fn runtime_dir() -> Result<PathBuf, Error> {
    let path = Environment::default().runtime_place();
    make_private(&path)?;
    Ok(path)
}

/// Makes `path` a folder that is ours alone, or refuses it. In /tmp anybody could have made it
/// before us, as a folder they can read or as a link to a folder they chose.
pub(super) fn make_private(path: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Folder { path: path.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    // From here on by descriptor, so that what was checked is what is changed.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Err(Error::NotOurs { path: path.to_owned(), what: "is not a folder" });
        }
        other => other.map_err(|errno| failed(errno.into()))?,
    };
    let found = rustix::fs::fstat(&folder).map_err(|errno| failed(errno.into()))?;
    if found.st_uid != geteuid().as_raw() {
        return Err(Error::NotOurs { path: path.to_owned(), what: "belongs to another user" });
    }
    if found.st_mode & 0o777 != 0o700 {
        rustix::fs::fchmod(&folder, Mode::RWXU).map_err(|errno| failed(errno.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn folders_follow_the_variables_in_order() {
        let state = |env: Environment| env.state_dir().expect("a folder");
        let own = Environment::of([("SANDBOX_MCP_STATE_DIR", "/a"), ("XDG_STATE_HOME", "/b")]);
        assert_eq!(state(own), Path::new("/a"));
        let xdg = Environment::of([("XDG_STATE_HOME", "/b"), ("HOME", "/c")]);
        assert_eq!(state(xdg), Path::new("/b/sandbox-mcp"));
        let relative = Environment::of([("XDG_STATE_HOME", "b"), ("HOME", "/c")]);
        assert_eq!(state(relative), Path::new("/c/.local/state/sandbox-mcp"));
        let nothing = Environment::of([("SANDBOX_MCP_STATE_DIR", "")]);
        assert!(matches!(nothing.state_dir(), Err(Error::NoHome)));
    }

    #[test]
    fn a_runtime_folder_that_is_not_ours_alone_is_passed_over() {
        let base = tempfile::Builder::new().prefix("rt").tempdir_in("/tmp").expect("temp");
        let name = base.path().to_str().expect("utf-8");
        let place = || Environment::of([("XDG_RUNTIME_DIR", name)]).runtime_place();
        assert_eq!(place(), base.path().join("sandbox-mcp"));
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        let fallback = format!("/tmp/sandbox-mcp-{}", geteuid().as_raw());
        assert_eq!(place(), Path::new(&fallback));
        let missing = Environment::of([("XDG_RUNTIME_DIR", "/nowhere/at/all")]);
        assert_eq!(missing.runtime_place(), Path::new(&fallback));
    }

    #[test]
    fn a_private_folder_is_made_tightened_or_refused() {
        let base = tempfile::tempdir().expect("temp");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
        let fresh = base.path().join("fresh");
        make_private(&fresh).expect("made");
        assert_eq!(mode(&fresh), 0o700);
        make_private(&fresh).expect("again");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).expect("chmod");
        make_private(&fresh).expect("tightened");
        assert_eq!(mode(&fresh), 0o700);

        let link = base.path().join("link");
        symlink(&fresh, &link).expect("link");
        assert!(matches!(make_private(&link), Err(Error::NotOurs { .. })));
        let file = base.path().join("file");
        fs::write(&file, "").expect("write");
        assert!(matches!(make_private(&file), Err(Error::NotOurs { .. })));
        if geteuid().is_root() {
            let foreign = base.path().join("foreign");
            fs::create_dir(&foreign).expect("make");
            std::os::unix::fs::chown(&foreign, Some(65534), Some(65534)).expect("chown");
            let refused = make_private(&foreign).expect_err("refused").to_string();
            assert!(refused.contains("belongs to another user"), "{refused}");
        }
    }
}
