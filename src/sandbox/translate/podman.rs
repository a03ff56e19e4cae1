//! The policy in the words of Podman's own API. Its Docker API leaves out the control group's
//! namespace and the masked paths.

use std::path::Path;

use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use super::{HELD, command};
use crate::sandbox::container::Spec;
use crate::sandbox::{Mount, Policy, Tmpfs};

/// Most processes of one user on the machine that a Podman service lets a container have.
const PROCESSES: u64 = 32_768;

/// Microseconds in which a container may use its share of the processors.
const PERIOD: f64 = 100_000.0;

/// `profile` is the path of the seccomp profile; none where the image has it.
pub fn spec(policy: &Policy, spec: &Spec<'_>, profile: Option<&Path>, is_rootless: bool) -> Value {
    let mounts = policy.mounts.iter().filter_map(bind).chain(cover(policy));
    let mut mounts: Vec<_> = policy.tmpfs.iter().map(tmpfs).chain(mounts).collect();
    // Newer versions make it read-only with the root.
    let size = format!("size={}", policy.shared_memory);
    mounts.push(json!({
        "type": "tmpfs",
        "source": "tmpfs",
        "destination": "/dev/shm",
        "options": ["rw", "nosuid", "nodev", "noexec", size, "mode=1777", "notmpcopyup"],
    }));
    let private = || json!({ "nsmode": "private" });
    json!({
        "image": spec.image,
        "entrypoint": ["/opt/sandbox/init"],
        "command": command(policy, spec),
        "work_dir": "/",
        "hostname": policy.hostname,
        "labels": spec.labels.render(),
        "stdin": true,
        // A terminal would merge the streams and lose bytes.
        "terminal": false,
        "user": policy.user.to_string(),
        // A rootless service's own user keeps its number, so that files stay this user's.
        "userns": { "nsmode": if is_rootless { "keep-id" } else { "host" } },
        "groups": policy.groups.iter().map(u32::to_string).collect::<Vec<_>>(),
        "privileged": false,
        "cap_drop": ["all"],
        "cap_add": policy.capabilities,
        "no_new_privileges": policy.no_new_privileges,
        "seccomp_profile_path": profile.unwrap_or(Path::new("")),
        "seccomp_policy": if profile.is_some() { "default" } else { "image" },
        "read_only_filesystem": policy.read_only_root,
        // Else it makes /run, /tmp and /var/tmp writable, without a limit.
        "read_write_tmpfs": false,
        "mask": policy.masked_paths,
        "cgroupns": { "nsmode": policy.cgroup_namespace },
        "netns": { "nsmode": policy.network },
        "ipcns": private(),
        "pidns": private(),
        "utsns": private(),
        "oci_runtime": policy.runtime.as_deref().unwrap_or_default(),
        "resource_limits": {
            "memory": { "limit": policy.memory, "swap": policy.memory_and_swap },
            "cpu": { "quota": quota(policy.cpus), "period": quota(1.0) },
            "pids": { "limit": policy.pids },
        },
        "r_limits": [
            ulimit("core", policy.core_dump_bytes),
            ulimit("nofile", u64::try_from(policy.open_files).unwrap_or(0)),
            ulimit("fsize", policy.file_bytes),
            // It would set a number of its own, once any other limit is given: more than its
            // service may, which has this one.
            ulimit("nproc", getrlimit(Resource::Nproc).maximum.unwrap_or(PROCESSES).min(PROCESSES)),
        ],
        "shm_size": policy.shared_memory,
        "mounts": mounts,
        "volumes": policy.mounts.iter().filter_map(volume).chain(held(policy)).collect::<Vec<_>>(),
        "image_volume_mode": "ignore",
        "log_configuration": { "driver": policy.log_driver },
        // PID 1 is our own guest, which reaps and ends by itself.
        "init": false,
        // Its name makes Podman take it for systemd's, and give it writable control groups.
        "systemd": "false",
        // Nothing of the service's own surroundings comes in.
        "sdnotifyMode": "ignore",
        "env_host": false,
        "httpproxy": false,
        // When the machine itself runs out of memory, the sandbox goes first.
        "oom_score_adj": 500,
    })
}

