//! Places in a workspace that git on the host runs or reads as settings, because its settings, of
//! whatever file, say so.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::gitconfig::{Setting, resolve};
use super::project;

/// What git is given to list its settings, which takes it some milliseconds.
const TIME: Duration = Duration::from_secs(2);
const OUTPUT: u64 = 1 << 20;

/// Most places that count.
const MOST: usize = 256;

/// How a value leads to a program or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A folder of programs.
    Folder,
    /// More settings, named from the file that names them.
    Settings,
    /// A command line.
    Command,
}

/// Sections with the keys in them that have a command line for a value, in lower case.
const COMMANDS: &[(&str, &[&str])] = &[
    ("browser", &["cmd", "path"]),
    (
        "core",
        &[
            "alternaterefscommand",
            "askpass",
            "editor",
            "fsmonitor",
            "gitproxy",
            "pager",
            "sshcommand",
        ],
    ),
    ("credential", &["helper"]),
    ("diff", &["command", "external", "textconv"]),
    ("difftool", &["cmd", "path"]),
    ("filter", &["clean", "process", "smudge"]),
    ("gc", &["recentobjectshook"]),
    ("gpg", &["defaultkeycommand", "program"]),
    ("hook", &["command"]),
    ("interactive", &["difffilter"]),
    ("lfs", &["clean", "path", "smudge"]),
    ("man", &["cmd", "path"]),
    ("merge", &["driver"]),
    ("mergetool", &["cmd", "path"]),
    ("receive", &["procreceivecommand"]),
    ("remote", &["receivepack", "uploadpack", "vcs"]),
    ("sequence", &["editor"]),
    ("submodule", &["update"]),
    ("trailer", &["cmd", "command"]),
    ("uploadpack", &["packobjectshook"]),
];

fn kind(setting: &Setting) -> Option<Kind> {
    let (section, key) = (setting.section.as_str(), setting.key.as_str());
    match (section, key) {
        ("core", "hookspath") | ("init", "templatedir") => return Some(Kind::Folder),
        ("include" | "includeif", "path") => return Some(Kind::Settings),
        _ => {}
    }
    let known = COMMANDS.iter().any(|(its, keys)| *its == section && keys.contains(&key));
    (known || section == "pager").then_some(Kind::Command)
}

/// The words of a command line that may name a file: whatever stands between what a shell takes
/// for an end of a word.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|letter: char| letter.is_whitespace() || "'\"`;|&()<>$={},".contains(letter))
        .filter(|word| !word.is_empty() && !word.starts_with('-'))
}

/// Where settings lead.
struct Way<'a> {
    workspace: &'a Path,
    /// The top of the working tree that the settings are of.
    top: &'a Path,
}

impl Way<'_> {
    /// A path from a folder, as one below the workspace; nothing where it is not.
    fn below(&self, folder: &Path, value: &str) -> Option<PathBuf> {
        let full = match value.strip_prefix("~/") {
            Some(below) => std::env::home_dir()?.join(below),
            None => folder.join(value),
        };
        let inside = |path: &Path| {
            let path = resolve(Path::new(""), path.strip_prefix(self.workspace).ok()?)?;
            (!path.as_os_str().is_empty()).then_some(path)
        };
        // By way of `..`, of links, or as it is written.
        let plain = resolve(Path::new("/"), full.strip_prefix("/").ok()?)?;
        inside(&plain).or_else(|| inside(&full.canonicalize().ok()?))
    }

    /// `file` is the one that the setting stands in.
    fn places(&self, setting: &Setting, file: Option<&Path>) -> Vec<PathBuf> {
        let (Some(kind), Some(value)) = (kind(setting), setting.value.as_deref()) else {
            return Vec::new();
        };
        match kind {
            Kind::Folder => self.below(self.top, value).into_iter().collect(),
            Kind::Settings => {
                let folder = file.and_then(Path::parent).unwrap_or(self.top);
                self.below(folder, value).into_iter().collect()
            }
            Kind::Command => {
                let line = value.strip_prefix('!').unwrap_or(value);
                let program = words(line).next();
                let named = words(line).filter(|word| {
                    // A bare name of a program is looked for elsewhere, and most words are no names.
                    let bare = || word.contains('.') || self.top.join(word).is_file();
                    !word.contains('%')
                        && (word.contains('/') || (Some(*word) != program && bare()))
                });
                let found = named.filter_map(|word| self.below(self.top, word));
                // A whole folder of sources is hardly a program.
                found.filter(|place| !self.workspace.join(place).is_dir()).collect()
            }
        }
    }
}

