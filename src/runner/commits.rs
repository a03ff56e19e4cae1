//! Commits of a run: packed by git inside when nothing else lives there, and taken into the user's
//! repository from the copy of its git directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::outcome::OutcomeError;
use crate::history::Entry;
use crate::sandbox::{Line, Order, Sandbox};
use crate::text::{count, one_line};
use crate::workspace::changeset::{
    CollectError, Collected, RelPath, add_repository, protected_files,
};
use crate::workspace::git::{
    self, Brought, PACK_BYTES, Repository, bring, bundle, made, noted, read_brought, rebuild,
    write_brought,
};
use crate::workspace::layer::Layer;
use crate::workspace::mirror;
use crate::workspace::{Commits, WorkspacePath};

/// Time for git inside, for all repositories.
const PACKING: Duration = Duration::from_secs(60);

/// Prints the tree of the index, and packs what is named on the input.
const SCRIPT: &str = r#"cd "$1" && export GIT_DIR="$2" GIT_WORK_TREE="$1" || exit 1
rm -rf "$3" || exit 1
# What the sandbox is allowed may be less.
ulimit -S -f "$4" 2>/dev/null || :
tree=$(git write-tree 2>/dev/null) && echo "tree $tree"
{ [ -z "$tree" ] || echo "$tree"; cat; } |
  git -c core.compression=-1 -c pack.compression=-1 pack-objects --revs --thin -q --stdout >"$3""#;

/// Packs and trees that git inside has made.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    /// Trees of the indexes inside, by the places of their repositories.
    trees: HashMap<PathBuf, String>,
    /// Repositories that the run made.
    made: Vec<Repository>,
    remarks: Vec<String>,
}

impl Packed {
    fn tree(&self, repository: &Repository) -> Option<&str> {
        self.trees.get(&repository.place).map(String::as_str)
    }
}

/// Returns true where a layer has something for git inside to pack. Blocking.
pub fn are_in(layer: &Layer) -> bool {
    let (Ok(folder), Some(setup)) = (layer.git(), layer.setup()) else { return false };
    let (made, _) = made(&layer.written(), layer.workspace(), &setup.inside);
    !made.is_empty() || noted(&folder).repositories.iter().any(|one| one.news(&folder).is_some())
}

/// Has git inside pack what is new. Nothing else may live in the sandbox. Returns none where it
/// breaks down, so that another sandbox has to.
pub async fn pack(sandbox: &mut Sandbox, layer: &Layer) -> Option<Packed> {
    let mut packed = Packed::default();
    let inside = layer.setup().map(|setup| setup.inside.clone()).unwrap_or_default();
    let packing = async {
        let Ok(folder) = layer.git() else { return true };
        if let Err(error) = sandbox.bring_back(mirror::take).await {
            tracing::warn!("{error}");
            return false;
        }
        let (written, workspace) = (layer.written(), layer.workspace().to_owned());
        let looked = spawn_blocking(move || made(&written, &workspace, &inside)).await;
        let (made, is_more) = looked.unwrap_or_default();
        if is_more {
            let told = "the run made more repositories than come back; their files do";
            packed.remarks.push(told.to_owned());
        }
        packed.made = made;
        for repository in noted(&folder).repositories.into_iter().chain(packed.made.clone()) {
            let (found, place) = (repository.clone(), folder.clone());
            let Ok(Some(news)) = spawn_blocking(move || found.news(&place)).await else { continue };
            let paths = [&repository.worktree, &repository.inside, &repository.pack_inside()];
            let mut argv = ["/bin/sh", "-c", SCRIPT, "sh"].map(str::to_owned).to_vec();
            argv.extend(paths.map(|path| path.display().to_string()));
            // In blocks, as `ulimit` counts.
            argv.push((PACK_BYTES / 512).to_string());
            let mut environment = git::variables();
            environment.push(("HOME".to_owned(), "/nonexistent".to_owned()));
            let wanted = news.wanted(&repository);
            let order = Order { argv: &argv, environment: &environment, task: wanted.as_bytes() };
            if sandbox.order(&order).is_err() {
                return false;
            }
            loop {
                match sandbox.next_line().await {
                    Some(Ok(Line::Stdout(line))) => {
                        if let Some(tree) = line.strip_prefix("tree ") {
                            packed.trees.insert(repository.place.clone(), tree.to_owned());
                        }
                    }
                    Some(Ok(Line::Ended(_))) => break,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return false,
                }
            }
        }
        true
    };
    let is_done = timeout(PACKING, packing).await.unwrap_or_else(|_| {
        tracing::warn!("git in the sandbox did not pack in time what the run committed");
        true
    });
    is_done.then_some(packed)
}

