//! What a sandbox may do, as plain data. Built in one place, printed by `sandbox-mcp policy`,
//! translated by `translate/`, and held against the receipt from inside by `receipt.rs`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use super::generated::generated;
use super::{AUTHORITY, EGRESS_PORT, Error, MODEL_PORT, SESSION};
use crate::config::{Config, Size};

/// The profile that we ship; see `config/seccomp.json` for what it denies and why.
pub const SECCOMP: &str = include_str!("../../config/seccomp.json");

/// Open files of one process: enough for any build, and below what engines themselves may have,
/// which is the most they can give.
const FILES: i64 = 8192;

/// The machine's name inside.
pub const HOSTNAME: &str = "sandbox";

/// Words of `sandbox.accept`.
pub const NO_MEMORY_LIMIT: &str = "no-memory-limit";
pub const NO_PIDS_LIMIT: &str = "no-pids-limit";
pub const NO_CPU_LIMIT: &str = "no-cpu-limit";
pub const ROOT_INSIDE: &str = "root-inside";

/// Files of the kernel that are covered: all that any version of the engine covers by itself, and
/// what else tells of the machine or of other users of its kernel, and no agent needs.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/diskstats",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/swaps",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/class/dmi",
    "/sys/devices/virtual/dmi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/pstore",
    "/sys/kernel/notes",
    "/sys/kernel/vmcoreinfo",
];

/// The engine's own list: given as well, because it fills in neither when it gets one.
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// `uid:gid` inside a sandbox. Cannot be root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
    /// The group of a shared workspace.
    shared: Option<u32>,
}

impl User {
    /// None for root: no sandbox of ours runs as uid 0 or in group 0.
    pub fn new(uid: u32, gid: u32) -> Option<Self> {
        (uid != 0 && gid != 0).then_some(Self { uid, gid, shared: None })
    }

    /// Root of a rootless Docker's container, who is the engine's own unprivileged user outside.
    /// Files of the workspace belong to nobody else in there. What is closed to others is root's, so
    /// this one can read PID 1's pipe.
    pub fn of_rootless_engine() -> Self {
        Self { uid: 0, gid: 0, shared: None }
    }

    /// Somebody to look at what belongs to root.
    pub fn nobody_in_particular() -> Self {
        Self { uid: 1000, gid: 1000, shared: None }
    }

    /// The same user, who is also in the group of a shared workspace.
    #[must_use]
    pub fn with(self, shared: Option<u32>) -> Self {
        Self { shared, ..self }
    }

    pub fn shared(self) -> Option<u32> {
        self.shared
    }

    pub fn uid(self) -> u32 {
        self.uid
    }

    pub fn gid(self) -> u32 {
        self.gid
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl FromStr for User {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        uid.parse()
            .ok()
            .zip(gid.parse().ok())
            .and_then(|(uid, gid)| Self::new(uid, gid))
            .ok_or_else(|| Error::User { given: text.to_owned() })
    }
}

impl Serialize for User {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Everything that a sandbox may do.
#[expect(clippy::struct_excessive_bools, reason = "independent settings, not a state")]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    pub user: User,
    /// The group of a shared workspace, where the caller is in it; no others.
    pub groups: Vec<u32>,
    pub umask: String,
    /// Always `none`: no interface but loopback, no route, no resolver.
    pub network: &'static str,
    /// Ports on the sandbox's loopback that lead to us through the pipe: the only ways out.
    pub doors: Vec<Door>,
    /// The certificate of an authority of ours that programs inside are to trust.
    pub authority: Option<&'static str>,
    /// Always empty: nothing is added back.
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
    pub read_only_root: bool,
    pub seccomp: String,
    pub masked_paths: Vec<&'static str>,
    pub read_only_paths: &'static [&'static str],
    /// Container runtime; the engine's default when absent.
    pub runtime: Option<String>,
    pub memory: u64,
    /// Memory and swap together: the same as memory, so there is no swap.
    pub memory_and_swap: u64,
    pub cpus: f64,
    pub pids: u32,
    pub core_dump_bytes: u64,
    pub open_files: i64,
    /// Most bytes of deleted files that are still open.
    pub deleted_bytes: u64,
    /// Largest file.
    pub file_bytes: u64,
    pub shared_memory: u64,
    pub tmpfs: Vec<Tmpfs>,
    /// The path of the workspace inside.
    pub workspace: PathBuf,
    pub mounts: Vec<Mount>,
    /// True where the sources of the mounts are copies on the engine's machine.
    pub is_copied: bool,
    /// Volumes that the engine is to see in use, mounted read-only.
    pub held_volumes: Vec<String>,
    /// Always false: no published port, no device, no engine socket, no host environment.
    pub host_access: bool,
    pub log_driver: &'static str,
    /// Always `private`: what is around the sandbox's own control group has no name inside.
    pub cgroup_namespace: &'static str,
    pub hostname: &'static str,
    /// Controls that the run may go without, where the engine does not give them.
    pub accepted: Vec<String>,
}

