//! Git in a run: remarks on the repository, and in a view of the workspace a copy
//! of its git directory.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::Error;
use super::earlier::Earlier;
use super::overseer::{Overseen, Overseer};
use super::story::Story;
use super::task::Checked;
use crate::config::GitAccess;
use crate::ids::RunId;
use crate::sandbox::{Mount, User};
use crate::workspace::changeset::RelPath;
use crate::workspace::git::{self, Given, Inside};
use crate::workspace::layer::Layer;
use crate::workspace::{Bounds, Mode, Watch};

/// Returns false where the settings keep the repository from the run.
pub fn has_git(task: &Checked) -> bool {
    task.config.workspace.git == GitAccess::History
}

/// Says what of the repository is off inside, and what will not work there.
pub async fn tell(task: &Checked, user: User, story: &mut Story) -> Result<(), Error> {
    if task.mode == Mode::ReadOnly || !has_git(task) {
        return Ok(());
    }
    let (workspace, who) = (task.workspace.path().to_owned(), who(task, user));
    let told = spawn_blocking(move || git::remarks(&workspace, who));
    for remark in told.await.map_err(|_| Error::Looking)? {
        story.remark(&remark);
    }
    Ok(())
}

/// Root of a rootless engine is its user outside, whose files the workspace's are.
fn who(task: &Checked, user: User) -> Inside {
    let owner = task.workspace.owner();
    match (user.uid(), user.gid()) {
        (0, _) => Inside { uid: owner.uid, gid: owner.gid },
        (uid, gid) => Inside { uid, gid },
    }
}

/// Returns the path of the workspace in the working tree that it is a subfolder of.
pub async fn below_top(task: &Checked) -> Result<PathBuf, Error> {
    if !task.has_view() || !has_git(task) {
        return Ok(PathBuf::new());
    }
    let workspace = task.workspace.path().to_owned();
    spawn_blocking(move || git::below_top(&workspace)).await.map_err(|_| Error::Looking)
}

/// Copies the git directory of a workspace into a run's layer. Where that fails there is no git
/// inside, which is said; the run goes on.
pub async fn give(
    task: &Checked,
    user: User,
    inside: &Path,
    layer: &mut Layer,
    story: &mut Story,
) -> Result<Given, Error> {
    if !has_git(task) {
        return Ok(Given::default());
    }
    let folder = layer.git()?;
    let (workspace, who, inside) = (task.workspace.clone(), who(task, user), inside.to_owned());
    let lenders = task.config.workspace.objects.clone();
    let giving = spawn_blocking(move || git::give(&workspace, &inside, who, &folder, &lenders));
    let given = match giving.await.map_err(|_| Error::Looking)? {
        Ok(given) => given,
        Err(error) => Given::nothing(format!("git does not work in this run: failed to {error}")),
    };
    for remark in &given.remarks {
        story.remark(remark);
    }
    let covered = given.covered.iter().filter_map(|place| RelPath::new(place.clone()).ok());
    layer.cover(covered)?;
    Ok(given)
}

/// Sets the copies to the commits that the last run of the session left waiting. Where that fails
/// the run goes on without them, which is said.
pub async fn go_on(
    id: &RunId,
    (task, user): (&Checked, User),
    (earlier, layer): (&Earlier, &Layer),
    given: Given,
    story: &mut Story,
) -> Result<Given, Error> {
    if earlier.commits().is_empty() {
        return Ok(given);
    }
    let (folder, workspace) = (layer.git()?, task.workspace.path().to_owned());
    let id = id.clone();
    let (commits, mut set) = (earlier.commits().to_vec(), given);
    let owner = rustix::process::geteuid().is_root().then(|| {
        let who = who(task, user);
        (who.uid, who.gid)
    });
    let going = move || {
        let done = git::go_on(&id, (&folder, &workspace), &mut set, &commits, owner);
        (set, done)
    };
    let (given, done) = spawn_blocking(going).await.map_err(|_| Error::Looking)?;
    if let Err(why) = done {
        story.remark(&format!(
            "commits that the session's last run left waiting are not on this run's branch: {why}"
        ));
    }
    Ok(given)
}

/// Refuses a sandbox that may have been given something else than was found.
pub fn recheck(given: &Given) -> Result<(), Error> {
    if given.is_as_it_was() {
        return Ok(());
    }
    let stores = given.repositories.iter().flat_map(|repository| &repository.stores);
    let given = stores.map(|store| store.display().to_string()).next().unwrap_or_default();
    Err(crate::workspace::Error::Replaced { given }.into())
}

/// The mounts of a copy, as the policy has them.
pub fn mounts(given: &Given) -> impl Iterator<Item = Mount> + '_ {
    given.mounts.iter().map(|mount| Mount {
        what: mount.what.to_string(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
        overlay: None,
    })
}

/// Watches the growth of what git keeps of a run, in the same bounds as its files.
pub async fn oversee(
    mut overseers: Vec<Overseer>,
    task: &Checked,
    layer: Option<&Layer>,
) -> Result<Vec<Overseer>, Error> {
    if let Some(layer) = layer {
        let limits = &task.config.limits;
        let bounds = Bounds { bytes: limits.disk.bytes(), files: limits.files };
        let folder = layer.git()?;
        let watch = spawn_blocking(move || Watch::start(&folder, bounds));
        let watch = watch.await.map_err(|_| Error::Looking)??;
        overseers.push(Overseer::new(watch, Overseen::Overgrown, layer.sign()));
    }
    Ok(overseers)
}
