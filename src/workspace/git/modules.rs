//! The git directories of submodules, which are kept in that of their repository.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::copy::{Part, names};
use super::find::{Found, Refused, stores, worktree_of};
use super::give::{Finish, Giving, Stopped};
use super::read::{is_folder, line, look, open_absolute, resolved};

/// Most submodules of one repository, and how deep their names and they themselves go.
const SUBMODULES: usize = 256;
const DEEPEST: usize = 16;

impl Giving<'_> {
    /// Copies the git directories of submodules that are kept in another one, `git`.
    pub fn modules(
        &mut self,
        git: BorrowedFd<'_>,
        found: &Found,
        to: &Path,
        inside: &Path,
        depth: usize,
    ) -> Result<(), Stopped> {
        if !is_folder(git, "modules") || depth >= DEEPEST {
            return Ok(());
        }
        let mut below = vec![PathBuf::from("modules")];
        while let Some(name) = below.pop() {
            let path = found.git.join(&name);
            let Ok(opened) = open_absolute(&path) else { continue };
            let opened = opened.as_fd();
            let is_git = look(opened, "HEAD").is_some() && is_folder(opened, "objects");
            if !is_git {
                let folders =
                    names(opened).into_iter().filter(|(_, kind)| *kind == FileType::Directory);
                if name.components().count() < DEEPEST {
                    below.extend(folders.take(SUBMODULES).map(|(part, _)| name.join(part)));
                }
                continue;
            }
            if self.given.repositories.len() > SUBMODULES {
                let told = "the repository has more submodules than are looked at";
                self.given.remarks.push(told.to_owned());
                return Ok(());
            }
            let module = Found { git: path.clone(), common: path.clone(), pointer: None };
            let here = inside.join(&name);
            let stores = match stores(&path, &self.within) {
                Ok(stores) => stores,
                Err(Refused(why)) => {
                    let why = format!("of the submodule {}: {why}", name.display());
                    self.given.remarks.push(why);
                    continue;
                }
            };
            let checked_out = self.checked_out(&path, opened);
            let worktree = checked_out.as_ref().map(|(place, _)| self.inside.join(place));
            let into = self.copier.folders(to, &name)?;
            self.copier.part(opened, &into, Part::Whole, worktree.as_deref())?;
            self.finish(Finish {
                found: &module,
                stores,
                to: &into,
                own: &into,
                inside: &here,
                own_inside: &here,
                place: checked_out.as_ref().map(|(place, _)| place.clone()),
            })?;
            if let Some((place, pointer)) = checked_out {
                self.point(&place, &pointer, &here)?;
            }
            self.modules(opened, &module, &into, &here, depth + 1)?;
        }
        Ok(())
    }

    /// Where in the workspace a submodule is checked out, and what its `.git` file says.
    fn checked_out(&self, git: &Path, opened: BorrowedFd<'_>) -> Option<(PathBuf, String)> {
        let worktree = worktree_of(git, opened)?;
        let place = worktree.strip_prefix(self.top).ok()?.to_owned();
        if !place.starts_with(self.prefix) {
            return None;
        }
        let folder = open_absolute(&worktree).ok()?;
        let pointer = line(folder.as_fd(), ".git")?;
        let pointer = pointer.strip_prefix("gitdir:")?.trim().to_owned();
        (resolved(&worktree, &pointer) == git).then_some((place, pointer))
    }
}
