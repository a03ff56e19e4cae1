//! What of a repository's settings is harmless.
//!
//! Dozens of settings make git run a program, and new ones come with its releases, so this is a
//! list of what may stay. It is written afresh from what was understood: where git would read the
//! original otherwise than we do, it does not get to read it.

use std::fmt::Write;

use super::super::gitconfig::{Setting, parse};

const LONGEST_VALUE: usize = 2000;

/// Settings as they may stay.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::workspace) struct Harmless {
    pub text: String,
    /// The names of what may not, each once.
    pub dropped: Vec<String>,
}

/// Sorts settings into what stays and what is dropped.
pub(in crate::workspace) fn harmless(bytes: &[u8]) -> Harmless {
    let (settings, is_sound) = parse(&String::from_utf8_lossy(bytes));
    harmless_of(settings.into_iter(), is_sound)
}

/// Sorts settings that were read already. `is_sound` is false where the text ended in nonsense.
pub(super) fn harmless_of(settings: impl Iterator<Item = Setting>, is_sound: bool) -> Harmless {
    let mut kept = String::new();
    let mut dropped = Vec::new();
    let mut header = String::new();
    for setting in settings {
        if !is_harmless(&setting) {
            let Setting { section, key, .. } = setting;
            let name = format!("{section}.{key}");
            if !dropped.contains(&name) {
                dropped.push(name);
            }
            continue;
        }
        let now = match &setting.subsection {
            Some(name) => format!("[{} \"{}\"]\n", setting.section, escaped(name)),
            None => format!("[{}]\n", setting.section),
        };
        if now != header {
            kept.push_str(&now);
            header = now;
        }
        let value = setting.value.as_deref().unwrap_or("true");
        // Writing to a text cannot fail.
        let _ = writeln!(kept, "\t{} = \"{}\"", setting.key, escaped(value));
    }
    if !is_sound {
        dropped.push("what makes no sense".to_owned());
    }
    Harmless { text: kept, dropped }
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    text.replace('\n', "\\n").replace('\t', "\\t")
}

fn is_harmless(setting: &Setting) -> bool {
    let value = setting.value.as_deref().unwrap_or("true");
    let name = setting.subsection.as_deref();
    if !is_plain(value) || name.is_some_and(|name| !is_plain(name) || name.starts_with('-')) {
        return false;
    }
    let yes_or_no = || {
        ["true", "false", "yes", "no", "on", "off", "1", "0"]
            .contains(&value.to_ascii_lowercase().as_str())
    };
    match (setting.section.as_str(), name.is_some(), setting.key.as_str()) {
        ("core", false, "repositoryformatversion") => matches!(value, "0" | "1"),
        (
            "core",
            false,
            "filemode" | "bare" | "ignorecase" | "precomposeunicode" | "symlinks",
        )
        | ("submodule", true, "active")
        // What it makes git read is sorted like this as well.
        | ("extensions", false, "worktreeconfig") => yes_or_no(),
        ("core", false, "logallrefupdates") => yes_or_no() || value == "always",
        ("extensions", false, "objectformat") => matches!(value, "sha1" | "sha256"),
        ("extensions", false, "refstorage") => matches!(value, "files" | "reftable"),
        ("user", false, "name" | "email") => true,
        ("remote" | "submodule", true, "url") => is_harmless_url(value),
        ("remote", true, "fetch") => !value.starts_with('-'),
        // Where a remote's name is expected, an address would do too.
        ("branch", true, "remote") | ("init", false, "defaultbranch") => is_name(value),
        ("branch", true, "merge") => value.starts_with("refs/"),
        _ => false,
    }
}

fn is_plain(text: &str) -> bool {
    text.len() <= LONGEST_VALUE && !text.chars().any(char::is_control)
}

fn is_name(text: &str) -> bool {
    !text.starts_with('-')
        && text.chars().all(|letter| letter.is_alphanumeric() || "._-/".contains(letter))
}

