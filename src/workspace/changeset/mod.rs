//! What a run changed in its own view of a workspace: a list, the new contents, and a patch.
//!
//! A [`Manifest`] stands by itself. Whatever gave the run its view, an overlay or a copy, may be
//! gone; showing, applying and looking into a result need only the manifest, the contents beside
//! it, and the workspace. All of it was made by an agent and is hostile: paths are checked when
//! they are read, and contents are never executed.

mod apply;
mod collect;
mod fate;
mod live;
mod manifest;
mod node;
mod patch;
mod store;

#[cfg(test)]
pub(super) mod testing;

pub use apply::{
    Agreed, ApplyError, Carried, Conflict, Keep, NeedsYes, Obeyed, Recovered, Request, STAGING,
    apply, forget_all, is_unsettled, merged, protected_files, recover, reversed, taken,
};
pub use collect::{
    CollectError, Collected, Known, Merged, Moment, Steps, Survey, add_repository, collect,
};
pub use fate::{Application, Fate};
pub use live::Live;
pub use manifest::{
    Alteration, BadPath, Escaped, Manifest, NewRepository, Node, RelPath, Skipped, VERSION,
};
pub use patch::{LARGEST_PATCH, PatchReport, write_patch};
pub use store::{Blobs, StoreError, read_manifest, write_manifest};
