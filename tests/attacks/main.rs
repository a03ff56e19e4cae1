//! Attacks on the product, each tried from inside of a real sandbox: a scripted model makes the
//! real agent run them. One file for each family.
//!
//! Every probe prints one line, and the test compares all lines, so a probe that did not run fails
//! as one that got through does. In each family some probes must succeed: what cannot succeed
//! proves nothing when it fails.

#[path = "../promises/common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "written for the promises, which use all of it")]
mod common;

mod inside;

mod dead_mans_switch;
mod host_reach;
mod identity;
mod isolated_view;
mod kernel_files;
mod neighbours;
mod orders;
mod pipe;
mod privileges;
mod protected_places;
mod resources;
mod seccomp_profile;
mod secrets;
mod symlink_races;
mod system_calls;
mod tools_still_work;
mod unlimited;