/// The places that settings of a repository name, relative to the workspace. `folder`, also
/// relative, is where its `.git` is.
pub(super) fn of_settings(workspace: &Path, folder: &Path, settings: &[Setting]) -> Vec<PathBuf> {
    let top = workspace.join(folder);
    let file = top.join(".git/config");
    let way = Way { workspace, top: &top };
    settings.iter().flat_map(|setting| way.places(setting, Some(&file))).take(MOST).collect()
}

/// The places that git's settings name when somebody uses it in the workspace: those of the
/// repository around it, of the user and of the machine. Nothing where there is no git. Blocking.
pub(super) fn effective(workspace: &Path) -> Vec<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let Some(listed) =
        project::find_git(&search, workspace).and_then(|program| list(&program, workspace))
    else {
        return Vec::new();
    };
    of_listed(workspace, &listed)
}

/// Of what `git config --list -z --show-origin` says.
fn of_listed(workspace: &Path, listed: &[u8]) -> Vec<PathBuf> {
    let top = workspace.ancestors().find(|folder| folder.join(".git").symlink_metadata().is_ok());
    let top = top.unwrap_or(workspace);
    let way = Way { workspace, top };
    let mut places = BTreeSet::new();
    let text = String::from_utf8_lossy(listed);
    let mut parts = text.split('\0');
    while let (Some(origin), Some(entry)) = (parts.next(), parts.next()) {
        let file = origin.strip_prefix("file:").map(|file| workspace.join(file));
        if let Some(file) = &file {
            places.extend(way.below(top, &file.to_string_lossy()));
        }
        let (name, value) = match entry.split_once('\n') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (entry, None),
        };
        let (Some((section, rest)), Some((_, key))) = (name.split_once('.'), name.rsplit_once('.'))
        else {
            continue;
        };
        let subsection = rest.strip_suffix(key).and_then(|rest| rest.strip_suffix('.'));
        let setting = Setting {
            section: section.to_ascii_lowercase(),
            subsection: subsection.map(str::to_owned),
            key: key.to_ascii_lowercase(),
            value,
        };
        places.extend(way.places(&setting, file.as_deref()));
        if places.len() >= MOST {
            break;
        }
    }
    // Its own folder is nobody's to change.
    places.retain(|place| !place.starts_with(".git"));
    places.into_iter().collect()
}

