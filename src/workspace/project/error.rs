//! Why something of a project was not shown.

use std::io;

/// Each message names the argument, what was given and what would do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`path` is empty; give a file, relative to the workspace")]
    Empty,
    #[error("`path` holds a NUL character; remove it")]
    Nul,
    #[error("`path` is `{given}`, an absolute path; give it relative to the workspace")]
    Absolute { given: String },
    #[error("`path` is `{given}`, which leads upwards by `..`; give it relative to the workspace")]
    Upwards { given: String },
    #[error("`path` is `{given}`, part of git's own records, which are not shown")]
    Git { given: String },
    #[error("`path` is `{given}`, {why}, which is not shown")]
    Refused { given: String, why: &'static str },
    #[error("`path` is `{given}`, which does not exist in the workspace")]
    Missing { given: String },
    #[error(
        "`path` is `{given}`, where a symbolic link or a file stands in the way; links are not followed"
    )]
    Blocked { given: String },
    #[error("`path` is `{given}`, a symbolic link, which is not followed; give the file itself")]
    Link { given: String },
    #[error("`path` is `{given}`, a folder; give a file in it")]
    Folder { given: String },
    #[error("`path` is `{given}`, which is neither a file nor a folder (a pipe, socket or device)")]
    Special { given: String },
    #[error("`path` is `{given}`, which cannot be read: {source}")]
    Unreadable { given: String, source: io::Error },
    #[error("the workspace `{given}` was replaced by another folder meanwhile; try again")]
    Replaced { given: String },
    #[error("`path` is `{given}`, a binary file of {bytes} bytes; only text is shown")]
    Binary { given: String, bytes: u64 },
    #[error("`start_line` is {asked}, but `{given}` has {lines} lines")]
    PastEnd { given: String, asked: u64, lines: u64 },
    #[error(
        "`start_line` is {asked}, which is beyond the first {bytes} bytes of `{given}`; only these are looked at"
    )]
    TooFar { given: String, asked: u64, bytes: u64 },
    #[error("`glob` is `{given}`, which is no glob: {why}; an example is `src/**/*.rs`")]
    Glob { given: String, why: String },
    #[error("`pattern` is empty; give a regular expression")]
    NoPattern,
    #[error("`pattern` has {bytes} bytes; give at most {most}")]
    LongPattern { bytes: usize, most: usize },
    #[error(
        "`pattern` is no regular expression that can be used: {why}; escape what is meant literally with `\\`, and search within one line"
    )]
    Pattern { why: String },
    #[error("there is no program `git` on this machine's PATH; install git to see the status")]
    NoGit,
    #[error("no repository begins in the workspace `{given}` (there is no `.git`)")]
    NoRepository { given: String },
    #[error("the repository of `{given}` is not shown, because {why}")]
    Unusual { given: String, why: &'static str },
    #[error("git did not answer within {seconds} seconds")]
    Slow { seconds: u64 },
    #[error("git refused to answer: {why}")]
    GitFailed { why: String },
    #[error("failed to {what}: {source}")]
    Io { what: &'static str, source: io::Error },
}