/// Makes repositories of a run again, and adds them to what it changed. Blocking.
pub fn rebuild_all(
    entry: &Entry,
    layer: &Layer,
    packed: &Packed,
    collected: &mut Collected,
) -> Result<(), CollectError> {
    collected.remarks.extend(packed.remarks.iter().cloned());
    for repository in &packed.made {
        let Some(news) = repository.news(Path::new("/")) else { continue };
        let git = repository.place.join(".git");
        let shown = one_line(&git.display().to_string(), 160);
        match rebuild(repository, layer, &news, packed.tree(repository)) {
            Ok(built) => {
                let commits = count(built.commits, "commit");
                let (places, files) = ((&*git, &*built.git), built.files);
                add_repository(collected, places, files, (layer, &entry.blobs()))?;
                collected.remarks.push(match &*built.dropped.join(", ") {
                    "" => format!("the run made the repository `{shown}`, with {commits}"),
                    dropped => format!(
                        "the run made the repository `{shown}`, with {commits}; these of \
                         its settings stay behind: {dropped}"
                    ),
                });
            }
            Err(why) => {
                collected.repositories.retain(|other| *other != git);
                collected.remarks.push(format!(
                    "the repository `{shown}`, which the run made, does not come back: {why}; its \
                     files do"
                ));
            }
        }
    }
    Ok(())
}

/// Takes what was packed into the user's repositories, and notes it in the record. Returns what a
/// report tells, and remarks. Blocking.
pub fn take(
    entry: &Entry,
    layer: &Layer,
    packed: &Packed,
) -> Result<(Option<Commits>, Vec<String>), std::io::Error> {
    let (mut all, mut remarks) = (Vec::new(), Vec::new());
    let Ok(folder) = layer.git() else { return Ok((None, remarks)) };
    let has_git = git::is_here(layer.workspace());
    for (number, repository) in noted(&folder).repositories.into_iter().enumerate() {
        let Some(news) = repository.news(&folder) else { continue };
        let places = (&*folder, layer.workspace());
        let file = entry.bundle(number + 1);
        if !has_git && bundle(entry.id(), &repository, &folder, &news, &file)? {
            remarks.push(format!(
                "there is no git on this machine, so the run's commits are in {}, unchecked: \
                 `git fetch {0} 'refs/sandbox/*:refs/sandbox/*'` takes them where git is",
                file.display()
            ));
        } else if has_git {
            match bring(entry.id(), &repository, places, &news, packed.tree(&repository)) {
                Ok(brought) => all.extend(brought),
                Err(why) => remarks.push(format!(
                    "commits and branches that the run made did not come back: {why}; its files \
                     are kept"
                )),
            }
        }
        if news.truncated {
            remarks.push("the run made more than 1,000 references; the others are lost".to_owned());
        }
        for gone in news.deleted.iter().take(3) {
            remarks.push(format!("the run deleted {gone}, which stays in your repository"));
        }
    }
    if all.is_empty() {
        return Ok((None, remarks));
    }
    write_brought(&entry.commits(), &all)?;
    Ok((told(entry, &all), remarks))
}

/// Tells of commits as a report does; none where nothing came back.
fn told(entry: &Entry, all: &[Brought]) -> Option<Commits> {
    let list = all.iter().flat_map(|one| &one.commits);
    (!all.is_empty()).then(|| Commits {
        count: all.iter().map(|one| one.count).sum(),
        list: list.take(20).cloned().collect(),
        refs: format!("refs/sandbox/{}/", entry.id()),
        branch: all.iter().find_map(|one| one.branch.clone()),
        moved: all.iter().any(|one| one.moved) && !all.iter().any(Brought::is_pending),
    })
}

/// Commits that a run made; none where it made none.
pub fn commits_of(entry: &Entry) -> Result<Option<Commits>, OutcomeError> {
    Ok(told(entry, &read(entry)?))
}

/// Reads what came back of a run's commits. Blocking.
pub fn read(entry: &Entry) -> Result<Vec<Brought>, OutcomeError> {
    let path = entry.commits();
    read_brought(&path).map_err(OutcomeError::io(&path))
}

fn write(entry: &Entry, all: &[Brought]) -> Result<(), OutcomeError> {
    let path = entry.commits();
    write_brought(&path, all).map_err(OutcomeError::io(&path))
}