/// Whether fetching from an address runs nothing but git and ssh as they are. Remote helpers
/// (`ext::`, `fd::` and any other `name::`) are programs; a leading dash would be an option.
fn is_harmless_url(url: &str) -> bool {
    if url.is_empty() || url.starts_with('-') || url.contains("::") {
        return false;
    }
    let is_host = |place: &str| {
        let host = place.rsplit('@').next().unwrap_or(place);
        !host.is_empty() && !host.starts_with('-') && !place.starts_with('-')
    };
    if let Some((scheme, rest)) = url.split_once("://") {
        let place = rest.split('/').next().unwrap_or(rest);
        return matches!(scheme, "http" | "https" | "ssh") && is_host(place);
    }
    match url.split_once(':') {
        // `user@host:path`, unless a folder's name has a colon in it.
        Some((place, path)) if !place.contains('/') => {
            is_host(place)
                && !path.starts_with('-')
                && place
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || "._-@".contains(letter))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(text: &str) -> Vec<String> {
        harmless(text.as_bytes()).dropped
    }

    #[test]
    fn an_ordinary_clone_loses_nothing() {
        let text = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\
                    \tlogallrefupdates = true\n[remote \"origin\"]\n\turl = https://host/a.git\n\
                    \tfetch = +refs/heads/*:refs/remotes/origin/*\n[branch \"main\"]\n\
                    \tremote = origin\n\tmerge = refs/heads/main\n[user]\n\tname = Ann \"B\" \\\"C\\\"\n";
        let found = harmless(text.as_bytes());
        assert!(found.dropped.is_empty(), "{:?}", found.dropped);
        assert!(found.text.contains("[remote \"origin\"]\n\turl = \"https://host/a.git\"\n"));
        assert!(found.text.contains("name = \"Ann B \\\"C\\\"\""), "{}", found.text);
        // What was written is read as the same.
        assert_eq!(harmless(found.text.as_bytes()), found);
    }

    #[test]
    fn whatever_could_run_a_program_is_dropped_in_any_spelling() {
        for (text, name) in [
            ("[core]\nfsmonitor=./x", "core.fsmonitor"),
            ("[CORE]fsMonitor = ./x", "core.fsmonitor"),
            ("[core] hooksPath = \"./x\"", "core.hookspath"),
            ("[core] sshCommand = x", "core.sshcommand"),
            ("[core] worktree = /", "core.worktree"),
            ("[core]\nbare = \\\nfalse\nfs\\\nmonitor = x", "what makes no sense"),
            ("[include] path = x", "include.path"),
            ("[includeIf \"gitdir:x\"] path = x", "includeif.path"),
            ("[alias] st = !x", "alias.st"),
            ("[filter \"x\"] clean = x", "filter.clean"),
            ("[diff \"x\"] textconv = x", "diff.textconv"),
            ("[merge \"x\"] driver = x", "merge.driver"),
            ("[url \"ext::sh\"] insteadOf = https", "url.insteadof"),
            ("[credential] helper = !x", "credential.helper"),
            ("[gpg] program = x", "gpg.program"),
            ("[remote \"o\"] url = ext::sh -c x", "remote.url"),
            ("[remote.o] url = fd::3", "remote.url"),
            ("[remote \"o\"] url = -x", "remote.url"),
            ("[remote \"o\"] url = ssh://-oProxyCommand=x/y", "remote.url"),
            ("[remote \"o\"] url = ssh://a@-oProxyCommand=x/y", "remote.url"),
            ("[remote \"o\"] url = -oProxyCommand=x:y", "remote.url"),
            ("[remote \"o\"] url = git@-x:y", "remote.url"),
            ("[remote \"o\"] url = ftp://x/y", "remote.url"),
            ("[remote \"o\"] url = \"a\\nb\"", "remote.url"),
            ("[remote \"o\"] uploadpack = x", "remote.uploadpack"),
            ("[remote \"o\"] vcs = x", "remote.vcs"),
            ("[remote] url = https://x/y", "remote.url"),
            ("[branch \"m\"] remote = ext::x", "branch.remote"),
            ("[user] name = \"a\\nb\"", "user.name"),
            ("[user] signingkey = x", "user.signingkey"),
            ("[core] filemode = ./x", "core.filemode"),
            ("[core \"x\"] bare = true", "core.bare"),
            ("[submodule \"x\"] update = !x", "submodule.update"),
        ] {
            assert_eq!(dropped(text), [name], "{text}");
            assert!(!harmless(text.as_bytes()).text.contains('x'), "{text}");
        }
    }

    #[test]
    fn ordinary_addresses_stay() {
        for url in [
            "https://user@host:8443/a.git",
            "http://host/a",
            "ssh://git@host:22/a",
            "git@host:a/b.git",
            "../other.git",
            "/srv/git/a:b",
            "other",
        ] {
            assert!(is_harmless_url(url), "{url}");
        }
    }

    #[test]
    fn nonsense_ends_the_reading_and_is_told() {
        for text in ["x = 1", "[core", "[core \"a]", "[core]\n1x = 1", "[core]\nbare = \"a\n", "[]"]
        {
            assert_eq!(dropped(text), ["what makes no sense"], "{text}");
            assert_eq!(harmless(text.as_bytes()).text, "", "{text}");
        }
        let found = harmless(b"[core]\nbare\n; all right # so far\n\xff\xfe\0");
        assert_eq!(found.text, "[core]\n\tbare = \"true\"\n");
        assert_eq!(found.dropped, ["what makes no sense"]);
        assert!(harmless("[a]\nb\n".repeat(40_000).as_bytes()).text.is_empty());
    }
}
