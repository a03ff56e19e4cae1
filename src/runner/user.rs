//! The user that a sandbox runs as: the caller, so that an agent can do with files what its caller can
//! and no more. Root's sandboxes run as the owner of the workspace.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::Error;
use super::task::Checked;
use crate::config;
use crate::engine::Facts;
use crate::sandbox::{self, User};
use crate::workspace::{Mode, Owner};

/// Groups that are as good as root, or read what only root should.
const MIGHTY: &[&str] = &[
    "root", "docker", "podman", "lxd", "libvirt", "wheel", "sudo", "disk", "adm", "kmem", "shadow",
];

/// Whoever has this file as well can do all that the engine can.
const ENGINE: &str = "/var/run/docker.sock";

/// The group of those who have none.
const NOGROUP: u32 = 65_534;

/// Returns the configured user, else the caller or the workspace's owner. Root's folders can only be
/// looked at, and by somebody else.
pub fn user(settings: &config::Sandbox, facts: &Facts, task: &Checked) -> Result<User, Error> {
    if let Some(configured) = &settings.user {
        return Ok(configured.parse::<User>()?);
    }
    if facts.makes_its_user_root() {
        let is_accepted = settings.accept.iter().any(|one| one == sandbox::ROOT_INSIDE);
        let user = is_accepted.then(User::of_rootless_engine);
        return user.ok_or_else(|| sandbox::Error::RootInside.into());
    }
    if let Some(user) = user_for(task.workspace.owner()) {
        return Ok(user);
    }
    match task.mode {
        Mode::ReadOnly => Ok(User::nobody_in_particular()),
        Mode::Direct | Mode::Isolated => {
            Err(sandbox::Error::RootOwned { path: task.workspace.path().display().to_string() }
                .into())
        }
    }
}

/// Returns the user of a sandbox for a workspace of `owner`'s; none where that would be root.
pub fn user_for(owner: Owner) -> Option<User> {
    Caller::current().user(owner)
}

/// Whoever runs this program.
struct Caller {
    uid: u32,
    gid: u32,
    groups: HashSet<u32>,
    mighty: HashSet<u32>,
    /// Lines of the system's list of users.
    users: String,
}

impl Caller {
    fn current() -> Self {
        let groups = rustix::process::getgroups().unwrap_or_default();
        let mut mighty = mighty(&fs::read_to_string("/etc/group").unwrap_or_default());
        mighty.extend(fs::metadata(ENGINE).map(|found| found.gid()));
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups.into_iter().map(rustix::fs::Gid::as_raw).collect(),
            mighty,
            users: fs::read_to_string("/etc/passwd").unwrap_or_default(),
        }
    }

    fn user(&self, owner: Owner) -> Option<User> {
        if self.uid == 0 {
            if owner.gid == 0 {
                return None;
            }
            return User::new(owner.uid, self.harmless(owner.uid, owner.gid));
        }
        let gid = self.harmless(self.uid, self.gid);
        let user = User::new(self.uid, gid)?;
        let is_shared = owner.gid != gid && self.groups.contains(&owner.gid);
        let shared = (is_shared && !self.mighty.contains(&owner.gid)).then_some(owner.gid);
        Some(user.with(shared))
    }

    /// Returns the group, or the user's first one in the place of one that is as good as root.
    fn harmless(&self, uid: u32, gid: u32) -> u32 {
        let lines = self.users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let mut first = lines.filter(|fields| fields.get(2).copied() == Some(&*uid.to_string()));
        let first = first.find_map(|fields| fields.get(3)?.parse().ok());
        let usable = |gid: &u32| *gid != 0 && !self.mighty.contains(gid);
        [Some(gid), first].into_iter().flatten().find(usable).unwrap_or(NOGROUP)
    }
}

/// Reads the numbers of [`MIGHTY`] groups from the system's list.
fn mighty(groups: &str) -> HashSet<u32> {
    let lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let named = lines.filter(|fields| fields.first().is_some_and(|name| MIGHTY.contains(name)));
    let numbers = named.filter_map(|fields| fields.get(2)?.parse().ok());
    numbers.chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        Caller {
            uid,
            gid,
            groups: groups.iter().copied().collect(),
            mighty: mighty("root:x:0:\ndocker:x:998:ada\nadm:x:4:\ndevelopers:x:500:ada\n"),
            users: "root:x:0:0::/root:/bin/sh\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n".into(),
        }
    }

    fn ids(caller: &Caller, uid: u32, gid: u32) -> Option<(u32, u32, Option<u32>)> {
        let user = caller.user(Owner { uid, gid })?;
        Some((user.uid(), user.gid(), user.shared()))
    }

    #[test]
    fn a_sandbox_can_what_its_caller_can_and_no_more() {
        let ada = caller(1000, 1001, &[4, 500, 998, 1001]);
        assert_eq!(ids(&ada, 1000, 1001), Some((1000, 1001, None)));
        assert_eq!(ids(&ada, 1000, 500), Some((1000, 1001, Some(500))), "a shared folder");
        assert_eq!(ids(&ada, 1000, 501), Some((1000, 1001, None)), "a group that she is not in");
        assert_eq!(ids(&ada, 2000, 2000), Some((1000, 1001, None)), "another user's folder");
        for mighty in [0, 4, 998] {
            assert_eq!(ids(&ada, 1000, mighty), Some((1000, 1001, None)), "{mighty}");
            let now = caller(1000, mighty, &[4, 998]);
            assert_eq!(ids(&now, 1000, mighty), Some((1000, 1001, None)), "newgrp {mighty}");
        }
        let unlisted = caller(3000, 998, &[998]);
        assert_eq!(ids(&unlisted, 3000, 998), Some((3000, NOGROUP, None)));
    }

    #[test]
    fn roots_sandboxes_run_as_the_owner() {
        let root = caller(0, 0, &[0]);
        assert_eq!(ids(&root, 1000, 1001), Some((1000, 1001, None)));
        assert_eq!(ids(&root, 4321, 8765), Some((4321, 8765, None)));
        assert_eq!(ids(&root, 1000, 998), Some((1000, 1001, None)), "docker is no group for it");
        assert_eq!(ids(&root, 0, 1000), None);
        assert_eq!(ids(&root, 1000, 0), None);
    }
}