/// Notes which of the user's branches are to be moved to where the run left them, when all its files
/// are applied: all of them, or none. Returns why they stay. `protected` are configured places that
/// need a yes, which `agreed` is. Blocking.
pub fn intend(
    entry: &Entry,
    workspace: &WorkspacePath,
    protected: &[String],
    agreed: bool,
) -> Result<Vec<String>, OutcomeError> {
    let mut all = read(entry)?;
    let (id, mut remarks) = (entry.id(), Vec::new());
    for one in all.iter().filter(|one| !agreed && one.is_pending()) {
        if let Some((path, why)) = held(one, workspace, protected)? {
            remarks.push(format!(
                "the branch was not moved, because the run's commits change {path} ({why}): `git \
                 log refs/sandbox/{id}/1` shows them, `sandbox-mcp apply {id} --allow-protected` \
                 moves it"
            ));
        }
    }
    if all.iter().any(|one| one.is_pending() || one.wanted) {
        for one in &mut all {
            one.wanted = remarks.is_empty() && one.is_pending();
        }
        write(entry, &all)?;
    }
    Ok(remarks)
}

/// Moves the branches that are to be moved and were not yet; or none, where the files are not whole.
/// Returns what is told of it, and why a branch stays. Blocking.
pub fn advance(
    entry: &Entry,
    is_whole: bool,
) -> Result<(Option<Commits>, Vec<String>), OutcomeError> {
    let path = entry.commits();
    let done = if is_whole { git::follow(&path) } else { git::stay(&path) };
    done.map_err(OutcomeError::io(&path))?;
    let (all, id) = (read(entry)?, entry.id());
    let mut remarks = Vec::new();
    if !is_whole {
        return Ok((None, remarks));
    }
    for why in all.iter().filter_map(|one| one.why.as_ref()).take(1) {
        remarks.push(format!(
            "the run's commits are in refs/sandbox/{id}/ and on no branch: {why}; `git merge \
             refs/sandbox/{id}/1` takes them"
        ));
    }
    if all.iter().any(|one| one.branch.is_none() && one.count > 0) {
        remarks.push(format!(
            "the run's commits are in refs/sandbox/{id}/ and on no branch, because it ended on \
             another one than it began on: `git branch NAME refs/sandbox/{id}/1` makes one of them"
        ));
    }
    Ok((told(entry, &all), remarks))
}

/// The first path in new commits that needs a yes, and why; or that they cannot be looked into.
fn held(
    one: &Brought,
    workspace: &WorkspacePath,
    protected: &[String],
) -> Result<Option<(String, String)>, OutcomeError> {
    let files = one.files().and_then(|files| {
        let files = files.into_iter().map(|file| {
            RelPath::new(file).map_err(|_| "one has a path that no file here can have".to_owned())
        });
        files.collect::<Result<Vec<_>, _>>()
    });
    match files {
        Ok(files) => {
            let found = protected_files(workspace, protected, files)?;
            Ok(found.first().map(|(path, why)| (path.to_string(), (*why).to_owned())))
        }
        Err(why) => Ok(Some(("more than can be judged".to_owned(), why))),
    }
}

/// Moves the branches back that applying has moved: all, or none and why.
pub fn retreat(entry: &Entry) -> Result<bool, OutcomeError> {
    let mut all = read(entry)?;
    let mut back = Vec::new();
    for at in (0..all.len()).filter(|at| all[*at].moved).collect::<Vec<_>>() {
        if let Err(why) = all[at].retreat() {
            for at in back {
                again(&mut all[at]);
            }
            return Err(OutcomeError::Branch { run: entry.id().clone(), why });
        }
        back.push(at);
    }
    if !back.is_empty() {
        write(entry, &all)?;
    }
    Ok(!back.is_empty())
}

/// Moves branches again that [`retreat`] has moved, because the files stay.
pub fn restore(entry: &Entry) -> Result<(), OutcomeError> {
    let mut all = read(entry)?;
    all.iter_mut().filter(|one| one.is_pending()).for_each(again);
    write(entry, &all)
}

fn again(one: &mut Brought) {
    if let Err(why) = one.advance() {
        tracing::warn!("a branch was moved back, and the files were not: {why}");
    }
}

/// Removes the references of a run whose record goes.
pub fn forget_commits(entry: &Entry) {
    if let Err(error) = forget(entry) {
        tracing::warn!("references of run {} may remain: {error}", entry.id());
    }
}

/// Removes the references of a run from the user's repositories. What is needed to undo stays.
pub fn forget(entry: &Entry) -> Result<(), OutcomeError> {
    let mut all = read(entry)?;
    for one in &mut all {
        if let Err(why) = one.forget() {
            tracing::warn!("references of run {} remain in a repository: {why}", entry.id());
        }
    }
    if all.is_empty() { Ok(()) } else { write(entry, &all) }
}
