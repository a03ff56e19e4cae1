//! The settings that a copied git directory gets: what is harmless of the repository's own, and of
//! the user's what decides how files are read and written.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::gitconfig::{Setting, parse};
use super::harmless::harmless;
use super::host::Ask;

const TIME: Duration = Duration::from_secs(2);
const MOST: u64 = 64 << 10;

/// Most of a list of patterns that is handed in.
const PATTERNS: u64 = 256 << 10;

/// Settings of a repository that are yes or no, or a word, and name neither program nor place.
const WORDS: &[(&str, &[&str])] = &[
    (
        "core",
        &[
            "autocrlf",
            "eol",
            "safecrlf",
            "sparsecheckout",
            "sparsecheckoutcone",
            "quotepath",
            "abbrev",
            "trustctime",
            "checkstat",
            "commentchar",
        ],
    ),
    ("index", &["sparse", "version"]),
    ("pull", &["rebase", "ff"]),
    ("push", &["default", "autosetupremote"]),
    ("merge", &["conflictstyle", "ff", "renames"]),
    ("rebase", &["autosquash", "autostash", "updaterefs"]),
    ("diff", &["algorithm", "renames", "mnemonicprefix", "noprefix"]),
    ("commit", &["cleanup"]),
    ("extensions", &["partialclone", "preciousobjects"]),
];

/// The same below a name.
const NAMED: &[(&str, &[&str])] = &[
    ("remote", &["promisor", "partialclonefilter", "tagopt"]),
    ("branch", &["rebase"]),
    ("submodule", &["branch"]),
];

/// Writes the settings of a repository as they may be read inside. `worktree` is where its working
/// tree is there, where it is not beside the git directory.
pub(super) fn inside(theirs: &[u8], worktree: Option<&Path>) -> String {
    let mut text = harmless(theirs).text;
    for setting in parse(&String::from_utf8_lossy(theirs)).0 {
        if is_word(&setting) {
            text.push_str(&one(&setting));
        }
    }
    if let Some(worktree) = worktree {
        text.push_str(&path_setting("worktree", worktree));
    }
    text
}

fn is_word(setting: &Setting) -> bool {
    let lists = if setting.subsection.is_some() { NAMED } else { WORDS };
    let listed = lists
        .iter()
        .any(|(section, keys)| *section == setting.section && keys.contains(&&*setting.key));
    let plain = |text: &str| {
        text.len() <= 100
            && !text.starts_with('-')
            && text.chars().all(|c| c.is_alphanumeric() || "._-/:+#;".contains(c))
    };
    listed
        && setting.value.as_deref().is_none_or(plain)
        && setting.subsection.as_deref().is_none_or(plain)
}

fn one(setting: &Setting) -> String {
    let mut text = match &setting.subsection {
        Some(name) => format!("[{} \"{name}\"]\n", setting.section),
        None => format!("[{}]\n", setting.section),
    };
    // Writing to a text cannot fail.
    let _ =
        writeln!(text, "\t{} = \"{}\"", setting.key, setting.value.as_deref().unwrap_or("true"));
    text
}

/// A setting of `core` that is a path.
pub(super) fn path_setting(key: &str, path: &Path) -> String {
    let path = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!("[core]\n\t{key} = \"{}\"\n", path.replace('\n', "\\n"))
}

/// What of the user's own settings decides how files are read and written, as far as it can be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfTheUser {
    /// As a repository's settings would say it.
    pub text: String,
    /// Contents of the files that apply to all repositories.
    pub excludes: Option<Vec<u8>>,
    pub attributes: Option<Vec<u8>>,
}

/// Asks git for the user's own settings. What the repository says is left out here: it could name
/// any file. Blocking.
pub(super) fn of_the_user(workspace: &Path) -> OfTheUser {
    let question = [
        "config",
        "--null",
        "--show-scope",
        "--get-regexp",
        "^core\\.(autocrlf|eol|safecrlf|excludesfile|attributesfile)$",
    ];
    let answer = Ask::at(workspace).map(|ask| ask.args(question).run(TIME, MOST));
    let said = answer.filter(|answer| answer.ok).unwrap_or_default().stdout;
    let home = std::env::home_dir();
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| home.as_ref().map(|home| home.join(".config")));
    told(&String::from_utf8_lossy(&said), home.as_deref(), folder.map(|folder| folder.join("git")))
}

