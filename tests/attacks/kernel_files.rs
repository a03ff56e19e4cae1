//! The kernel's interfaces that are files: nothing to read that tells of the machine, nothing to
//! write, no device, no control group.

use crate::common::Workspace;
use crate::inside::{assert_lines, attack};

#[tokio::test(flavor = "multi_thread")]
async fn cannot_be_used() {
    let home = Workspace::new();
    home.write("probes.py", include_str!("inside/kernel_files.py"));
    let seen = attack(&home, "python probes.py").await;
    assert_lines(&seen.told, include_str!("expected/kernel_files.txt"));
}
