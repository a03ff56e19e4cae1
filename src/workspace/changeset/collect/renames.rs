//! Renames: a file that is gone and one of the same content that is new.

use std::collections::{BTreeMap, VecDeque};

use super::{Alteration, Node};

/// Gives additions their old names. Each deletion is one addition's, in the order of paths; empty
/// files are all alike, and say nothing.
pub(super) fn find(changes: &mut [Alteration]) {
    let content = |node: &Option<Node>| match node {
        Some(Node::File { sha256, size, .. }) if *size > 0 => Some(sha256.clone()),
        _ => None,
    };
    let mut gone: BTreeMap<String, VecDeque<_>> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.after.is_none()) {
        if let Some(sha256) = content(&change.before) {
            gone.entry(sha256).or_default().push_back(change.path.clone());
        }
    }
    for change in changes.iter_mut().filter(|change| change.before.is_none()) {
        let sha256 = content(&change.after);
        change.from = sha256.and_then(|sha256| gone.get_mut(&sha256)?.pop_front());
    }
}
