//! The volumes of a run's copies, and the sandbox that has them.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::{Copies, FOLDER, PORT, SOCKET};
use crate::engine::{Engine, Kind};
use crate::sandbox::container::Spec;
use crate::sandbox::translate::translate;
use crate::sandbox::{Door, Error, Policy, User, WORKSPACE};

/// The place of what is kept from run to run in the sandbox that has the files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Mounted,
    /// In use, and out of reach.
    Held,
    Absent,
}

/// The policy of the sandbox that has the volumes.
pub fn own_policy(policy: &Policy, copies: &Copies, kept: Kept) -> Policy {
    let door = Door { what: "files of the run".to_owned(), port: PORT, socket: SOCKET.to_owned() };
    let mount = |place: &Path, name| {
        Policy::workspace_mount(place.to_owned(), Path::new(WORKSPACE).join(name), false)
    };
    let mut mounts = vec![mount(&copies.own, "own")];
    let mut held_volumes = vec![copies.volume.clone()];
    if kept == Kept::Mounted {
        mounts.push(mount(&copies.kept, "kept"));
    }
    if kept != Kept::Absent {
        held_volumes.push(copies.kept_volume.clone());
    }
    Policy {
        doors: vec![door],
        authority: None,
        mounts,
        workspace: Path::new(WORKSPACE).join("own"),
        is_copied: true,
        // Else nothing tells the engine that they are in use.
        held_volumes,
        ..policy.clone()
    }
}

/// The options of a volume that is a user's. Podman gives a volume to whom it is told, which is root
/// in a rootless one's eyes.
pub fn owner(engine: &Engine, user: User) -> HashMap<String, String> {
    match engine.kind() {
        Kind::Podman { is_rootless: false } => {
            HashMap::from([("o".to_owned(), format!("uid={},gid={}", user.uid(), user.gid()))])
        }
        _ => HashMap::new(),
    }
}

/// Makes a folder of a user's in each volume. Docker makes volumes root's, and no sandbox of ours is
/// root's: a container that never starts has the folder unpacked.
pub async fn give_folders(
    engine: &Engine,
    user: User,
    policy: &Policy,
    spec: &Spec<'_>,
) -> Result<(), Error> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o700);
    header.set_uid(user.uid().into());
    header.set_gid(user.gid().into());
    header.set_size(0);
    let mut archive = tar::Builder::new(Vec::new());
    let archive = archive
        .append_data(&mut header, FOLDER, io::empty())
        .and_then(|()| archive.into_inner())
        .map_err(|source| Error::Io { what: "pack a folder".into(), source })?;
    let id = engine.create(translate(engine.kind(), policy, spec, false)?.body).await?;
    let mut given = Ok(());
    for mount in &policy.mounts {
        let target = mount.target.to_string_lossy();
        given = given.and(engine.unpack(&id, &target, archive.clone()).await);
    }
    engine.remove(&id).await?;
    Ok(given?)
}
