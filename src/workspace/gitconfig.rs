//! Reading git's settings, without git: they are hostile, and git does what they say.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use serde::{Deserialize, Serialize};

use super::walk::open_folder;

/// Larger settings than anybody has.
pub(super) const LARGEST: u64 = 256 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    /// In lower case.
    pub section: String,
    pub subsection: Option<String>,
    /// In lower case.
    pub key: String,
    /// A key alone stands for true.
    pub value: Option<String>,
}

/// The settings of a git directory; nothing when there is no such file.
pub(super) fn settings(root: BorrowedFd<'_>, git: &Path) -> Option<Vec<Setting>> {
    settings_of(open_folder(root, git).ok()?.as_fd(), "config")
}

/// The settings in a file of an opened git directory; nothing when there is no such file.
pub(super) fn settings_of(git: BorrowedFd<'_>, name: &str) -> Option<Vec<Setting>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(git, name, flags, Mode::empty()).ok()?;
    let found = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(parse(&String::from_utf8_lossy(&bytes)).0)
}

/// Where a relative path leads from a folder of the workspace; nothing when that is outside.
pub(super) fn resolve(folder: &Path, target: &Path) -> Option<PathBuf> {
    let mut at = folder.to_owned();
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => at.push(name),
            Component::ParentDir => {
                if !at.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(at)
}

/// All settings in the order of the text, and whether the text made sense to its end.
pub(super) fn parse(text: &str) -> (Vec<Setting>, bool) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut reader = Reader { rest: text.chars().peekable() };
    let mut settings = Vec::new();
    let mut section: Option<(String, Option<String>)> = None;
    loop {
        reader.skip(char::is_whitespace);
        let Some(first) = reader.rest.next() else { return (settings, true) };
        match first {
            '#' | ';' => reader.skip(|letter| letter != '\n'),
            '[' => match reader.section() {
                Some(found) => section = Some(found),
                None => return (settings, false),
            },
            _ => {
                let Some((name, subsection)) = section.clone() else { return (settings, false) };
                let Some((key, value)) = reader.setting(first) else { return (settings, false) };
                settings.push(Setting { section: name, subsection, key, value });
            }
        }
    }
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
}

impl Reader<'_> {
    fn skip(&mut self, which: impl Fn(char) -> bool) {
        while self.rest.next_if(|letter| which(*letter)).is_some() {}
    }

    /// A header, after its first bracket.
    fn section(&mut self) -> Option<(String, Option<String>)> {
        let mut full = String::new();
        while let Some(letter) =
            self.rest.next_if(|letter| letter.is_ascii_alphanumeric() || "-.".contains(*letter))
        {
            full.push(letter.to_ascii_lowercase());
        }
        match self.rest.next()? {
            ']' => {}
            ' ' | '\t' => {
                self.skip(|letter| letter == ' ' || letter == '\t');
                if self.rest.next()? != '"' {
                    return None;
                }
                full.push('.');
                loop {
                    match self.rest.next()? {
                        '"' => break,
                        '\n' => return None,
                        '\\' => full.push(self.rest.next().filter(|letter| *letter != '\n')?),
                        letter => full.push(letter),
                    }
                }
                if self.rest.next()? != ']' {
                    return None;
                }
            }
            _ => return None,
        }
        match full.split_once('.') {
            Some((name, sub)) => Some((name.to_owned(), Some(sub.to_owned()))),
            None => (!full.is_empty()).then_some((full, None)),
        }
    }

    /// A key, whose first letter was read already, and its value.
    fn setting(&mut self, first: char) -> Option<(String, Option<String>)> {
        if !first.is_ascii_alphabetic() {
            return None;
        }
        let mut key = String::from(first.to_ascii_lowercase());
        while let Some(letter) =
            self.rest.next_if(|letter| letter.is_ascii_alphanumeric() || *letter == '-')
        {
            key.push(letter.to_ascii_lowercase());
        }
        self.skip(|letter| letter == ' ' || letter == '\t');
        match self.rest.next() {
            None | Some('\n') => Some((key, None)),
            Some('=') => self.value().map(|value| (key, Some(value))),
            Some(_) => None,
        }
    }

    fn value(&mut self) -> Option<String> {
        let mut value = String::new();
        // Whitespace counts only when something follows it.
        let mut solid = 0;
        let mut quoted = false;
        loop {
            match self.rest.next() {
                None | Some('\n') if quoted => return None,
                None | Some('\n') => break,
                Some('#' | ';') if !quoted => {
                    self.skip(|letter| letter != '\n');
                    break;
                }
                Some('"') => {
                    quoted = !quoted;
                    solid = value.len();
                }
                Some('\\') => {
                    match self.rest.next()? {
                        '\n' => continue,
                        'n' => value.push('\n'),
                        't' => value.push('\t'),
                        'b' => value.push('\u{8}'),
                        letter @ ('\\' | '"') => value.push(letter),
                        _ => return None,
                    }
                    solid = value.len();
                }
                Some(letter) if letter.is_whitespace() && !quoted => {
                    if !value.is_empty() {
                        value.push(letter);
                    }
                }
                Some(letter) => {
                    value.push(letter);
                    solid = value.len();
                }
            }
        }
        value.truncate(solid);
        Some(value)
    }
}
