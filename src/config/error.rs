//! What can be wrong with settings, said with the place and the remedy.

use std::io;
use std::path::PathBuf;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{named_by} names `{}`, which does not exist; create it or name another", .path.display())]
    Missing { named_by: &'static str, path: PathBuf },
    #[error("cannot read `{}`: {source}; make it readable or name another with `--config`", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot read `{}`: {source}; mend or remove it", .path.display())]
    Project { path: PathBuf, source: io::Error },
    #[error(
        "{place}: `{key}` is about the whole machine and not a project's to set; put it into your own file"
    )]
    NotAProjects { place: String, key: String },
    #[error("{place}: {message}")]
    Syntax { place: String, message: String },
    #[error("{place}: `{key}` is not a setting; {suggestion}")]
    Unknown { place: String, key: String, suggestion: String },
    #[error("{place}: `{key}` is {found}; it must be {expected}, such as `{example}`")]
    Type { place: String, key: String, found: String, expected: String, example: String },
    #[error("{place}: `{key}`: {message}; it looks like `{example}`")]
    Inside { place: String, key: String, message: String, example: String },
    #[error("{place}: `{key}` is {value}; allowed: {allowed}")]
    NotAllowed { place: String, key: &'static str, value: String, allowed: String },
    #[error("the environment variable {variable} is not valid UTF-8; set it to plain text")]
    NotUnicode { variable: &'static str },
    #[error("there is no home folder to keep records in; set HOME or SANDBOX_MCP_STATE_DIR")]
    NoHome,
    #[error("cannot use the folder `{}`: {source}; make it accessible to this user", .path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("`{}` {what}, so sockets kept there would not be private; remove it or set XDG_RUNTIME_DIR to a folder of your own", .path.display())]
    NotOurs { path: PathBuf, what: &'static str },
}
