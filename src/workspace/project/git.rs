//! What git says of a project, without anything of the project being executed.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

pub use super::private::Head;
use super::private::Private;
use super::{Error, Project};
use crate::text;

/// For all that git does for one answer.
const TIME: Duration = Duration::from_secs(5);
/// What is read of its output.
const OUTPUT: u64 = 256 << 10;
const COMMITS: &str = "10";
const SUBJECT: usize = 100;
/// What the names of changed files may take as JSON.
const ROOM: usize = 4 * 1024;

#[derive(Debug, Serialize)]
pub struct StatusReport {
    /// Absent when a commit is checked out directly.
    pub branch: Option<String>,
    /// Absent before the first commit.
    pub commit: Option<String>,
    /// Whether nothing is changed or untracked.
    pub clean: bool,
    pub changed_total: usize,
    pub changed: Vec<StatusEntry>,
    /// Whether `changed` is shorter than what there is.
    pub truncated: bool,
    pub commits: Vec<Commit>,
}

/// One line of `git status --short`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct StatusEntry {
    pub status: String,
    pub path: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Commit {
    pub id: String,
    pub date: String,
    pub author: String,
    pub subject: String,
}

impl Project {
    /// Branch, changes and last commits. Submodules are not looked into, and filters (as of
    /// git-lfs) are not run.
    pub async fn status(self) -> Result<StatusReport, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        self.status_with(&path, &std::env::temp_dir()).await
    }

    pub(super) async fn status_with(
        self,
        search: &OsStr,
        place: &Path,
    ) -> Result<StatusReport, Error> {
        let program = find(search, &self.path).ok_or(Error::NoGit)?;
        let place = place.to_owned();
        let (project, private) = tokio::task::spawn_blocking(move || {
            let private = self.private(&place);
            (self, private)
        })
        .await
        .map_err(|error| Error::Io { what: "prepare git", source: error.into() })?;
        let private = private?;
        let asked = async {
            let status = [
                "status",
                "--porcelain=v1",
                "-z",
                "--untracked-files=normal",
                "--ignore-submodules=all",
                "--no-renames",
                "--no-column",
            ];
            let status = output(project.git(&program, &private, &status)).await?;
            let mut log = Vec::new();
            if private.head.commit.is_some() {
                let format = "--format=%h%x00%as%x00%an%x00%s";
                let arguments = [
                    "log",
                    "-n",
                    COMMITS,
                    "-z",
                    format,
                    "--no-show-signature",
                    "--no-mailmap",
                    "--no-ext-diff",
                    "--no-textconv",
                    "--no-decorate",
                    "HEAD",
                    "--",
                ];
                log = output(project.git(&program, &private, &arguments)).await?.0;
            }
            Ok((status, log))
        };
        let ((status, whole), log) =
            timeout(TIME, asked).await.unwrap_or(Err(Error::Slow { seconds: TIME.as_secs() }))?;
        Ok(report(private.head.clone(), &status, whole, &log))
    }

    /// Git with nothing of the environment and nothing of the project's settings.
    fn git(&self, program: &Path, private: &Private, arguments: &[&str]) -> Command {
        let own = private.folder.path();
        let mut command = Command::new(program);
        command
            .args([
                "--no-pager",
                "--no-optional-locks",
                "--no-replace-objects",
                "--literal-pathspecs",
            ])
            // Said once more, although no settings that say otherwise are read.
            .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
            .args(["-c", "core.untrackedCache=false", "-c", "core.commitGraph=false"])
            .args(["-c", "core.pager=cat", "-c", "diff.external=", "-c", "submodule.recurse=false"])
            .args([
                "-c",
                "credential.helper=",
                "-c",
                "protocol.allow=never",
                "-c",
                "color.ui=false",
            ])
            .args(["-c", "core.attributesFile=/dev/null", "-c", "core.excludesFile=/dev/null"])
            .args(arguments)
            .current_dir(&self.path)
            .env_clear()
            .env("PATH", program.parent().unwrap_or(Path::new("/")))
            .env("LC_ALL", "C")
            .env("HOME", own)
            .env("XDG_CONFIG_HOME", own)
            .env("GIT_DIR", own)
            .env("GIT_WORK_TREE", &self.path)
            .env("GIT_OBJECT_DIRECTORY", self.path.join(".git/objects"))
            .env("GIT_INDEX_FILE", own.join("index"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_ALLOW_PROTOCOL", "none")
            .env("GIT_PAGER", "cat")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// The program, if there is one. Names that are relative to a folder, or lead into the project,
/// would let the project say what is executed.
pub(in crate::workspace) fn find(search: &OsStr, project: &Path) -> Option<PathBuf> {
    std::env::split_paths(search).filter(|folder| folder.is_absolute()).find_map(|folder| {
        let program = folder.join("git");
        let real = program.canonicalize().ok()?;
        let found = real.metadata().ok()?;
        let runs = found.is_file() && found.permissions().mode() & 0o111 != 0;
        let inside = real.starts_with(project)
            || folder.canonicalize().is_ok_and(|folder| folder.starts_with(project));
        (runs && !inside).then_some(program)
    })
}

/// What it wrote, and whether that is all of it.
async fn output(mut command: Command) -> Result<(Vec<u8>, bool), Error> {
    let failed = |source| Error::Io { what: "run git", source };
    let mut child: Child = command.spawn().map_err(failed)?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed(std::io::Error::other("it has no output")));
    };
    let (mut told, mut trouble) = (Vec::new(), Vec::new());
    let mut stdout = stdout.take(OUTPUT + 1);
    let mut stderr = stderr.take(OUTPUT);
    let (read, complained) =
        tokio::join!(stdout.read_to_end(&mut told), stderr.read_to_end(&mut trouble));
    read.and(complained).map_err(failed)?;
    let whole = told.len() as u64 <= OUTPUT;
    if !whole {
        child.kill().await.map_err(failed)?;
        return Ok((told, false));
    }
    let status = child.wait().await.map_err(failed)?;
    if !status.success() {
        let trouble = text::one_line(&String::from_utf8_lossy(&trouble), 300);
        return Err(Error::GitFailed { why: trouble });
    }
    Ok((told, true))
}

fn report(head: Head, status: &[u8], whole: bool, log: &[u8]) -> StatusReport {
    let lines: Vec<_> = records(status).collect();
    let (complete, cut) = if whole {
        (lines.as_slice(), false)
    } else {
        // The last one may be half a name.
        (&lines[..lines.len().saturating_sub(1)], true)
    };
    let mut room = ROOM;
    let changed: Vec<_> = complete
        .iter()
        .filter_map(|line| {
            let (status, path) = line.split_at_checked(3)?;
            let path = text::visible(path).0;
            Some(StatusEntry { status: status.trim_end().to_owned(), path })
        })
        .take_while(|entry| {
            let length = entry.path.chars().map(text::json_length).sum::<usize>() + 28;
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        })
        .collect();
    let fields: Vec<_> = records(log).collect();
    let commits = fields
        .chunks_exact(4)
        .map(|fields| Commit {
            id: text::one_line(&fields[0], 64),
            date: text::one_line(&fields[1], 20),
            author: text::one_line(&fields[2], 60),
            subject: text::one_line(&fields[3], SUBJECT),
        })
        .collect();
    StatusReport {
        branch: head.branch,
        commit: head.commit,
        clean: lines.is_empty(),
        changed_total: complete.len(),
        truncated: cut || changed.len() < complete.len(),
        changed,
        commits,
    }
}

/// What stands between NULs.
fn records(bytes: &[u8]) -> impl Iterator<Item = String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    let none = bytes.is_empty();
    bytes
        .split(|byte| *byte == 0)
        .map(|record| String::from_utf8_lossy(record).into_owned())
        .filter(move |_| !none)
}