#[expect(clippy::cast_possible_truncation, reason = "processor counts are small")]
fn quota(cpus: f64) -> i64 {
    (cpus * PERIOD) as i64
}

fn ulimit(name: &str, value: u64) -> Value {
    // Its numbers are signed in some versions.
    let value = value.min(i64::MAX.unsigned_abs());
    json!({ "type": name, "soft": value, "hard": value })
}

fn tmpfs(one: &Tmpfs) -> Value {
    // `U` is the container's user, whom Podman does not take as a number here.
    let options = one.options.split(',').filter(|option| !option.contains("id="));
    let options: Vec<_> = options.chain(["U", "notmpcopyup"]).collect();
    json!({ "type": "tmpfs", "source": "tmpfs", "destination": one.path, "options": options })
}

fn bind(mount: &Mount) -> Option<Value> {
    if mount.overlay.is_some() {
        return None;
    }
    // What is mounted below a read-only mount would stay writable on most kernels.
    let options = if mount.read_only { ["ro", "bind"] } else { ["rw", "rbind"] };
    Some(json!({
        "type": "bind",
        "source": mount.source,
        "destination": mount.target,
        "options": [options[0], options[1], "rprivate", "nosuid", "nodev"],
    }))
}

/// Returns a mount over Podman's own file, which tells of the engine and the image: another empty one.
fn cover(policy: &Policy) -> Option<Value> {
    let empty = policy.mounts.iter().find(|mount| mount.target == Path::new("/etc/resolv.conf"))?;
    bind(&Mount { target: "/run/.containerenv".into(), ..empty.clone() })
}

fn volume(mount: &Mount) -> Option<Value> {
    let overlay = mount.overlay.as_ref()?;
    let access = if mount.read_only { "ro" } else { "rw" };
    // Else the engine fills an empty volume, and its root's owner, from the image.
    let options = [access, "nocopy", "nosuid", "nodev"];
    Some(json!({ "Name": overlay.volume, "Dest": mount.target, "Options": options }))
}

fn held(policy: &Policy) -> impl Iterator<Item = Value> {
    policy.held_volumes.iter().enumerate().map(|(number, volume)| {
        let options = ["ro", "nocopy", "nosuid", "nodev", "noexec"];
        json!({ "Name": volume, "Dest": format!("{HELD}{number}"), "Options": options })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Owner, RunId};
    use crate::sandbox::Labels;

    #[test]
    fn podman_is_asked_for_what_it_would_leave_open_by_itself() {
        let policy = crate::sandbox::receipt::tests::policy();
        let labels = Labels {
            run: RunId::new(),
            owner: Owner::current().expect("our own"),
            lifetime: std::time::Duration::from_secs(5),
            deadline: std::time::Duration::from_secs(5),
        };
        let asked = Spec { image: "i", labels: &labels, sockets: None };
        let asked = spec(&policy, &asked, Some(Path::new("/profile.json")), true);
        assert_eq!(asked["seccomp_profile_path"], "/profile.json");
        assert_eq!(asked["cgroupns"]["nsmode"], "private");
        assert_eq!(asked["userns"]["nsmode"], "keep-id");
        assert_eq!(
            (&asked["systemd"], &asked["read_write_tmpfs"]),
            (&json!("false"), &json!(false))
        );
        assert!(asked["mask"].as_array().is_some_and(|all| all.contains(&json!("/proc/cmdline"))));
        let tmpfs = |one: &&Value| one["type"] == "tmpfs";
        let (shared, own): (Vec<_>, Vec<_>) = asked["mounts"]
            .as_array()
            .expect("mounts")
            .iter()
            .filter(tmpfs)
            .partition(|one| one["destination"] == "/dev/shm");
        assert!(shared.len() == 1 && own.len() == policy.tmpfs.len(), "{shared:?} {own:?}");
        for one in own {
            let options = one["options"].to_string();
            assert!(options.contains("\"U\"") && !options.contains("id="), "{options}");
        }
    }
}