/// A port on the sandbox's own loopback, and the socket behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Door {
    /// What is behind it, as a person knows it.
    pub what: String,
    pub port: u16,
    pub socket: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    pub path: &'static str,
    pub size: u64,
    pub options: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// What is mounted, as a person knows it.
    pub what: String,
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
    /// Where what is written goes instead of to `source`, if this is a copy-on-write view of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
}

/// The upper half of a copy-on-write view, which the engine mounts as a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overlay {
    /// The volume's name.
    pub volume: String,
    /// Takes every change.
    pub upper: PathBuf,
    /// The kernel's own, beside it.
    pub work: PathBuf,
}

impl Policy {
    /// The policy of one run. `mounts` come from the run; everything else from the configuration.
    pub fn new(config: &Config, user: User, workspace: PathBuf, mounts: Vec<Mount>) -> Self {
        let tmpfs = |path, size: Size, exec: bool| Tmpfs {
            path,
            size: size.bytes(),
            options: format!(
                "rw,nosuid,nodev,{},size={},mode=0700,uid={},gid={}",
                if exec { "exec" } else { "noexec" },
                size.bytes(),
                user.uid,
                user.gid
            ),
        };
        let cores = std::thread::available_parallelism()
            .map_or(1.0, |cores| f64::from(u32::try_from(cores.get()).unwrap_or(u32::MAX)));
        Self {
            user,
            groups: user.shared().into_iter().collect(),
            umask: config.sandbox.umask.clone(),
            network: "none",
            doors: doors(config),
            authority: (!config.credential.is_empty()).then_some(AUTHORITY),
            capabilities: Vec::new(),
            no_new_privileges: true,
            read_only_root: true,
            seccomp: "config/seccomp.json".into(),
            masked_paths: masked(user),
            read_only_paths: READ_ONLY,
            runtime: config.sandbox.runtime.clone(),
            memory: config.limits.memory.bytes(),
            memory_and_swap: config.limits.memory.bytes(),
            cpus: config.limits.cpus.min(cores),
            pids: config.limits.pids,
            core_dump_bytes: 0,
            open_files: FILES,
            deleted_bytes: config.limits.disk.bytes(),
            // A file that passes `limits.disk` is to be seen before it is cut.
            file_bytes: config.limits.disk.bytes().saturating_add(Size::mebibytes(16).bytes()),
            shared_memory: Size::mebibytes(64).bytes(),
            // Test runners and compilers execute what they wrote to /tmp, as they may in the
            // workspace; nothing needs that of the home folder.
            tmpfs: vec![
                tmpfs("/tmp", config.limits.tmp, true),
                tmpfs("/home/agent", config.limits.home, false),
            ],
            workspace,
            mounts,
            is_copied: false,
            held_volumes: Vec::new(),
            host_access: false,
            log_driver: "none",
            cgroup_namespace: "private",
            hostname: HOSTNAME,
            accepted: config.sandbox.accept.clone(),
        }
    }

    /// The workspace's own mount, from `source` on this machine to `target` inside.
    pub fn workspace_mount(source: PathBuf, target: PathBuf, read_only: bool) -> Mount {
        Mount { overlay: None, what: "workspace".into(), source, target, read_only }
    }

    /// A view of the workspace, in which it is changed without being changed.
    pub fn overlay_mount(source: PathBuf, target: PathBuf, overlay: Overlay) -> Mount {
        let mount = Self::workspace_mount(source, target, false);
        Mount { what: "workspace, copied on write".into(), overlay: Some(overlay), ..mount }
    }

