//! Why a gateway cannot be opened or closed.

use std::io;
use std::path::PathBuf;

use crate::model;

/// The messages complete "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("make the private folder {path}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("give {path} to the sandbox's user {uid}:{gid}: {source}")]
    Owner { path: PathBuf, uid: u32, gid: u32, source: io::Error },
    #[error(
        "open the socket {path}: its path has {length} bytes, and a socket's may have {most}; \
         choose a shorter state folder (SANDBOX_MCP_STATE_DIR)"
    )]
    PathTooLong { path: PathBuf, length: usize, most: usize },
    #[error("open the socket {path}: {source}")]
    Bind { path: PathBuf, source: io::Error },
    #[error("use the credential for {host:?}: {why}")]
    Credential { host: String, why: &'static str },
    #[error("make the certificates of this run: {why}")]
    Authority { why: String },
    #[error("open host port 0: ports are 1 to 65535")]
    HostPort,
    #[error("remove {path}: {source}; remove it by hand")]
    Remove { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Model(#[from] model::Error),
}
