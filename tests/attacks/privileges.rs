//! Becoming more than one is: capabilities, setuid files, other users, namespaces.

use std::os::unix::fs::MetadataExt;

use crate::common::Workspace;
use crate::inside::{assert_lines, attack};

#[tokio::test(flavor = "multi_thread")]
async fn none_can_be_gained() {
    let home = Workspace::new();
    home.write("probes.py", include_str!("inside/privileges.py"));
    let seen = attack(&home, "python probes.py").await;
    assert_lines(&seen.told, include_str!("expected/privileges.txt"));
    // Nothing with a special bit lies in the workspace afterwards either.
    for name in home.names() {
        let mode = std::fs::symlink_metadata(home.at(&name)).expect("a file").mode();
        assert_eq!(mode & 0o6000, 0, "{name}: {mode:o}");
    }
}
