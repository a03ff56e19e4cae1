//! Commits of a run: packed by git inside when nothing else lives there, and taken into the user's
//! repository from the copy of its git directory.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::outcome::OutcomeError;
use crate::files::{Durability, write_json};
use crate::history::Entry;
use crate::sandbox::{Line, Order, Sandbox};
use crate::workspace::Commits;
use crate::workspace::git::{self, Brought, bring, noted};
use crate::workspace::layer::Layer;

/// How long git inside may take for all repositories.
const PACKING: Duration = Duration::from_secs(60);

/// Largest pack, in blocks of 512 bytes as `ulimit` counts, and in bytes.
const BLOCKS: u64 = 4 << 20;
const BYTES: u64 = BLOCKS * 512;

/// Prints the tree of the index, and packs what is named on the input.
const SCRIPT: &str = r#"cd "$1" && export GIT_DIR="$2" GIT_WORK_TREE="$1" || exit 1
rm -rf "$3" && ulimit -f "$4" || exit 1
tree=$(git write-tree 2>/dev/null) && echo "tree $tree"
{ [ -z "$tree" ] || echo "$tree"; cat; } |
  git -c core.compression=-1 -c pack.compression=-1 pack-objects --revs --thin -q --stdout >"$3""#;

/// Trees of the indexes inside, by the places of their repositories.
pub type Trees = HashMap<PathBuf, String>;

/// Has git inside pack what is new. Nothing else may live in the sandbox.
pub async fn pack(sandbox: &mut Sandbox, layer: &Layer) -> Trees {
    let mut trees = Trees::new();
    let packing = async {
        let Ok(folder) = layer.git() else { return };
        for repository in noted(&folder) {
            let (found, place) = (repository.clone(), folder.clone());
            let Ok(Some(news)) = spawn_blocking(move || found.news(&place)).await else { continue };
            let paths = [&repository.worktree, &repository.inside, &repository.pack_inside()];
            let mut argv = ["/bin/sh", "-c", SCRIPT, "sh"].map(str::to_owned).to_vec();
            argv.extend(paths.map(|path| path.display().to_string()));
            argv.push(BLOCKS.to_string());
            let mut environment = git::variables();
            environment.push(("HOME".to_owned(), "/nonexistent".to_owned()));
            let wanted = news.wanted(&repository);
            let order = Order { argv: &argv, environment: &environment, task: wanted.as_bytes() };
            if sandbox.order(&order).await.is_err() {
                return;
            }
            loop {
                match sandbox.next_line().await {
                    Some(Ok(Line::Stdout(line))) => {
                        if let Some(tree) = line.strip_prefix("tree ") {
                            trees.insert(repository.place.clone(), tree.to_owned());
                        }
                    }
                    Some(Ok(Line::Ended(_))) => break,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                }
            }
        }
    };
    if timeout(PACKING, packing).await.is_err() {
        tracing::warn!("git in the sandbox did not pack in time what the run committed");
    }
    trees
}

/// Takes what was packed into the user's repositories, and notes it in the record. Blocking.
pub fn take(
    entry: &Entry,
    layer: &Layer,
    trees: &Trees,
    protected: &[String],
) -> Result<(Option<Commits>, Vec<String>), std::io::Error> {
    let (mut all, mut remarks) = (Vec::new(), Vec::new());
    let Ok(folder) = layer.git() else { return Ok((None, remarks)) };
    for repository in noted(&folder) {
        let Some(news) = repository.news(&folder) else { continue };
        let owner = owner_of(&repository.git)?;
        let tree = trees.get(&repository.place).map(String::as_str);
        if news.refs.is_empty() && tree.is_none() && news.deleted.is_empty() {
            continue;
        }
        let whose = (layer.workspace(), owner);
        let run = (entry.id(), &repository);
        let brought = bring(run, &folder, whose, &news, (tree, BYTES), protected);
        if let Some(why) = &brought.trouble {
            remarks.push(format!(
                "commits and branches that the run made did not come back: {why}; its files are kept"
            ));
        }
        if news.truncated {
            remarks.push("the run made more than 1,000 references; the others are lost".to_owned());
        }
        for gone in brought.deleted.iter().take(3) {
            remarks.push(format!("the run deleted {gone}, which stays in your repository"));
        }
        all.push(brought);
    }
    if all.is_empty() {
        return Ok((None, remarks));
    }
    write_json(&entry.commits(), &all, Durability::Durable)?;
    Ok((told(entry, &all), remarks))
}