    /// The mount of the certificate of the run's authority.
    pub fn authority_mount(source: PathBuf) -> Mount {
        Mount {
            overlay: None,
            what: "certificate of the run's authority".into(),
            source,
            target: AUTHORITY.into(),
            read_only: true,
        }
    }

    /// The mount of what an agent keeps of one conversation.
    pub fn session_mount(source: PathBuf) -> Mount {
        Mount {
            overlay: None,
            what: "the session's agent state".into(),
            source,
            target: SESSION.into(),
            read_only: false,
        }
    }

    /// The mounts of a run that may write, as they look before there is one.
    pub fn usual_mounts(workspace: PathBuf) -> Vec<Mount> {
        let view = Mount {
            what: "a view of the workspace".into(),
            ..Self::workspace_mount(PathBuf::new(), workspace, false)
        };
        [vec![view], generated(Path::new(""))].concat()
    }

    /// Whether the kernel inside is to be gVisor's. Its runtime is called `runsc`, by itself or with
    /// more behind it.
    pub fn is_gvisor(&self) -> bool {
        self.runtime.as_deref().is_some_and(|runtime| runtime.starts_with("runsc"))
    }

    /// Returns true where the run may go without a control.
    pub fn accepts(&self, control: &str) -> bool {
        self.accepted.iter().any(|one| one == control)
    }

    /// Whether the workspace can be written.
    pub fn workspace_writable(&self) -> bool {
        self.mounts.iter().any(|mount| mount.target == self.workspace && !mount.read_only)
    }
}

/// The covered files, and the folder of version 1's control groups where the sandbox is root in a
/// rootless engine: it could make files there, without a limit.
fn masked(user: User) -> Vec<&'static str> {
    let has_folder = !Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let groups = (user.uid == 0 && has_folder).then_some("/sys/fs/cgroup");
    MASKED.iter().copied().chain(groups).collect()
}

/// What a sandbox can reach. The proxy is there even where it refuses everything: a clear answer
/// is better for an agent than a name that does not resolve, and a person sees what was wanted.
fn doors(config: &Config) -> Vec<Door> {
    let egress = &config.egress;
    let mut allowed = egress.allow.clone();
    allowed.extend(config.credential.iter().map(|credential| credential.host.clone()));
    let proxy = if egress.open {
        "proxy to EVERY public name".to_owned()
    } else if allowed.is_empty() {
        "proxy that refuses everything".to_owned()
    } else {
        format!("proxy to {}", allowed.join(", "))
    };
    let door = |what: String, port, socket: String| Door { what, port, socket };
    let mut doors = vec![
        door("model server".into(), MODEL_PORT, "model.sock".into()),
        door(proxy, EGRESS_PORT, "egress.sock".into()),
    ];
    for port in &egress.host_ports {
        let what = format!("port {port} of this machine's loopback");
        doors.push(door(what, *port, format!("port-{port}.sock")));
    }
    doors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_opening_is_a_door_and_by_default_there_is_the_model_alone() {
        let said = |config: &Config| -> Vec<_> {
            doors(config).into_iter().map(|door| (door.port, door.what)).collect()
        };
        let mut config = Config::default();
        let refusing = (EGRESS_PORT, "proxy that refuses everything".to_owned());
        assert_eq!(said(&config), [(MODEL_PORT, "model server".to_owned()), refusing]);
        config.egress.allow = vec![".github.com".into()];
        config.egress.host_ports = vec![5432];
        assert_eq!(said(&config)[1].1, "proxy to .github.com");
        assert_eq!(said(&config)[2], (5432, "port 5432 of this machine's loopback".to_owned()));
        config.egress.open = true;
        assert_eq!(said(&config)[1].1, "proxy to EVERY public name");
    }

    #[test]
    fn root_is_not_a_user() {
        for wrong in ["0", "0:0", "1000:0", "0:1000", "root", "", "1000:", "-1", "1000:1000:1"] {
            assert!(wrong.parse::<User>().is_err(), "{wrong}");
        }
        assert_eq!("1000".parse::<User>().expect("a user").to_string(), "1000:1000");
    }

    #[test]
    fn the_profile_is_json_and_denies_by_default() {
        let profile: serde_json::Value = serde_json::from_str(SECCOMP).expect("JSON");
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    }
}