fn told(said: &str, home: Option<&Path>, usual: Option<PathBuf>) -> OfTheUser {
    let mut found = OfTheUser::default();
    let mut excludes = usual.as_ref().map(|usual| usual.join("ignore"));
    let mut attributes = usual.map(|usual| usual.join("attributes"));
    let mut words = said.split('\0');
    while let (Some(scope), Some(pair)) = (words.next(), words.next()) {
        if !["system", "global", "command"].contains(&scope) {
            continue;
        }
        let (key, value) = match pair.split_once('\n') {
            Some((key, value)) => (key, Some(value)),
            None => (pair, None),
        };
        let path = || {
            let value = value?;
            match value.strip_prefix("~/") {
                Some(below) => home.map(|home| home.join(below)),
                None => Some(PathBuf::from(value)).filter(|path| path.is_absolute()),
            }
        };
        match key.strip_prefix("core.") {
            Some("excludesfile") => excludes = path(),
            Some("attributesfile") => attributes = path(),
            Some(key) => {
                let setting = Setting {
                    section: "core".to_owned(),
                    subsection: None,
                    key: key.to_owned(),
                    value: value.map(str::to_owned),
                };
                if is_word(&setting) {
                    found.text.push_str(&one(&setting));
                }
            }
            None => {}
        }
    }
    found.excludes = excludes.and_then(|path| patterns(&path));
    found.attributes = attributes.and_then(|path| patterns(&path));
    found
}

/// The user's own file, which may be a link, as dotfiles are.
fn patterns(path: &Path) -> Option<Vec<u8>> {
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(PATTERNS + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= PATTERNS && !bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_harmless_stays_and_the_rest_goes() {
        let text = "[core]\n\tbare = false\n\tautocrlf = input\n\thooksPath = x\n\tworktree = /x\n\
                    \teditor = vi\n[index]\n\tsparse = true\n[remote \"o\"]\n\turl = https://h/a\n\
                    \tpromisor = true\n\tuploadpack = evil\n[pull]\n\trebase = true\n[core]\n\teol = \"a b\"\n";
        let found = inside(text.as_bytes(), Some(Path::new("/a \"b")));
        let read = parse(&found).0;
        let has = |key: &str| read.iter().rfind(|setting| setting.key == key);
        for key in ["bare", "autocrlf", "sparse", "url", "promisor", "rebase"] {
            assert!(has(key).is_some(), "{key}: {found}");
        }
        for key in ["hookspath", "editor", "uploadpack", "eol"] {
            assert!(has(key).is_none(), "{key}: {found}");
        }
        let worktree = has("worktree").expect("a place");
        assert_eq!(worktree.value.as_deref(), Some("/a \"b"));
    }

    #[test]
    fn only_the_users_own_settings_name_files() {
        let place = tempfile::tempdir().expect("temp");
        for name in ["mine", "git/ignore", "git/attributes", "secret"] {
            let path = place.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("make");
            std::fs::write(path, name).expect("write");
        }
        let usual = Some(place.path().join("git"));
        let said = format!(
            "system\0core.autocrlf\ninput\0global\0core.excludesfile\n~/mine\0local\0core.attributesfile\n{}\0local\0core.eol\ncrlf\0",
            place.path().join("secret").display()
        );
        let found = told(&said, Some(place.path()), usual);
        assert_eq!(found.text, "[core]\n\tautocrlf = \"input\"\n");
        assert_eq!(found.excludes.as_deref(), Some(&b"mine"[..]));
        assert_eq!(found.attributes.as_deref(), Some(&b"git/attributes"[..]));
        assert_eq!(told("", None, None), OfTheUser::default());
    }
}
