//! The folder that an agent would get.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::finding::{Finding, Level};
use crate::config::Config;
use crate::runner::user_for;
use crate::sandbox::User;
use crate::workspace::{Owner, WorkspacePath};

/// What is looked at, and what decides on it.
#[derive(Debug)]
pub struct Question {
    /// The folder that was named; the current one when absent.
    pub named: Option<PathBuf>,
    pub roots: Vec<PathBuf>,
    pub user: Option<String>,
    /// Whether root inside is only this user outside.
    pub rootless: bool,
}

impl Question {
    pub fn new(named: Option<PathBuf>, config: &Config, rootless: bool) -> Self {
        Self {
            named,
            roots: config.workspace.roots.clone(),
            user: config.sandbox.user.clone(),
            rootless,
        }
    }

    /// Looks at the folder. May block on a file system that does not answer.
    pub fn examine(&self) -> Vec<Finding> {
        let checked = match std::env::current_dir() {
            Ok(here) => {
                // As with `run`: a folder that a person names is meant.
                let meant = self.named.as_ref().and_then(|named| named.canonicalize().ok());
                let roots: Vec<_> = self.roots.iter().cloned().chain(meant).collect();
                WorkspacePath::check(self.named.as_deref(), &here, &roots)
            }
            Err(error) => {
                let message = format!("the current folder cannot be read: {error}");
                return vec![Finding::error("folder", message, "go to one that exists")];
            }
        };
        let workspace = match checked {
            Ok(workspace) => workspace,
            Err(error) => return vec![self.refused(&error.to_string())],
        };
        let mut findings = vec![Finding::ok("folder", workspace.path().display().to_string())];
        findings.push(self.owner(&workspace));
        if !workspace.is_writable() {
            findings.push(Finding::warning(
                "access",
                "this user may read it but not write to it",
                "use the mode read-only, or make the folder writable for this user",
            ));
        }
        findings
    }

    /// Where somebody happens to be says little about where they will work; a folder that they
    /// named is meant.
    fn refused(&self, why: &str) -> Finding {
        if self.named.is_some() {
            return Finding::told(Level::Error, "folder", why, "give a project folder");
        }
        let why = why.rsplit_once("; ").map_or(why, |(why, _)| why);
        Finding::warning(
            "folder",
            format!("no run can work in the current folder: {why}"),
            "start in a project folder, or name one with `--workspace`",
        )
    }

    /// Whose the folder is, and whether whoever a sandbox runs as can work in it.
    fn owner(&self, workspace: &WorkspacePath) -> Finding {
        let Owner { uid, gid } = workspace.owner();
        let whose = format!("it belongs to {uid}:{gid}");
        let configured = match self.user.as_deref().map(str::parse::<User>).transpose() {
            Ok(configured) => configured,
            Err(error) => return Finding::told(Level::Error, "owner", &error.to_string(), ""),
        };
        if let Some(user) = configured {
            let mode = std::fs::metadata(workspace.path()).map_or(0, |found| found.mode());
            if may_write(mode, workspace.owner(), user) {
                return Finding::ok("owner", format!("{whose}; `sandbox.user` is {user}"));
            }
            return Finding::warning(
                "owner",
                format!("{whose}, and `sandbox.user` is {user}, who may not write to it"),
                "give the folder to that user, remove `sandbox.user`, or use the mode read-only",
            );
        }
        if self.rootless {
            return Finding::ok("owner", format!("{whose}; the rootless engine acts as its user"));
        }
        match user_for(workspace.owner()) {
            Some(user) if user.uid() == uid => {
                Finding::ok("owner", format!("{user}, whom a sandbox runs as"))
            }
            Some(user) => Finding::warning(
                "owner",
                format!(
                    "{whose}, and a sandbox runs as you ({user}), so only the mode read-only works \
                     here"
                ),
                "work in a folder of your own",
            ),
            None => Finding::warning(
                "owner",
                format!(
                    "{whose}, and a sandbox never runs as root or in its group, so only the mode \
                     read-only works here"
                ),
                format!(
                    "give it to a user (`chown -R 1000:1000 '{}'`), or set `sandbox.user`",
                    workspace.path().display()
                ),
            ),
        }
    }
}

/// Whether a folder's mode lets `user` write to it. Access lists can say otherwise.
fn may_write(mode: u32, owner: Owner, user: User) -> bool {
    let shift = match user {
        user if user.uid() == owner.uid => 6,
        user if user.gid() == owner.gid => 3,
        _ => 0,
    };
    mode >> shift & 0o3 == 0o3
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder(prefix: &str) -> tempfile::TempDir {
        tempfile::Builder::new().prefix(prefix).tempdir_in("/tmp").expect("temp")
    }

    fn ask(folder: &std::path::Path) -> Question {
        let roots = vec![folder.to_owned()];
        Question { named: Some(folder.to_owned()), roots, user: None, rootless: false }
    }

    fn of<'f>(findings: &'f [Finding], check: &str) -> &'f Finding {
        findings.iter().find(|finding| finding.check == check).expect("such a finding")
    }

    #[test]
    fn the_mode_is_read_as_the_kernel_reads_it() {
        let owner = Owner { uid: 5, gid: 6 };
        let user = |uid, gid| User::new(uid, gid).expect("a user");
        assert!(may_write(0o700, owner, user(5, 9)));
        assert!(!may_write(0o077, owner, user(5, 6)));
        assert!(may_write(0o070, owner, user(9, 6)));
        assert!(!may_write(0o755, owner, user(9, 9)));
        assert!(may_write(0o777, owner, user(9, 9)));
    }

    #[test]
    fn what_stands_in_the_way_of_a_run_is_said_with_its_level() {
        let folder = folder("doctor-ws-");
        let path = folder.path();
        assert_eq!(of(&ask(path).examine(), "folder").level, Level::Ok);
        let mut missing = ask(&path.join("missing"));
        assert_eq!(of(&missing.examine(), "folder").level, Level::Error);
        missing.named = None;
        missing.roots.clear();
        // Wherever the tests run: not being named is never worse than a warning.
        assert!(missing.examine().iter().all(|finding| finding.level < Level::Error));
    }

    #[test]
    fn a_configured_user_who_cannot_write_is_a_warning() {
        let folder = folder("doctor-ws-");
        let mut question = ask(folder.path());
        question.user = Some("4321:4321".into());
        assert_eq!(of(&question.examine(), "owner").level, Level::Warning);
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("chmod");
        assert_eq!(of(&question.examine(), "owner").level, Level::Ok);
        question.user = Some("0:0".into());
        assert_eq!(of(&question.examine(), "owner").level, Level::Error);
    }
}
