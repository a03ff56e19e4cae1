//! Where records and sockets are kept, and how much room is left.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::finding::{Finding, Level, size};
use crate::config;

/// An image's build and some hundred records fit below this.
const WORK: u64 = 2_000_000_000;
/// Sockets take next to nothing, and the folder for them is often a small part of the memory.
const SOCKETS: u64 = 64_000_000;

/// Looks at the folders themselves. May block on a file system that does not answer.
pub fn examine() -> Vec<Finding> {
    let mut findings = Vec::new();
    match config::state_dir() {
        Ok(state) => {
            findings.push(records(&state));
            findings.extend(space("space", &existing(&state), "records", WORK));
        }
        Err(error) => findings.push(Finding::told(Level::Error, "records", &error.to_string(), "")),
    }
    match config::runtime_dir() {
        Ok(runtime) => {
            let shown = runtime.display();
            findings.push(if is_writable(&runtime) {
                Finding::ok("sockets", format!("{shown}, for this user alone"))
            } else {
                let remedy = "set XDG_RUNTIME_DIR to a folder of your own";
                Finding::error("sockets", format!("{shown} cannot be written"), remedy)
            });
            findings.extend(space("space", &runtime, "sockets", SOCKETS));
        }
        Err(error) => {
            let remedy = "set XDG_RUNTIME_DIR to a folder of your own";
            findings.push(Finding::told(Level::Error, "sockets", &error.to_string(), remedy));
        }
    }
    findings
}

/// How much room the engine has, where its folder can be seen from here.
pub fn engine_space(root: &Path) -> Option<Finding> {
    space("space", root, "images and containers", WORK)
}

fn records(state: &Path) -> Finding {
    let shown = state.display();
    let Ok(found) = std::fs::metadata(state) else {
        let above = existing(state);
        return if above.is_dir() && is_writable(&above) {
            Finding::ok("records", format!("{shown}, made at the first run"))
        } else {
            Finding::error(
                "records",
                format!("{shown} cannot be made, because {} is not ours to write", above.display()),
                "make it writable for this user, or set SANDBOX_MCP_STATE_DIR",
            )
        };
    };
    if !found.is_dir() {
        let remedy = "remove it, or set SANDBOX_MCP_STATE_DIR";
        return Finding::error("records", format!("{shown} is not a folder"), remedy);
    }
    if !is_writable(state) {
        return Finding::error(
            "records",
            format!("{shown} cannot be written, so no image is built and no run recorded"),
            "make it writable for this user, or set SANDBOX_MCP_STATE_DIR",
        );
    }
    // The records themselves are private even in a folder that others can list.
    let runs = state.join("runs");
    let readable = mode(&runs).is_some_and(|mode| mode & 0o077 != 0) && found.mode() & 0o077 != 0;
    let changeable = found.mode() & 0o022 != 0;
    if readable || changeable {
        let what = if changeable { "written" } else { "read" };
        return Finding::warning(
            "records",
            format!("{shown} can be {what} by other users of this machine"),
            format!("chmod 700 '{shown}'"),
        );
    }
    Finding::ok("records", format!("{shown}, private"))
}

fn mode(path: &Path) -> Option<u32> {
    Some(std::fs::metadata(path).ok()?.mode())
}

fn is_writable(folder: &Path) -> bool {
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// The folder itself, or the nearest one above it that there is.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// The room that is left for us at `place`, where that can be told.
fn space(check: &'static str, place: &Path, of_what: &str, enough: u64) -> Option<Finding> {
    let found = rustix::fs::statvfs(place).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let message = format!("{} free for {of_what}, in {}", size(free), place.display());
    Some(if free >= enough {
        Finding::ok(check, message)
    } else {
        let remedy = format!("make room there: {} or more", size(enough));
        Finding::warning(check, message, remedy)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn records_must_be_private_and_possible() {
        let base = tempfile::tempdir().expect("temp");
        let state = base.path().join("not/yet");
        assert_eq!(records(&state).level, Level::Ok);
        std::fs::create_dir_all(state.join("runs")).expect("made");
        let level = |of_state, of_runs| {
            set_permissions(state.join("runs"), Permissions::from_mode(of_runs)).expect("chmod");
            set_permissions(&state, Permissions::from_mode(of_state)).expect("chmod");
            records(&state).level
        };
        assert_eq!(level(0o700, 0o755), Level::Ok);
        assert_eq!(level(0o755, 0o700), Level::Ok);
        assert_eq!(level(0o755, 0o755), Level::Warning);
        assert_eq!(level(0o777, 0o700), Level::Warning);
        let file = base.path().join("file");
        std::fs::write(&file, "").expect("write");
        assert_eq!(records(&file).level, Level::Error);
        assert_eq!(records(&file.join("below")).level, Level::Error);
    }

    #[test]
    fn little_room_is_a_warning() {
        let here = std::env::temp_dir();
        let tight = space("space", &here, "tests", u64::MAX).expect("it can be told");
        assert_eq!(tight.level, Level::Warning);
        assert_eq!(space("space", &here, "tests", 0).map(|found| found.level), Some(Level::Ok));
        assert_eq!(space("space", Path::new("/nowhere"), "tests", 0), None);
    }
}
