//! What a person should know of a repository before an agent works in it: what of it is off in a
//! sandbox, and what would keep git from working there.

use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, Stat};

use super::super::gitconfig::{Setting, resolve, settings_of};
use super::super::refuse::Ours;
use super::super::walk::{Entry, Limits, Visitor, open_folder, open_root, walk};
use super::find::find_around;
use crate::text::one_line;

/// Hooks that git runs for what an agent does.
const HOOKS: &[&str] = &[
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "pre-commit",
    "pre-merge-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "pre-rebase",
    "post-checkout",
    "post-merge",
    "pre-push",
    "post-rewrite",
    "post-index-change",
    "reference-transaction",
];

/// Settings that name programs, besides those that [`super::OFF`] turns off.
const PROGRAMS: &[(&str, &str)] = &[
    ("filter", "clean"),
    ("filter", "smudge"),
    ("filter", "process"),
    ("diff", "external"),
    ("diff", "textconv"),
    ("diff", "command"),
    ("merge", "driver"),
    ("core", "editor"),
    ("sequence", "editor"),
    ("core", "sshcommand"),
    ("core", "askpass"),
    ("credential", "helper"),
    ("interactive", "difffilter"),
];

/// What the git of the image knows (2.39).
const EXTENSIONS: &[&str] =
    &["noop", "noop-v1", "objectformat", "partialclone", "preciousobjects", "worktreeconfig"];

/// How far to look for what is not the user's.
const LOOK: Limits = Limits { entries: 5_000, time: Duration::from_millis(200) };

/// Who works in the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    pub uid: u32,
    pub gid: u32,
}

/// Remarks on the repository of a workspace; none without one.
pub fn remarks(workspace: &Path, who: Inside) -> Vec<String> {
    let found = find_around(workspace, &Ours::here()).ok().flatten();
    let top = found.map_or_else(|| workspace.to_owned(), |(top, _)| top);
    let Ok(root) = open_root(&top) else { return Vec::new() };
    let found = rustix::fs::statat(root.as_fd(), ".git", AtFlags::SYMLINK_NOFOLLOW);
    let Ok(found) = found else { return Vec::new() };
    let Ok(git) = open_folder(root.as_fd(), Path::new(".git")) else { return Vec::new() };
    let mut settings = settings_of(git.as_fd(), "config").unwrap_or_default();
    settings.extend(settings_of(git.as_fd(), "config.worktree").unwrap_or_default());
    let looked = [
        hooks(root.as_fd(), git.as_fd(), &settings),
        signing(&settings),
        programs(&settings),
        format(&settings),
        owner(&top.join(".git"), git.as_fd(), &found, who),
    ];
    looked.into_iter().flatten().collect()
}

/// The value of a setting without a subsection; the last one counts.
fn value<'a>(settings: &'a [Setting], section: &str, key: &str) -> Option<&'a str> {
    let found = settings.iter().rfind(|setting| {
        setting.section == section && setting.subsection.is_none() && setting.key == key
    })?;
    Some(found.value.as_deref().unwrap_or("true"))
}

fn hooks(root: BorrowedFd<'_>, git: BorrowedFd<'_>, settings: &[Setting]) -> Option<String> {
    let folder = match value(settings, "core", "hookspath") {
        None => open_folder(git, Path::new("hooks")).ok(),
        Some("" | "/dev/null") => return None,
        Some(path) => {
            let below = resolve(Path::new(""), Path::new(path));
            match below.and_then(|below| open_folder(root, &below).ok()) {
                Some(folder) => Some(folder),
                None => return Some(hooks_are_off(&one_line(path, 100))),
            }
        }
    }?;
    let there = Dir::new(folder.try_clone().ok()?).ok()?;
    let names = there.take(1000).flatten();
    let mut found: Vec<_> = names
        .filter_map(|entry| {
            let name = entry.file_name().to_str().ok()?;
            let runs = rustix::fs::statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|found| found.st_mode & 0o111 != 0);
            (runs && HOOKS.contains(&name)).then(|| name.to_owned())
        })
        .collect();
    found.sort();
    (!found.is_empty()).then(|| hooks_are_off(&found.join(", ")))
}

fn hooks_are_off(which: &str) -> String {
    format!(
        "the repository's hooks ({which}) are off in the sandbox, which may not have their tools: \
         the agent's commits did not pass them"
    )
}