/// Asks git, which runs nothing for that, within bounds.
fn list(program: &Path, workspace: &Path) -> Option<Vec<u8>> {
    let kept = |name: &str| std::env::var_os(name).map(|value| (name.to_owned(), value));
    let named = ["HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"];
    let mut child = Command::new(program)
        .args(["--no-pager", "--no-optional-locks", "config", "--list", "-z", "--show-origin"])
        .arg("--includes")
        .current_dir(workspace)
        .env_clear()
        .env("PATH", program.parent().map_or(OsStr::new("/"), Path::as_os_str))
        .env("LC_ALL", "C")
        .envs(named.into_iter().chain(["GIT_CONFIG_NOSYSTEM"]).filter_map(kept))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let output = child.stdout.take()?;
    let (send, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut listed = Vec::new();
        let read = output.take(OUTPUT).read_to_end(&mut listed);
        // Nobody listens where that took too long.
        let _ = send.send(read.is_ok().then_some(listed));
    });
    let until = Instant::now() + TIME;
    let listed = heard.recv_timeout(TIME).ok().flatten();
    // It has said all, or has had its time.
    while listed.is_some() && Instant::now() < until {
        if child.try_wait().ok()?.is_some() {
            return listed;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    let _ = child.wait();
    tracing::warn!("git did not list its settings in time; only those of repositories are known");
    listed
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn setting(name: &str, value: &str) -> Vec<u8> {
        format!("file:.git/config\0{name}\n{value}\0").into_bytes()
    }

    #[test]
    fn whatever_git_would_run_in_the_workspace_is_found() {
        let folder = tempfile::tempdir().expect("temp");
        let root = folder.path().canonicalize().expect("real");
        fs::create_dir_all(root.join("src/.git")).expect("made");
        fs::create_dir_all(root.join(".git")).expect("made");
        let full = root.join("x/clean").display().to_string();
        for (name, value, expected) in [
            ("core.hookspath", "tools/hooks", Some("tools/hooks")),
            ("core.hookspath", "./tools/../hooks", Some("hooks")),
            ("core.hookspath", "../hooks", None),
            ("core.hookspath", "/usr/share/hooks", None),
            ("include.path", "../settings", Some("settings")),
            ("includeif.gitdir:x.y/.path", "../settings", Some("settings")),
            ("filter.lfs.clean", "git-lfs clean -- %f", None),
            ("filter.a.b.smudge", "python3 tools/smudge.py %f", Some("tools/smudge.py")),
            ("filter.x.process", "python3 smudge.py", Some("smudge.py")),
            ("filter.x.clean", &full, Some("x/clean")),
            ("filter.x.clean", "sh -c 'exec ./a'", Some("a")),
            ("diff.x.textconv", "tools/show", Some("tools/show")),
            ("diff.x.command", "node --require=./d.js", Some("d.js")),
            ("diff.x.textconv", "src", None),
            ("merge.x.driver", "./merge %O %A %B", Some("merge")),
            ("core.fsmonitor", "true", None),
            ("core.fsmonitor", "tools/watch", Some("tools/watch")),
            ("credential.https://x.helper", "!./helper", Some("helper")),
            ("core.editor", "code --wait", None),
            ("user.name", "tools/me", None),
            ("alias.x", "!tools/x", None),
            ("branch.a/b.merge", "refs/heads/x", None),
        ] {
            let found = of_listed(&root, &setting(name, value));
            let expected: Vec<_> = expected.map(PathBuf::from).into_iter().collect();
            assert!(
                expected.iter().all(|place| found.contains(place)),
                "{name} {value}: {found:?}"
            );
            assert!(!expected.is_empty() || found.is_empty(), "{name} {value}: {found:?}");
        }
        // In a folder of a repository, and the other way round.
        let below = of_listed(&root.join("src/deep"), &setting("core.hookspath", "deep/hooks"));
        assert_eq!(below, [PathBuf::from("hooks")]);
        let settings = [Setting {
            section: "diff".into(),
            subsection: Some("x".into()),
            key: "textconv".into(),
            value: Some("./show".into()),
        }];
        assert_eq!(of_settings(&root, Path::new("a"), &settings), [PathBuf::from("a/show")]);
    }

    #[test]
    fn a_file_of_settings_in_the_workspace_is_one_of_them() {
        let folder = tempfile::tempdir().expect("temp");
        let root = folder.path().canonicalize().expect("real");
        let listed = format!("file:{}/shared/gitconfig\0user.name\nx\0", root.display());
        assert_eq!(of_listed(&root, listed.as_bytes()), [PathBuf::from("shared/gitconfig")]);
        assert!(of_listed(&root, b"file:/etc/gitconfig\0a\0command line:\0b\n\0x").is_empty());
    }

    #[test]
    fn git_itself_is_asked() {
        let folder = tempfile::tempdir().expect("temp");
        let root = folder.path().canonicalize().expect("real");
        let made = Command::new("git").args(["init", "-q"]).current_dir(&root).status();
        if !made.is_ok_and(|made| made.success()) {
            return;
        }
        let config = root.join(".git/config");
        let mut text = fs::read_to_string(&config).expect("settings");
        text.push_str("[include]\n\tpath = ../more\n[core]\n\thooksPath = h\n");
        fs::write(&config, text).expect("written");
        fs::write(root.join("more"), "[diff \"x\"]\n\ttextconv = tools/show\n").expect("written");
        let found = effective(&root);
        for place in ["h", "more", "tools/show"] {
            assert!(found.contains(&PathBuf::from(place)), "{place}: {found:?}");
        }
    }
}
