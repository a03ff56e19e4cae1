//! The policy in the engine's words.

use std::collections::HashMap;
use std::io::Write;

use rustix::process::{Resource, getrlimit};
use tempfile::NamedTempFile;

use super::container::Spec;
use super::policy::SECCOMP;
use super::{AUTHORITIES, Error, Mount, Overlay, Policy};
use crate::engine::Kind;
use crate::engine::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount as EngineMount, MountBindOptions, MountType, MountVolumeOptions, ResourcesUlimits,
};

/// Most processes of one user on the machine that a Podman service lets a container have.
const PROCESSES: u64 = 32_768;

const OVERLAY_OPTIONS: &str = "redirect_dir=on,metacopy=off,index=off,nfs_export=off,xino=on";

/// The seccomp profile as an engine takes it.
#[derive(Debug)]
pub enum Profile {
    /// The profile itself, for Docker.
    Inline,
    /// A file with it, for Podman.
    File(NamedTempFile),
}

impl Profile {
    pub fn of(kind: Kind) -> Result<Self, Error> {
        let written = || {
            let mut file = NamedTempFile::with_prefix("sandbox-mcp-seccomp-")?;
            file.write_all(SECCOMP.as_bytes())?;
            Ok(file)
        };
        let failed = |source| Error::Io { what: "write the seccomp profile".into(), source };
        match kind {
            Kind::Docker => Ok(Self::Inline),
            Kind::Podman => written().map(Self::File).map_err(failed),
        }
    }

    fn option(&self) -> String {
        match self {
            Self::Inline => SECCOMP.to_owned(),
            Self::File(file) => file.path().display().to_string(),
        }
    }
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
    command
}

/// Translates the policy into the engine's words, and adds nothing to it.
pub fn body(policy: &Policy, spec: &Spec<'_>, profile: &Profile) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.to_owned()),
        hostname: Some(policy.hostname.to_owned()),
        user: Some(policy.user.to_string()),
        working_dir: Some(policy.workspace.to_string_lossy().into_owned()),
        entrypoint: Some(vec!["/opt/sandbox/init".into()]),
        cmd: Some(command(policy, spec)),
        labels: Some(spec.labels.render()),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        // Our end of standard input is the dead-man's switch, so it must close when we go.
        stdin_once: Some(true),
        // A terminal would merge the streams and lose bytes.
        tty: Some(false),
        host_config: Some(host_config(policy, profile)),
        ..Default::default()
    }
}

fn host_config(policy: &Policy, profile: &Profile) -> HostConfig {
    let amount = |bytes: u64| Some(i64::try_from(bytes).unwrap_or(i64::MAX));
    let ulimit = |name: &str, value: i64| ResourcesUlimits {
        name: Some(name.into()),
        soft: Some(value),
        hard: Some(value),
    };
    let core = i64::try_from(policy.core_dump_bytes).unwrap_or(0);
    let mut ulimits = vec![
        ulimit("core", core),
        ulimit("nofile", policy.open_files),
        ulimit("fsize", i64::try_from(policy.file_bytes).unwrap_or(i64::MAX)),
    ];
    let mut tmpfs: HashMap<_, _> =
        policy.tmpfs.iter().map(|one| (one.path.to_owned(), one.options.clone())).collect();
    if let Profile::File(_) = profile {
        for options in tmpfs.values_mut() {
            // The container's user, which Podman does not take as a number.
            let kept = options.split(',').filter(|option| !option.contains("id="));
            *options = kept.chain(["U"]).collect::<Vec<_>>().join(",");
        }
        // With a read-only root Podman makes these writable, without a limit.
        for place in ["/run", "/var/tmp"] {
            tmpfs.insert(place.to_owned(), "ro,nosuid,nodev,noexec,size=4096,mode=0755".to_owned());
        }
        // It would set a number of its own, once any other limit is given: more than its service may,
        // which has this one.
        let ours = getrlimit(Resource::Nproc).maximum.unwrap_or(PROCESSES);
        ulimits.push(ulimit("nproc", i64::try_from(ours.min(PROCESSES)).unwrap_or(0)));
    }
    HostConfig {
        network_mode: Some(policy.network.into()),
        group_add: Some(policy.groups.iter().map(u32::to_string).collect()),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(policy.capabilities.clone()),
        privileged: Some(false),
        security_opt: Some(vec![
            format!("no-new-privileges:{}", policy.no_new_privileges),
            format!("seccomp={}", profile.option()),
        ]),
        readonly_rootfs: Some(policy.read_only_root),
        masked_paths: Some(strings(policy.masked_paths)),
        readonly_paths: Some(strings(policy.read_only_paths)),
        runtime: policy.runtime.clone(),
        memory: amount(policy.memory),
        memory_swap: amount(policy.memory_and_swap),
        nano_cpus: Some(nano(policy.cpus)),
        pids_limit: Some(policy.pids.into()),
        ulimits: Some(ulimits),
        shm_size: amount(policy.shared_memory),
        tmpfs: Some(tmpfs),
        mounts: Some(policy.mounts.iter().map(engine_mount).collect()),
        log_config: Some(HostConfigLogConfig { typ: Some(policy.log_driver.into()), config: None }),
        ipc_mode: Some("private".into()),
        // Engines on cgroup v1 give the host's unless they are asked.
        cgroupns_mode: policy.cgroup_namespace.parse::<HostConfigCgroupnsModeEnum>().ok(),
        // PID 1 is our own guest, which reaps and ends by itself; a second init would only stand
        // between it and its signals.
        init: Some(false),
        // When the machine itself runs out of memory, the sandbox goes first.
        oom_score_adj: Some(500),
        ..Default::default()
    }
}