fn signing(settings: &[Setting]) -> Option<String> {
    let asks = [("commit", "gpgsign"), ("tag", "gpgsign"), ("push", "gpgsign")];
    let asked = asks.iter().find(|(section, key)| {
        value(settings, section, key)
            .is_some_and(|value| !["false", "no", "off", "0", ""].contains(&value))
    });
    asked.map(|(section, key)| {
        format!(
            "the repository asks for signatures ({section}.{key}), which are off in the sandbox \
             because it has no keys: the agent's commits are not signed"
        )
    })
}

fn programs(settings: &[Setting]) -> Option<String> {
    let mut named: Vec<String> = Vec::new();
    for setting in settings {
        let listed = PROGRAMS.contains(&(setting.section.as_str(), setting.key.as_str()));
        // That one the image has.
        let lfs = setting.value.as_deref().is_none_or(|value| {
            value.is_empty() || value == "cat" || value.starts_with("git-lfs ")
        });
        if listed && !lfs {
            let mut name = setting.section.clone();
            for part in [setting.subsection.as_deref(), Some(&setting.key)].into_iter().flatten() {
                // Writing to a text cannot fail.
                let _ = write!(name, ".{}", one_line(part, 40));
            }
            named.push(name);
        }
    }
    named.dedup();
    named.truncate(5);
    (!named.is_empty()).then(|| {
        let named = named.join(", ");
        format!("the repository's settings name programs that the sandbox may not have: {named}")
    })
}

fn format(settings: &[Setting]) -> Option<String> {
    let unknown = settings.iter().find(|setting| {
        setting.section == "extensions" && !EXTENSIONS.contains(&setting.key.as_str())
    });
    // Git looks at extensions from this version on.
    let version = value(settings, "core", "repositoryformatversion").unwrap_or("0");
    let known = matches!(version, "0" | "1");
    let why = match unknown {
        Some(setting) if version != "0" => format!(
            "extensions.{} = {}",
            setting.key,
            one_line(setting.value.as_deref().unwrap_or("true"), 40)
        ),
        _ if !known => format!("core.repositoryformatversion = {}", one_line(version, 40)),
        _ => return None,
    };
    let cure = match unknown.map(|setting| setting.key.as_str()) {
        Some("refstorage") => "`git refs migrate --ref-format=files` makes it an ordinary one",
        Some("relativeworktrees") => {
            "`git config --unset extensions.relativeWorktrees` and `git worktree repair` make it an ordinary one"
        }
        _ => "set `image.base` to a system whose git knows it",
    };
    Some(format!(
        "the git in the sandbox may not know the repository's format ({why}), and then it does not \
         work there; {cure}"
    ))
}

/// The first thing in a git directory that the sandbox's user cannot work with.
fn owner(path: &Path, git: BorrowedFd<'_>, found: &Stat, who: Inside) -> Option<String> {
    let mut look = Look { who, odd: None };
    if !who.may(found, READ | SEARCH) {
        look.odd = Some((String::new(), found.st_uid));
    }
    walk(git, LOOK, &mut look);
    let (name, of) = look.odd?;
    let place = one_line(&path.join(&name).display().to_string(), 200);
    let of = if of == 0 { "root".to_owned() } else { format!("the user {of}") };
    Some(format!(
        "{place} belongs to {of}, and the sandbox works as {}:{}, so git cannot read there; `sudo \
         chown -R {}:{} {}` gives it back",
        who.uid,
        who.gid,
        who.uid,
        who.gid,
        one_line(&path.display().to_string(), 200)
    ))
}

const READ: u32 = 4;
const SEARCH: u32 = 1;

impl Inside {
    /// Whether the mode of something gives all of these rights.
    fn may(self, found: &Stat, rights: u32) -> bool {
        let mode = found.st_mode;
        let mine = if found.st_uid == self.uid {
            mode >> 6
        } else if found.st_gid == self.gid {
            mode >> 3
        } else {
            mode
        };
        mine & rights == rights
    }
}

struct Look {
    who: Inside,
    odd: Option<(String, u32)>,
}

impl Visitor for Look {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let Some(found) = entry.stat() else { return false };
        let rights = if entry.is_dir() { READ | SEARCH } else { READ };
        if self.odd.is_none() && !self.who.may(&found, rights) {
            let name = folder.join(entry.name).display().to_string();
            self.odd = Some((name, found.st_uid));
        }
        let left_out =
            ["hooks", "modules", "worktrees", "lfs"].iter().any(|name| entry.name == *name);
        // Of the objects the folders are enough: nobody writes to an object.
        !(folder.starts_with("objects") || folder.as_os_str().is_empty() && left_out)
    }

    fn enough(&self) -> bool {
        self.odd.is_some()
    }
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