fn owner_of(git: &Path) -> Result<(u32, u32), std::io::Error> {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(git).map(|found| (found.uid(), found.gid()))
}

/// Tells of commits as a report does; none where a look into the index was all.
fn told(entry: &Entry, all: &[Brought]) -> Option<Commits> {
    let count = all.iter().map(|one| one.count).sum();
    let pending = all.iter().any(Brought::is_pending);
    let named = all.iter().any(|one| one.refs.iter().any(|it| it.inside != "the index"));
    let list = all.iter().flat_map(|one| &one.commits);
    let list = list.map(|one| format!("{} {}", crate::text::prefix(&one.id, 12), one.subject));
    (named || pending).then(|| Commits {
        count,
        list: list.take(20).collect(),
        refs: format!("refs/sandbox/{}/", entry.id()),
        branch: all.iter().find_map(|one| one.branch.clone()),
        moved: !pending && all.iter().any(|one| one.moved),
    })
}

/// What came back of a run; nothing where it made no commits.
pub fn brought(entry: &Entry) -> Result<Vec<Brought>, OutcomeError> {
    let path = entry.commits();
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| OutcomeError::io(&path)(std::io::Error::other(error))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(OutcomeError::io(&path)(error)),
    }
}

/// Moves the user's branches to where the run left them, when all its files are applied. Returns
/// what is told of it.
pub fn advance(
    entry: &Entry,
    agreed: bool,
    dry_run: bool,
) -> Result<(Option<Commits>, Vec<String>), OutcomeError> {
    let (mut all, mut remarks) = (brought(entry)?, Vec::new());
    let id = entry.id();
    for one in all.iter_mut().filter(|one| one.is_pending()) {
        if let Some(path) = one.protected.first().filter(|_| !agreed) {
            remarks.push(format!(
                "the branch was not moved, because the run's commits change {path}, which programs \
                 on this machine trust: `git log refs/sandbox/{id}/1` shows them, `sandbox-mcp \
                 apply {id} --allow-protected` moves it"
            ));
            continue;
        }
        if dry_run {
            continue;
        }
        let owner = owner_of(&one.git).map_err(OutcomeError::io(&one.git))?;
        if let Err(why) = one.advance(owner) {
            remarks.push(format!(
                "the run's commits are in refs/sandbox/{id}/ and on no branch: {why}; `git merge \
                 refs/sandbox/{id}/1` takes them"
            ));
        }
    }
    if !all.is_empty() && !dry_run {
        let path = entry.commits();
        write_json(&path, &all, Durability::Durable).map_err(OutcomeError::io(&path))?;
    }
    Ok((told(entry, &all), remarks))
}

/// Moves the branches back that applying has moved. Returns why one stays.
pub fn retreat(entry: &Entry) -> Result<Vec<String>, OutcomeError> {
    let (mut all, mut remarks) = (brought(entry)?, Vec::new());
    for one in all.iter_mut().filter(|one| one.moved) {
        let owner = owner_of(&one.git).map_err(OutcomeError::io(&one.git))?;
        if let Err(why) = one.retreat(owner) {
            remarks.push(format!("the branch was not moved back: {why}"));
        }
    }
    if !all.is_empty() {
        let path = entry.commits();
        write_json(&path, &all, Durability::Durable).map_err(OutcomeError::io(&path))?;
    }
    Ok(remarks)
}

/// Removes the references of a run from the user's repositories.
pub fn forget(entry: &Entry) -> Result<(), OutcomeError> {
    for one in brought(entry)? {
        let Ok(owner) = owner_of(&one.git) else { continue };
        if let Err(why) = one.forget(owner) {
            tracing::warn!("references of run {} remain in a repository: {why}", entry.id());
        }
    }
    let path = entry.commits();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(OutcomeError::io(&path)(error))
        }
        _ => Ok(()),
    }
}
