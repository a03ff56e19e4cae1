//! Beginning a run of a session with the commits that an earlier one left waiting: the copy of the
//! git directory is set to them. The user's repository has their objects.

use std::path::Path;

use super::bring::{Brought, HEAD};
use super::copy::Copier;
use super::give::Given;
use super::quarantine::Quarantine;
use super::start::{Repository, note};
use super::users::Users;
use crate::ids::RunId;

/// Sets the copies below `folder` to where `earlier` left their repositories, as far as these are
/// still as before it. `owner` is whose the copies are, where that is to be said. Blocking.
pub fn go_on(
    run: &RunId,
    (folder, workspace): (&Path, &Path),
    given: &mut Given,
    earlier: &[Brought],
    owner: Option<(u32, u32)>,
) -> Result<(), String> {
    let mut copier = Copier::new(owner);
    for repository in &mut given.repositories {
        let Some(one) = earlier.iter().find(|one| one.is_ahead_of(repository)) else { continue };
        let top = repository.top(workspace);
        set(run, folder, repository, &mut copier, (one, Users::of(&repository.git, &top)?))?;
        repository.began = Some((one.to.clone(), one.new_index.clone()));
    }
    note(folder, given).map_err(|error| error.to_string())
}

fn set(
    run: &RunId,
    folder: &Path,
    repository: &Repository,
    copier: &mut Copier,
    (one, users): (&Brought, Users<'_>),
) -> Result<(), String> {
    let (own, common) = repository.copies(folder);
    if let Some(tree) = &one.new_index {
        let quarantine = Quarantine::make(run, repository, users)?;
        let index = quarantine.index_of(tree, &own.join("index"))?;
        copier.write(&own.join("index"), &index).map_err(|error| error.to_string())?;
    }
    let (Some(branch), Some(to)) = (&one.branch, &one.to) else { return Ok(()) };
    let base = if branch == HEAD { &own } else { &common };
    let name = Path::new(branch);
    copier
        .folders(base, name.parent().unwrap_or(Path::new("")))
        .and_then(|at| {
            let file = at.join(name.file_name().unwrap_or_default());
            copier.write(&file, format!("{to}\n").as_bytes())
        })
        .map_err(|error| error.to_string())
}
