//! Who commits in a workspace are by, as git on this machine says.

use std::path::Path;
use std::time::Duration;

use super::host::Ask;

const TIME: Duration = Duration::from_secs(2);
const MOST: u64 = 64 << 10;
const LONGEST: usize = 200;

/// A name and an address, each where there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    pub name: Option<String>,
    pub email: Option<String>,
}

/// Whom git puts into a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub author: Person,
    pub committer: Person,
}

/// Asks git for the user's settings, with those of the repository where git trusts it; what the
/// environment says goes first, as with git. Blocking, for [`TIME`] at most.
pub fn identity(workspace: &Path) -> Identity {
    let question = ["config", "--null", "--get-regexp", "^(user|author|committer)\\.(name|email)$"];
    let answer = Ask::at(workspace).map(|ask| ask.args(question).run(TIME, MOST));
    let said = answer.filter(|answer| answer.ok).unwrap_or_default().stdout;
    let mut found = read(&String::from_utf8_lossy(&said));
    for (person, name, email) in [
        (&mut found.author, "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"),
        (&mut found.committer, "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"),
    ] {
        let set = |name| std::env::var(name).ok().and_then(|value| plain(&value));
        person.name = set(name).or_else(|| person.name.take());
        person.email = set(email).or_else(|| person.email.take());
    }
    found
}

/// Reads what `git config --null` prints: a key, a line's end, and the value.
fn read(said: &str) -> Identity {
    // The last one counts.
    let last = |key: &str| {
        let mut values = said.split('\0').filter_map(|pair| pair.split_once('\n'));
        values.rfind(|(name, _)| *name == key).and_then(|(_, value)| plain(value))
    };
    let person = |own: &str| Person {
        name: last(&format!("{own}.name")).or_else(|| last("user.name")),
        email: last(&format!("{own}.email")).or_else(|| last("user.email")),
    };
    Identity { author: person("author"), committer: person("committer") }
}

/// One line of ordinary length.
fn plain(value: &str) -> Option<String> {
    let value = value.trim();
    let fits = !value.is_empty() && value.len() <= LONGEST && !value.chars().any(char::is_control);
    fits.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str, email: &str) -> Person {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Person { name: some(name), email: some(email) }
    }

    #[test]
    fn the_last_setting_counts_and_an_own_one_goes_first() {
        let said = "user.name\nOld\0user.email\na@x\0user.name\nAda\0author.name\nAuthor\0";
        let found = read(said);
        assert_eq!(found.author, person("Author", "a@x"));
        assert_eq!(found.committer, person("Ada", "a@x"));
    }

    #[test]
    fn what_is_no_ordinary_line_is_nothing() {
        let long = "x".repeat(LONGEST + 1);
        for odd in ["user.name\n \0", "user.name\na\nb\0", "user.name\0", "", &long] {
            assert_eq!(read(odd), Identity::default(), "{odd:?}");
        }
    }

    #[test]
    fn a_repository_says_who_it_is_of_and_runs_nothing() {
        let place = tempfile::tempdir().expect("temp");
        let here = place.path();
        let made = std::process::Command::new("git").args(["init", "-q"]).arg(here).status();
        assert!(made.expect("git").success());
        let config = "[user]\n\tname = Repo\n\temail = repo@example.com\n[core]\n\
                      \tfsmonitor = touch ran\n\tpager = touch ran\n[alias]\n\tconfig = !touch ran\n";
        std::fs::write(here.join(".git/config"), config).expect("write");
        assert_eq!(identity(here).committer, person("Repo", "repo@example.com"));
        assert!(!here.join("ran").exists());
        // What cannot be read is nothing, and soon.
        let begun = std::time::Instant::now();
        std::fs::remove_file(here.join(".git/config")).expect("remove");
        let fifo = std::process::Command::new("mkfifo").arg(here.join(".git/config")).status();
        assert!(fifo.expect("mkfifo").success());
        assert_eq!(identity(here).committer.name, None);
        assert!(begun.elapsed() < TIME * 2);
    }
}
