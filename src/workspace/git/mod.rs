//! Git directories: reading those of the user, and asking git on this machine.
//!
//! A repository is hostile, whoever it belongs to: an agent can have written to it before. So its
//! files are read without following a link, small and regular ones alone, and git itself is run
//! only for what it may be trusted with, by [`host::Ask`].

mod ahead;
mod bring;
mod bundle;
mod copy;
mod find;
mod follow;
mod give;
pub(super) mod harmless;
mod host;
mod identity;
mod inspect;
mod made;
mod merge;
mod modules;
mod narrow;
mod news;
mod quarantine;
mod read;
mod settings;
mod start;
mod users;

#[cfg(test)]
mod give_hostile_tests;
#[cfg(test)]
mod give_tests;

pub use ahead::go_on;
pub use bring::{Brought, bring};
pub use bundle::{bundle, is_here};
pub use copy::CopyError;
pub use find::below_top;
#[cfg(test)]
pub(in crate::workspace) use follow::testing::Waiting;
pub use follow::{follow, read as read_brought, stay, write as write_brought};
pub use give::{GitMount, Given, give};
pub use identity::{Identity, Person, identity};
pub use inspect::{Inside, remarks};
pub use made::{Rebuilt, clear, made, rebuild};
pub use merge::merge_file;
pub use news::{News, PACK_BYTES};
pub use start::{Repository, noted};

/// Settings that git gets in a sandbox over those of any repository. What they turn off is a
/// program of the user's that the sandbox has not, or a key that it must not have.
pub const OFF: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("commit.gpgSign", "false"),
    ("tag.gpgSign", "false"),
    ("tag.forceSignAnnotated", "false"),
    ("push.gpgSign", "false"),
    ("log.showSignature", "false"),
    // Above a workspace that is a subfolder of its repository, folders are nobody's.
    ("safe.directory", "*"),
];

/// The variables by which git takes [`OFF`], which nothing in a repository can take back.
pub fn variables() -> Vec<(String, String)> {
    let mut variables = vec![("GIT_CONFIG_COUNT".to_owned(), OFF.len().to_string())];
    for (number, (key, value)) in OFF.iter().enumerate() {
        variables.push((format!("GIT_CONFIG_KEY_{number}"), (*key).to_owned()));
        variables.push((format!("GIT_CONFIG_VALUE_{number}"), (*value).to_owned()));
    }
    variables
}
