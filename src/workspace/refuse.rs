//! Folders that no agent gets, whatever is configured.

use std::path::{Path, PathBuf};

use super::names::fold;
use super::protected_names::why_protected;
use crate::config;

/// The folders of this user and of this program.
#[derive(Clone, Debug, Default)]
pub(super) struct Ours {
    pub home: Option<PathBuf>,
    /// Where records and sockets of runs are.
    pub private: Vec<PathBuf>,
}

impl Ours {
    pub fn here() -> Self {
        let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
        let environment = config::Environment::default();
        Self {
            home: environment.home().map(real),
            private: environment
                .state_dir()
                .into_iter()
                .chain([environment.runtime_place()])
                .map(real)
                .collect(),
        }
    }
}

/// Folders of the system: neither they nor what is below them. On macOS canonical names begin
/// with `/private`.
const SYSTEM: &[&str] = &[
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/boot",
    "/dev",
    "/etc",
    "/nix",
    "/proc",
    "/run",
    "/sbin",
    "/snap",
    "/sys",
    "/usr",
    "/var",
    "/System",
    "/Library",
    "/Applications",
    "/private/etc",
    "/private/var",
];

/// Parts of them that people do work in; below these, that is, not themselves.
const OPEN_PARTS: &[&str] =
    &["/dev/shm", "/var/tmp", "/var/home", "/var/www", "/run/media", "/private/var/folders"];

/// Folders that hold many people's or many programs' things: below them yes, themselves no.
const SHARED: &[&str] = &[
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/private",
    "/srv",
    "/tmp",
    "/private/tmp",
    "/Users",
    "/Volumes",
    "/var/home",
];

/// Folders whose direct children are homes.
const HOMES: &[&str] = &["/home", "/Users", "/var/home"];

/// Below a home: keys, tokens, and what decides what runs at the next login.
const CREDENTIALS: &[&str] = &[
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".password-store",
    ".config/gcloud",
    ".config/gh",
    ".config/systemd",
    ".config/autostart",
    ".config/sandbox-mcp",
    ".local/share/keyrings",
];

/// Below a home: too broad, though single folders in them may be projects.
const BROAD: &[&str] = &[".config", ".local", ".local/share", ".local/state", ".cache"];

/// Why `path`, allowed by `root`, cannot be a workspace all the same.
pub(super) fn refusal(path: &Path, root: &Path, ours: &Ours) -> Option<&'static str> {
    if path.parent().is_none() {
        return Some("the whole file system");
    }
    let home = ours.home.as_deref().filter(|home| home.parent().is_some());
    let a_home = path == Path::new("/root") || is_child_of_any(path, HOMES);
    if a_home || home.is_some_and(|home| home.starts_with(path)) {
        return Some("a home folder or one that holds it");
    }
    if ours.private.iter().any(|dir| path.starts_with(dir) || dir.starts_with(path)) {
        return Some("where sandbox-mcp keeps its own records and sockets");
    }
    if SHARED.iter().any(|shared| path == Path::new(shared)) {
        return Some("a folder that is shared by many");
    }
    // Service accounts live in /var; their home is theirs as any other is.
    let service_home = home.filter(|home| home.starts_with("/var") && path.starts_with(home));
    if service_home.is_none() && is_system(path) {
        return Some("a folder of the system");
    }
    if let Some(below) = home.and_then(|home| path.strip_prefix(home).ok()) {
        if CREDENTIALS.iter().any(|secret| below.starts_with(secret)) {
            return Some("a folder that holds keys or settings of this user");
        }
        if BROAD.iter().any(|broad| below == Path::new(broad)) {
            return Some("a folder with settings and data of many programs");
        }
    }
    if path.components().any(|part| part.as_os_str().eq_ignore_ascii_case(".git")) {
        return Some("inside of a repository's own `.git`");
    }
    // What needs a yes in a workspace must not do without by being asked for as one.
    let inside = path.strip_prefix(root).unwrap_or(Path::new(""));
    is_protected(inside).then_some("a folder that tools on this machine trust in its project")
}

/// Whether a path leads into a protected place, of the root or of any project below it.
fn is_protected(inside: &Path) -> bool {
    let by_name = inside.ancestors().any(|place| {
        let (Some(folder), Some(name)) = (place.parent(), place.file_name()) else { return false };
        // Where a host agent keeps whole working copies is as good a project as any.
        let below = inside.strip_prefix(place).unwrap_or(place);
        let hosts = [".claude", ".codex", ".cursor"].iter().any(|host| name == *host);
        let copy = hosts && below.starts_with("worktrees") && below.iter().count() > 1;
        !copy && why_protected(folder, &fold(name)).is_some()
    });
    by_name || inside.iter().any(|name| fold(name) == ".git")
}

fn is_system(path: &Path) -> bool {
    let open = OPEN_PARTS.iter().any(|part| path.starts_with(part) && path != Path::new(part));
    SYSTEM.iter().any(|dir| path.starts_with(dir)) && !open
}

fn is_child_of_any(path: &Path, parents: &[&str]) -> bool {
    path.parent().is_some_and(|parent| parents.iter().any(|dir| parent == Path::new(dir)))
}
