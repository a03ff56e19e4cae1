//! Checking what git inside has packed, before it is in the user's repository.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

use super::news::PACK_BYTES;
use super::read::{open_absolute, open_file, small};
use super::start::{Repository, index};
use super::users::{Users, input, said};
use crate::ids::RunId;

/// Most of the list of commits at which a shallow history ends.
const SHALLOW: u64 = 64 << 20;

/// A repository that borrows the user's objects, for objects that are not checked yet.
pub(super) struct Quarantine<'a> {
    folder: TempDir,
    git: PathBuf,
    users: Users<'a>,
}

impl<'a> Quarantine<'a> {
    /// A folder where the owner of the repository reaches it. The name is the same for the same
    /// run, which comes again after a crash; `git gc` removes it, too.
    pub fn make(run: &RunId, repository: &Repository, users: Users<'a>) -> Result<Self, String> {
        let objects = repository.common.join("objects");
        open_absolute(&objects).map_err(|errno| errno.to_string())?;
        let name = format!("tmp_objdir-sandbox-mcp-{run}");
        match std::fs::remove_dir_all(objects.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
            _ => {}
        }
        let folder = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in(objects);
        let folder = folder.map_err(|error| error.to_string())?;
        let quarantine = Self { git: folder.path().join("git"), folder, users };
        users.own(quarantine.folder.path())?;
        Ok(quarantine)
    }

    /// The tree of the user's index, where it is as at the start. Git writes into an index when it
    /// is asked for its tree, so a copy is asked.
    pub fn old_index(&self, repository: &Repository) -> Result<Option<String>, String> {
        let users = self.users;
        let copy = self.folder.path().join("index");
        let git = open_absolute(&repository.git).map_err(|errno| errno.to_string())?;
        if let Ok(mut theirs) = open_file(git.as_fd(), "index".as_ref()) {
            let mut ours = File::create_new(&copy).map_err(|error| error.to_string())?;
            io::copy(&mut theirs, &mut ours).map_err(|error| error.to_string())?;
            users.own(&copy)?;
        }
        let asked = users.ask()?.env("GIT_INDEX_FILE", &copy);
        let Ok(now) = said(asked, &["write-tree"]) else { return Ok(None) };
        let now = now.trim().to_owned();
        if index(&repository.git) == repository.index {
            return Ok(Some(now));
        }
        // A look refreshes an index. What is as the last commit has nothing that the user staged.
        let Some(commit) = &repository.commit else { return Ok(None) };
        let last = users.tree(&["rev-parse", "--verify", &format!("{commit}^{{tree}}")]);
        Ok(last.filter(|last| *last == now))
    }

    /// An index of a tree. What git knows of each file in the index at `path` stays; before the
    /// first file there is none.
    pub fn index_of(&self, tree: &str, path: &Path) -> Result<Vec<u8>, String> {
        let copy = self.folder.path().join("index");
        match std::fs::copy(path, &copy) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => {
                copied.map_err(|error| error.to_string())?;
                self.users.own(&copy)?;
            }
        }
        let asked = self.users.ask()?.env("GIT_INDEX_FILE", &copy);
        said(asked, &["read-tree", "-i", "-m", tree])?;
        std::fs::read(&copy).map_err(|error| error.to_string())
    }

    /// Checks the pack, and has the user's repository fetch what it has. Returns the references.
    pub fn take(
        &self,
        run: &RunId,
        repository: &Repository,
        folder: &Path,
        ids: &[&String],
    ) -> Result<Vec<String>, String> {
        let users = self.users;
        let pack = repository.pack(folder).ok_or("git in the sandbox wrote no pack")?;
        let place = self.git.to_str().ok_or("the name of the repository is not UTF-8")?;
        let format = format!("--object-format={}", repository.format);
        let init = ["init", "--quiet", "--bare", "--template=", &format, place];
        said(users.at(&self.git)?, &init)?;
        let mut stores = String::new();
        for store in &repository.stores {
            let store = store.to_str().filter(|store| !store.contains(['\n', '"']));
            stores.push_str(store.ok_or("an object store has an odd name")?);
            stores.push('\n');
        }
        std::fs::write(self.git.join("objects/info/alternates"), stores)
            .map_err(|error| error.to_string())?;
        let common = open_absolute(&repository.common).map_err(|errno| errno.to_string())?;
        if let Some(shallow) = small(common.as_fd(), "shallow", SHALLOW) {
            std::fs::write(self.git.join("shallow"), shallow).map_err(|error| error.to_string())?;
        }
        index_pack(users, &self.git, pack)?;
        let refs: Vec<String> =
            (1..=ids.len()).map(|number| format!("refs/sandbox/{run}/{number}")).collect();
        let named = refs.iter().zip(ids);
        let created: String =
            named.flat_map(|(name, id)| ["create ", name, " ", id.as_str(), "\n"]).collect();
        said(users.at(&self.git)?.input(input(&created)?), &["update-ref", "--stdin"])?;
        let all = format!("+refs/sandbox/{run}/*:refs/sandbox/{run}/*");
        let ask = users.ask()?.env("GIT_ALLOW_PROTOCOL", "file");
        // Settings of the repository name no program here.
        let ask = ask.args(["-c", "core.alternateRefsCommand=true", "-c", "gc.auto=0"]);
        said(
            ask,
            &[
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-prune",
                "--no-auto-maintenance",
                "--no-recurse-submodules",
                "--refmap=",
                "--update-shallow",
                "--upload-pack=git-upload-pack",
                place,
                &all,
            ],
        )?;
        Ok(refs)
    }
}

/// Checks a pack from inside and all that its objects name, and takes it into the repository `git`.
pub(super) fn index_pack(users: Users<'_>, git: &Path, mut pack: File) -> Result<(), String> {
    // Git refuses a pack of nothing, which is what is new of a branch on an old commit.
    if objects(&mut pack).map_err(|error| error.to_string())? == 0 {
        return Ok(());
    }
    let most = format!("--max-input-size={PACK_BYTES}");
    let ask = users.bounded_at(git)?.input(Stdio::from(pack));
    said(ask, &["index-pack", "--stdin", "--strict", "--fsck-objects", "--fix-thin", &most])?;
    Ok(())
}

/// The number of objects in a pack, which is read from its beginning afterwards.
fn objects(pack: &mut File) -> io::Result<u32> {
    let mut header = [0; 12];
    pack.read_exact(&mut header)?;
    pack.rewind()?;
    let [.., a, b, c, d] = header;
    Ok(u32::from_be_bytes([a, b, c, d]))
}
