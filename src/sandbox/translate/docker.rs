//! The policy in the words of Docker's API.

use std::collections::HashMap;

use super::{HELD, command};
use crate::engine::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount as EngineMount, MountBindOptions, MountType, MountVolumeOptions, ResourcesUlimits,
};
use crate::sandbox::container::Spec;
use crate::sandbox::policy::SECCOMP;
use crate::sandbox::{Mount, Policy};

pub fn body(policy: &Policy, spec: &Spec<'_>) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.to_owned()),
        hostname: Some(policy.hostname.to_owned()),
        user: Some(policy.user.to_string()),
        // PID 1 goes to the workspace: Podman gives a volume there the owner of the folder that it
        // makes for a working directory.
        working_dir: Some("/".into()),
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
        host_config: Some(host_config(policy)),
        ..Default::default()
    }
}

fn host_config(policy: &Policy) -> HostConfig {
    let amount = |bytes: u64| Some(i64::try_from(bytes).unwrap_or(i64::MAX));
    let ulimit = |name: &str, value: i64| ResourcesUlimits {
        name: Some(name.into()),
        soft: Some(value),
        hard: Some(value),
    };
    let core = i64::try_from(policy.core_dump_bytes).unwrap_or(0);
    let ulimits = vec![
        ulimit("core", core),
        ulimit("nofile", policy.open_files),
        ulimit("fsize", i64::try_from(policy.file_bytes).unwrap_or(i64::MAX)),
    ];
    let tmpfs = policy.tmpfs.iter();
    let tmpfs: HashMap<_, _> =
        tmpfs.map(|one| (one.path.to_owned(), one.options.clone())).collect();
    HostConfig {
        network_mode: Some(policy.network.into()),
        group_add: Some(policy.groups.iter().map(u32::to_string).collect()),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(policy.capabilities.clone()),
        privileged: Some(false),
        security_opt: Some(vec![
            format!("no-new-privileges:{}", policy.no_new_privileges),
            format!("seccomp={SECCOMP}"),
        ]),
        readonly_rootfs: Some(policy.read_only_root),
        masked_paths: Some(strings(&policy.masked_paths)),
        readonly_paths: Some(strings(policy.read_only_paths)),
        runtime: policy.runtime.clone(),
        memory: amount(policy.memory),
        memory_swap: amount(policy.memory_and_swap),
        nano_cpus: Some(nano(policy.cpus)),
        pids_limit: Some(policy.pids.into()),
        ulimits: Some(ulimits),
        shm_size: amount(policy.shared_memory),
        tmpfs: Some(tmpfs),
        mounts: Some(policy.mounts.iter().map(engine_mount).chain(held(policy)).collect()),
        log_config: Some(HostConfigLogConfig { typ: Some(policy.log_driver.into()), config: None }),
        ipc_mode: Some("private".into()),
        // With `userns-remap` the sandbox could not write its view, which is this user's.
        userns_mode: Some("host".into()),
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

fn held(policy: &Policy) -> impl Iterator<Item = EngineMount> {
    policy.held_volumes.iter().enumerate().map(|(number, volume)| EngineMount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.clone()),
        target: Some(format!("{HELD}{number}")),
        read_only: Some(true),
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
        ..Default::default()
    })
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
}
