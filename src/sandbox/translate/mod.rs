//! The policy in an engine's words. Each file translates it, and adds nothing to it.

mod docker;
mod podman;

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use tempfile::NamedTempFile;

use super::container::Spec;
use super::policy::{NO_MEMORY_LIMIT, NO_PIDS_LIMIT, SECCOMP};
use super::{AUTHORITIES, Error, Mount, Overlay, Policy};
use crate::engine::{Body, Kind};

/// The beginning of places for volumes that are only held.
const HELD: &str = "/mnt/held-";
const OVERLAY_OPTIONS: &str = "redirect_dir=on,metacopy=off,index=off,nfs_export=off,xino=on";

/// A container to create, and what the engine reads while it does so.
#[derive(Debug)]
pub struct Translated {
    pub body: Body,
    /// Podman takes a path of the seccomp profile or finds it in the image, Docker takes the profile
    /// itself.
    _profile: Option<NamedTempFile>,
}

/// `has_profile` tells that the image has our seccomp profile with it.
pub fn translate(
    kind: Kind,
    policy: &Policy,
    spec: &Spec<'_>,
    has_profile: bool,
) -> Result<Translated, Error> {
    match kind {
        Kind::Docker => {
            let body = Body::Docker(Box::new(docker::body(policy, spec)));
            Ok(Translated { body, _profile: None })
        }
        Kind::Podman { is_rootless } => {
            let profile = if has_profile { None } else { Some(profile_file()?) };
            let path = profile.as_ref().map(NamedTempFile::path);
            let body = Body::Podman(podman::spec(policy, spec, path, is_rootless));
            Ok(Translated { body, _profile: profile })
        }
    }
}

fn profile_file() -> Result<NamedTempFile, Error> {
    let written = || {
        let mut file = NamedTempFile::with_prefix("sandbox-mcp-seccomp-")?;
        file.write_all(SECCOMP.as_bytes())?;
        // The service may be another user's.
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        Ok(file)
    };
    written().map_err(|source| Error::Io { what: "write the seccomp profile".into(), source })
}

/// The guest's command line: its ports and its time. What it is to run comes later.
fn command(policy: &Policy, spec: &Spec<'_>) -> Vec<String> {
    let mut command = Vec::new();
    for door in &policy.doors {
        command.extend(["--port".into(), door.port.to_string()]);
    }
    if let Some(authority) = policy.authority {
        command.extend(["--authority".into(), format!("{authority}={AUTHORITIES}")]);
    }
    command.extend([
        "--lifetime".into(),
        spec.labels.lifetime.as_secs().to_string(),
        "--umask".into(),
        policy.umask.clone(),
        "--workspace".into(),
        policy.workspace.to_string_lossy().into_owned(),
        "--disk".into(),
        policy.deleted_bytes.to_string(),
    ]);
    for (limit, name, most) in [
        (NO_MEMORY_LIMIT, "--memory", policy.memory),
        (NO_PIDS_LIMIT, "--processes", policy.pids.into()),
    ] {
        if policy.accepts(limit) {
            command.extend([name.into(), most.to_string()]);
        }
    }
    command
}

/// The options that make a volume an overlay, complete, so that no default of the system counts:
/// without `redirect_dir` no folder that was there can be renamed, and with `metacopy` the layer has
/// files of zeros.
pub fn volume_options(mount: &Mount, overlay: &Overlay) -> HashMap<String, String> {
    let options = format!(
        "lowerdir={},upperdir={},workdir={},{OVERLAY_OPTIONS}",
        mount.source.display(),
        overlay.upper.display(),
        overlay.work.display()
    );
    [("type", "overlay"), ("device", "overlay"), ("o", &options)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