fn engine_mount(mount: &Mount) -> EngineMount {
    let target = Some(mount.target.to_string_lossy().into_owned());
    let read_only = Some(mount.read_only);
    match &mount.overlay {
        None => EngineMount {
            typ: Some(MountType::BIND),
            source: Some(mount.source.to_string_lossy().into_owned()),
            target,
            read_only,
            // What is mounted below would stay writable on most kernels.
            bind_options: mount
                .read_only
                .then(|| MountBindOptions { non_recursive: Some(true), ..Default::default() }),
            ..Default::default()
        },
        Some(overlay) => EngineMount {
            typ: Some(MountType::VOLUME),
            source: Some(overlay.volume.clone()),
            target,
            read_only,
            // Else the engine fills an empty volume, and its root's owner, from the image.
            volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
            ..Default::default()
        },
    }
}

/// What makes a volume an overlay, complete, so that no default of the system counts: without
/// `redirect_dir` no folder that was there can be renamed, and with `metacopy` the layer has files
/// of zeros.
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

fn strings(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|&path| path.to_owned()).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "processor counts are small")]
fn nano(cpus: f64) -> i64 {
    (cpus * 1e9) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_mounted_below_comes_with_a_read_only_mount() {
        let mount = engine_mount(&Policy::workspace_mount("/w".into(), "/w".into(), true));
        assert_eq!(mount.bind_options.and_then(|options| options.non_recursive), Some(true));
    }

    #[test]
    fn podman_gets_a_file_its_own_user_and_no_writable_folders_of_its_own() {
        let policy = crate::sandbox::receipt::tests::policy();
        let profile = Profile::of(Kind::Podman).expect("a file");
        let host = host_config(&policy, &profile);
        let options = host.security_opt.expect("options");
        let file = options.iter().find_map(|one| one.strip_prefix("seccomp=")).expect("a profile");
        assert_eq!(std::fs::read_to_string(file).expect("a file"), SECCOMP);
        let tmpfs = host.tmpfs.expect("tmpfs");
        assert!(tmpfs["/tmp"].ends_with(",U") && !tmpfs["/tmp"].contains("id="), "{tmpfs:?}");
        assert!(["/run", "/var/tmp"].iter().all(|place| tmpfs[*place].starts_with("ro,")));
        let docker = host_config(&policy, &Profile::of(Kind::Docker).expect("inline"));
        assert!(docker.tmpfs.expect("tmpfs")["/tmp"].contains("uid=1000"));
        drop(profile);
        assert!(!std::path::Path::new(file).exists());
    }
}
