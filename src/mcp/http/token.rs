//! The bearer token of the HTTP server, in a file that only its owner can read.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::rand::GetRandomFlags;
use subtle::ConstantTimeEq;

use crate::files::{new_private, sync_folder_of};

const NAME: &str = "http-token";

/// What is random in it.
const BYTES: usize = 32;

/// How long it is, written.
const LENGTH: usize = 43;

/// Why there is no token to compare with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to make the token {path}: {source}")]
    Make { path: PathBuf, source: io::Error },
    #[error("failed to read the token {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("refused the token {0}: {1}; `sandbox-mcp token --rotate` makes a new one")]
    Unfit(PathBuf, &'static str),
}

/// Where the token is. Every look reads the file, so that a new token is in force at once.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    pub fn in_state(state: &Path) -> Self {
        Self { path: state.join(NAME) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token; made where there is none.
    pub fn obtain(&self) -> Result<String, Error> {
        match self.read()? {
            Some(token) => Ok(token),
            None => {
                self.make().map_err(|source| Error::Make { path: self.path.clone(), source })?
            }
        }
    }

    /// A new token in the place of the old one, which is void from now on.
    pub fn rotate(&self) -> Result<String, Error> {
        let replace = || {
            let (token, partial) = self.write()?;
            fs::rename(&partial, &self.path)?;
            sync_folder_of(&self.path)?;
            Ok(token)
        };
        replace().map_err(|source| Error::Make { path: self.path.clone(), source })
    }

    /// Whether somebody has given the token. The time this takes says nothing about it.
    pub fn is(&self, given: &[u8]) -> Result<bool, Error> {
        let Some(token) = self.read()? else { return Ok(false) };
        Ok(token.as_bytes().ct_eq(given).into())
    }

    /// As two processes may do it at the same time: the first one's holds.
    fn make(&self) -> io::Result<Result<String, Error>> {
        let (token, partial) = self.write()?;
        let linked = fs::hard_link(&partial, &self.path);
        fs::remove_file(&partial)?;
        match linked {
            Ok(()) => {
                sync_folder_of(&self.path)?;
                Ok(Ok(token))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Ok(self.read().and_then(|token| {
                    token.ok_or_else(|| Error::Unfit(self.path.clone(), "it came and went"))
                }))
            }
            Err(error) => Err(error),
        }
    }

    fn write(&self) -> io::Result<(String, PathBuf)> {
        if let Some(folder) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut random = [0; BYTES];
        if rustix::rand::getrandom(&mut random, GetRandomFlags::empty())? != BYTES {
            return Err(io::Error::other("the kernel gave too little randomness"));
        }
        let token = URL_SAFE_NO_PAD.encode(random);
        let partial = self.path.with_file_name(format!("{NAME}.{}", std::process::id()));
        let mut file = new_private(&partial)?;
        file.write_all(format!("{token}\n").as_bytes())?;
        file.sync_all()?;
        Ok((token, partial))
    }

    /// None where there is no file.
    fn read(&self) -> Result<Option<String>, Error> {
        let read = |source| Error::Read { path: self.path.clone(), source };
        let unfit = |why| Error::Unfit(self.path.clone(), why);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            opened => opened.map_err(|errno| read(errno.into()))?,
        };
        let found = rustix::fs::fstat(&opened).map_err(|errno| read(errno.into()))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(unfit("it is not a regular file"));
        }
        if found.st_uid != rustix::process::geteuid().as_raw() {
            return Err(unfit("it belongs to another user"));
        }
        if found.st_mode & 0o077 != 0 {
            return Err(unfit("others may read or write it"));
        }
        let mut text = String::new();
        // One byte more than it may have, so that a longer one is seen.
        let most = LENGTH as u64 + 2;
        File::from(opened).take(most).read_to_string(&mut text).map_err(read)?;
        let token = text.trim_end_matches('\n');
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if token.len() != LENGTH || !token.bytes().all(is_fit) {
            return Err(unfit("it is not 43 letters, digits, `-` and `_` in one line"));
        }
        Ok(Some(token.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn private(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }

    #[test]
    fn it_is_made_once_private_and_stays() {
        let state = tempfile::tempdir().expect("temp");
        let file = TokenFile::in_state(&state.path().join("not/there/yet"));
        let token = file.obtain().expect("made");
        assert_eq!(token.len(), LENGTH);
        assert_eq!(file.obtain().expect("read"), token);
        assert_eq!(file.path().metadata().expect("there").mode() & 0o777, 0o600);
        let folder = file.path().parent().expect("a folder");
        assert_eq!(folder.metadata().expect("there").mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(folder).expect("folder").count(), 1, "nothing else is left");
        assert!(file.is(token.as_bytes()).expect("read"));
    }

    #[test]
    fn a_rotated_one_is_another_and_the_old_one_is_void() {
        let state = tempfile::tempdir().expect("temp");
        let file = TokenFile::in_state(state.path());
        let old = file.obtain().expect("made");
        let new = file.rotate().expect("rotated");
        assert_ne!(old, new);
        assert!(file.is(new.as_bytes()).expect("read"));
        for wrong in [old.as_str(), "", &new[..42], &format!("{new}x"), &new.to_uppercase()] {
            assert!(!file.is(wrong.as_bytes()).expect("read"), "{wrong}");
        }
    }

    #[test]
    fn many_at_once_agree_on_the_first() {
        let state = tempfile::tempdir().expect("temp");
        let file = TokenFile::in_state(state.path());
        // In one process the partial file has one name, so only the link is raced for.
        let first = file.make().expect("made").expect("a token");
        let second = file.make().expect("made").expect("a token");
        assert_eq!(first, second);
    }

    #[test]
    fn one_that_others_could_know_or_have_made_is_none() {
        let state = tempfile::tempdir().expect("temp");
        let file = TokenFile::in_state(state.path());
        assert!(!file.is(b"").expect("no file is no token"));
        let token = file.obtain().expect("made");
        for mode in [0o640, 0o604, 0o620, 0o602] {
            private(file.path(), mode);
            assert!(matches!(file.is(token.as_bytes()), Err(Error::Unfit(..))), "{mode:o}");
        }
        private(file.path(), 0o600);
        for content in ["", "\n", "short", &format!("{token}\n{token}\n"), &"é".repeat(21)] {
            fs::write(file.path(), content).expect("written");
            assert!(file.obtain().is_err(), "{content:?}");
        }
        let real = state.path().join("real");
        fs::write(&real, &token).expect("written");
        private(&real, 0o600);
        fs::remove_file(file.path()).expect("removed");
        symlink(&real, file.path()).expect("a link");
        assert!(file.obtain().is_err(), "a link leads elsewhere");
        assert_ne!(file.rotate().expect("a rotation mends all of that"), token);
        assert!(real.exists());
    }
}
