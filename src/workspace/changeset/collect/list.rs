//! The list of changes, from what a collection has found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Collector, Found, renames};
use crate::workspace::changeset::{Alteration, Manifest, RelPath, Skipped, VERSION};

impl Collector<'_> {
    pub(super) fn manifest(self, workspace: &Path) -> Manifest {
        let mut complete = self.complete;
        let mut checked = |path: PathBuf| {
            let path = RelPath::new(path).ok();
            complete &= path.is_some();
            path
        };
        let mut changes: Vec<_> = self
            .found
            .into_iter()
            .filter_map(|(path, Found { before, after, moved, written })| {
                let path = checked(path)?;
                Some(Alteration { path, before, after, from: None, base_moved: moved, written })
            })
            .collect();
        renames::find(&mut changes);
        let both: Vec<RelPath> = self.both.into_iter().filter_map(&mut checked).collect();
        let repositories = self.repositories.into_keys().map(|path| (path, "inside .git"));
        let skipped: BTreeMap<_, _> = self.skipped.into_iter().chain(repositories).collect();
        let skipped = skipped
            .into_iter()
            .filter_map(|(path, why)| Some(Skipped { path: checked(path)?, why: why.to_owned() }));
        let skipped = skipped.collect();
        let workspace = workspace.to_owned();
        Manifest {
            version: VERSION,
            workspace,
            changes,
            skipped,
            complete,
            checked: both,
            ..Manifest::default()
        }
    }
}

/// What a path takes as JSON at most.
pub(super) fn listed(path: &Path) -> usize {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().map(|byte| if matches!(byte, b' '..=b'~') { 1 } else { 6 }).sum::<usize>() + 2
}
