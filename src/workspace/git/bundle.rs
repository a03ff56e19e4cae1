//! Keeping commits of a run as a bundle where there is no git to take them.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::host::Ask;
use super::news::News;
use super::start::Repository;
use crate::ids::RunId;

/// Returns true where git is on this machine, for work in `folder`.
pub fn is_here(folder: &Path) -> bool {
    Ask::at(folder).is_some()
}

/// Writes what git inside has packed as a file that `git fetch` reads, with the names that the
/// commits would have had. It is as hostile as the pack. Returns false where nothing was packed.
/// Blocking.
pub fn bundle(
    run: &RunId,
    repository: &Repository,
    folder: &Path,
    news: &News,
    to: &Path,
) -> io::Result<bool> {
    let Some(mut pack) = repository.pack(folder).filter(|_| !news.refs.is_empty()) else {
        return Ok(false);
    };
    // A name at the beginning only says what git has to have already.
    let mut head = match &*repository.format {
        "sha1" => "# v2 git bundle\n".to_owned(),
        format => format!("# v3 git bundle\n@object-format={format}\n"),
    };
    head.extend(repository.commit.iter().map(|id| format!("-{id} \n")));
    let named = (1..).zip(&news.refs);
    head.extend(named.map(|(number, (_, id))| format!("{id} refs/sandbox/{run}/{number}\n")));
    head.push('\n');
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    file.write_all(head.as_bytes())?;
    io::copy(&mut pack, &mut file)?;
    file.sync_all()?;
    Ok(true)
}
