//! The copy of a git directory for a workspace that is a subfolder: git takes the rest of the working
//! tree for not checked out, so that nothing of it is committed as deleted.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::host::Ask;
use super::users::input;

/// Time and output of one command: names of all files that are tracked.
const TIME: Duration = Duration::from_secs(30);
const MOST: u64 = 256 << 20;

/// Narrows the copy of a git directory to `prefix`; `own` is the part of the working tree. The
/// settings are harmless already. Blocking.
pub(super) fn narrow(prefix: &Path, to: &Path, own: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("its copy cannot be narrowed to it: {error}");
    let name = prefix.to_str().filter(|name| !name.contains('\n'));
    let name = name.ok_or("its name is not UTF-8")?;
    let config = to.join("config");
    let mut settings = std::fs::read_to_string(&config).map_err(failed)?;
    settings.push_str("[core]\n\tsparseCheckout = true\n\tsparseCheckoutCone = false\n");
    std::fs::write(&config, settings).map_err(failed)?;
    std::fs::write(own.join("info/sparse-checkout"), pattern(name)).map_err(failed)?;
    let ask = || {
        let ask = Ask::at(own).ok_or("there is no git on this machine")?;
        Ok::<_, String>(ask.env("GIT_DIR", own).env("GIT_WORK_TREE", own))
    };
    let others = format!(":(top,exclude,literal){name}");
    let listed = ask()?.args(["ls-files", "-z", "--full-name", "--", ":/", &others]);
    let listed = listed.run(TIME, MOST);
    let marked = listed.ok.then(|| {
        let ask = ask()?.input(input(&listed.stdout)?);
        Ok::<_, String>(ask.args(["update-index", "-z", "--skip-worktree", "--stdin"]).run(TIME, 0))
    });
    match marked.transpose()? {
        Some(marked) if marked.ok => Ok(()),
        _ => Err("git on this machine cannot narrow its index to it".to_owned()),
    }
}

/// The pattern that has a folder and all below it, as a list of ignored files would.
fn pattern(name: &str) -> String {
    let mut text = String::from("/");
    for letter in name.chars() {
        let is_special = matches!(letter, '*' | '?' | '[' | '\\' | '!' | '#' | ' ');
        // Writing to a text cannot fail.
        let _ = if is_special { write!(text, "\\{letter}") } else { write!(text, "{letter}") };
    }
    text.push_str("/\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_one_folder() {
        assert_eq!(pattern("packages/app"), "/packages/app/\n");
        assert_eq!(pattern("a [b]*"), "/a\\ \\[b]\\*/\n");
    }
}
