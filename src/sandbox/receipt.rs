//! What the guest saw of its own isolation, held against the policy before the agent starts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Policy;
use super::mounted::MountSeen;
use super::policy::{NO_CPU_LIMIT, NO_MEMORY_LIMIT, NO_PIDS_LIMIT, ROOT_INSIDE};

/// The devices of every container.
const DEVICES: [&str; 8] = ["console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"];

/// The isolation as observed from inside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// The version of the frames in which it came.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub pipe: u32,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: String,
    pub capabilities: Capabilities,
    pub no_new_privs: bool,
    /// 2 is a filter.
    pub seccomp: u32,
    pub root_read_only: bool,
    pub interfaces: Vec<String>,
    pub routes: u64,
    pub limits: Limits,
    pub core_limit: Option<u64>,
    pub tmpfs: Vec<TmpfsSeen>,
    pub writable_mounts: Vec<String>,
    /// The names of devices in `/dev`. For the comparison alone.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub devices: Vec<String>,
    /// What is mounted in the workspace; an old image does not say. For the comparison alone: it is
    /// long, and says nothing to who reads the report.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub workspace_mounts: Vec<MountSeen>,
    pub hostname: String,
    /// The control groups that the sandbox sees itself in, as the kernel names them: `/` in a
    /// namespace of its own.
    #[serde(default)]
    pub cgroups: Vec<String>,
    /// The kernel inside is gVisor's own, which shows less of itself.
    #[serde(default)]
    pub gvisor: bool,
    /// The controls that the engine does not give, which `sandbox.accept` allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// Capability sets as the kernel prints them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    pub inheritable: String,
    pub permitted: String,
    pub effective: String,
    pub bounding: String,
    pub ambient: String,
}

/// Limits of the control group; absent where the kernel shows none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    pub pids: Option<u64>,
    pub memory: Option<u64>,
    pub memory_swap: Option<u64>,
    pub cpu: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TmpfsSeen {
    pub path: String,
    pub size_kb: Option<u64>,
    pub options: String,
}

impl Limits {
    /// The limits of the policy that are not there, in the words of `sandbox.accept` and in ours.
    fn lacking(&self, policy: &Policy) -> Vec<(&'static str, String)> {
        let is_within = |seen: Option<u64>, most: u64| seen.is_some_and(|seen| seen <= most);
        let pids = u64::from(policy.pids);
        let has_processors = self.cpu.is_some_and(|cpu| cpu <= policy.cpus + 0.01);
        let all = [
            (
                is_within(self.pids, pids),
                NO_PIDS_LIMIT,
                format!("process limit is {:?} instead of {pids}", self.pids),
            ),
            (
                is_within(self.memory, policy.memory),
                NO_MEMORY_LIMIT,
                format!("memory limit is {:?} instead of {}", self.memory, policy.memory),
            ),
            (
                has_processors,
                NO_CPU_LIMIT,
                format!("processor limit is {:?} instead of {}", self.cpu, policy.cpus),
            ),
        ];
        all.into_iter().filter_map(|(has, name, words)| (!has).then_some((name, words))).collect()
    }

    fn is_absent(&self, name: &str) -> bool {
        match name {
            NO_PIDS_LIMIT => self.pids.is_none(),
            NO_MEMORY_LIMIT => self.memory.is_none(),
            _ => self.cpu.is_none(),
        }
    }

    /// Each limit that the run may not go without. `unseen`: what is not shown is there.
    fn mismatches(&self, policy: &Policy, unseen: bool) -> Vec<String> {
        let lacking = self.lacking(policy);
        let has_memory = !lacking.iter().any(|(name, _)| *name == NO_MEMORY_LIMIT);
        let (names, mut wrong): (Vec<_>, Vec<_>) = lacking
            .into_iter()
            .filter(|(name, _)| !(policy.accepts(name) || unseen && self.is_absent(name)))
            .unzip();
        if !wrong.is_empty() && !unseen {
            wrong.push(format!(
                "an engine without control groups of its own limits nothing (a rootless one needs \
                 version 2 and `Delegate=yes` for user@.service); `sandbox.accept = {names:?}` goes \
                 on without"
            ));
        }
        // A kernel without swap accounting shows none; then there is no swap to limit either, or
        // the engine has said so in a warning.
        let is_unlimited = self.memory_swap.is_some_and(|swap| swap > policy.memory_and_swap);
        if is_unlimited && (has_memory || !policy.accepts(NO_MEMORY_LIMIT)) {
            wrong.push(format!("memory and swap limit is {:?}", self.memory_swap));
        }
        wrong
    }
}

impl Receipt {
    /// Tells which controls the sandbox does not have, as `sandbox.accept` allows.
    pub fn tell_missing(&mut self, policy: &Policy) {
        let missing = self.limits.lacking(policy).into_iter().map(|(name, _)| name);
        let missing = missing.filter(|limit| {
            policy.accepts(limit) && !(self.gvisor && self.limits.is_absent(limit))
        });
        let root = (self.uid == 0).then_some(ROOT_INSIDE);
        self.without = missing.chain(root).map(str::to_owned).collect();
    }

    /// Each point in which the sandbox is not what the policy says. Empty is good.
    pub fn mismatches(&self, policy: &Policy) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut hold = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        hold(
            self.gvisor == policy.is_gvisor(),
            if self.gvisor {
                "the kernel is gVisor's, which was not asked for".into()
            } else {
                "the kernel is the host's, and gVisor was asked for".into()
            },
        );
        // Its kernel enforces by itself what is asked of the host's otherwise, and shows neither
        // that nor the control group, which is around all of it. What it shows must be right.
        let unseen = self.gvisor;
        let user = policy.user;
        hold(
            (self.uid, self.gid) == (user.uid(), user.gid()),
            format!("user is {}:{} instead of {user}", self.uid, self.gid),
        );
        hold(
            self.groups.iter().all(|group| *group == user.gid() || policy.groups.contains(group))
                && policy.groups.iter().all(|group| self.groups.contains(group)),
            format!("extra groups {:?}", self.groups),
        );
        let caps = &self.capabilities;
        for (name, set) in [
            ("inheritable", &caps.inheritable),
            ("permitted", &caps.permitted),
            ("effective", &caps.effective),
            ("bounding", &caps.bounding),
            ("ambient", &caps.ambient),
        ] {
            hold(
                (!set.is_empty() || (unseen && name == "ambient"))
                    && set.bytes().all(|digit| digit == b'0'),
                format!("{name} capabilities are {set} instead of none"),
            );
        }
        hold(self.no_new_privs || unseen, "no_new_privs is off".into());
        hold(self.seccomp == 2 || unseen, format!("seccomp mode is {} instead of 2", self.seccomp));
        hold(self.root_read_only, "the root file system is writable".into());
        hold(
            self.interfaces.iter().all(|name| name == "lo"),
            format!("network interfaces {:?} instead of lo alone", self.interfaces),
        );
        hold(self.routes == 0, format!("{} network routes", self.routes));
        for one in self.limits.mismatches(policy, unseen) {
            hold(false, one);
        }
        hold(
            self.core_limit.map_or(unseen, |limit| limit == 0),
            format!("core dump limit is {:?}", self.core_limit),
        );
        hold(
            unseen || (!self.cgroups.is_empty() && self.cgroups.iter().all(|name| name == "/")),
            format!("control groups {:?} instead of a namespace of its own", self.cgroups),
        );
        for device in &self.devices {
            // gVisor's devices are its own.
            hold(DEVICES.contains(&device.as_str()) || unseen, format!("/dev/{device} is there"));
        }
        for path in &self.writable_mounts {
            let allowed = ["/dev/shm", "/dev/mqueue", "/dev", "/dev/pts"].contains(&path.as_str())
                || policy.tmpfs.iter().any(|tmpfs| tmpfs.path == path)
                || policy
                    .mounts
                    .iter()
                    .any(|mount| !mount.read_only && mount.target.as_os_str() == path.as_str());
            hold(allowed, format!("{path} is writable"));
        }
        for tmpfs in &policy.tmpfs {
            let seen = self.tmpfs.iter().find(|seen| seen.path == tmpfs.path);
            hold(
                seen.and_then(|seen| seen.size_kb)
                    .is_some_and(|kb| kb <= tmpfs.size.div_ceil(1024)),
                format!("{} is {:?} instead of {} bytes", tmpfs.path, seen, tmpfs.size),
            );
        }
        wrong
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Config;
    use crate::sandbox::User;

    pub fn policy() -> Policy {
        Policy::new(
            &Config::default(),
            User::new(1000, 1000).expect("a user"),
            super::super::WORKSPACE.into(),
            Vec::new(),
        )
    }

    pub fn good(policy: &Policy) -> Receipt {
        let none = || "0000000000000000".to_owned();
        Receipt {
            pipe: 1,
            uid: 1000,
            gid: 1000,
            groups: vec![],
            umask: "0027".into(),
            capabilities: Capabilities {
                inheritable: none(),
                permitted: none(),
                effective: none(),
                bounding: none(),
                ambient: none(),
            },
            no_new_privs: true,
            seccomp: 2,
            root_read_only: true,
            interfaces: vec!["lo".into()],
            routes: 0,
            limits: Limits {
                pids: Some(policy.pids.into()),
                memory: Some(policy.memory),
                memory_swap: Some(policy.memory),
                cpu: Some(policy.cpus),
            },
            core_limit: Some(0),
            tmpfs: policy
                .tmpfs
                .iter()
                .map(|tmpfs| TmpfsSeen {
                    path: tmpfs.path.into(),
                    size_kb: Some(tmpfs.size / 1024),
                    options: String::new(),
                })
                .collect(),
            devices: DEVICES.map(str::to_owned).into(),
            writable_mounts: vec!["/tmp".into(), "/home/agent".into(), "/dev/shm".into()],
            workspace_mounts: Vec::new(),
            hostname: "sandbox".into(),
            cgroups: vec!["/".into()],
            gvisor: false,
            without: Vec::new(),
        }
    }

    /// The engine mounts by name; what is there must be what has that name, and no link.
    #[test]
    fn the_kernel_must_be_the_one_that_was_asked_for() {
        let mut policy = policy();
        let mut receipt = good(&policy);
        receipt.gvisor = true;
        assert_eq!(receipt.mismatches(&policy).len(), 1, "nobody asked for it");
        policy.runtime = Some("runsc".into());
        assert_eq!(receipt.mismatches(&policy), [] as [&str; 0]);
        // What gVisor does not show is excused, and what it shows wrong is not.
        receipt.no_new_privs = false;
        receipt.seccomp = 0;
        receipt.capabilities.ambient.clear();
        receipt.limits = Limits { pids: None, memory: None, memory_swap: None, cpu: None };
        assert_eq!(receipt.mismatches(&policy), [] as [&str; 0]);
        receipt.limits.memory = Some(policy.memory + 1);
        receipt.capabilities.effective = "0000000000000001".into();
        assert_eq!(receipt.mismatches(&policy).len(), 2);
        let host = good(&policy);
        assert_eq!(host.mismatches(&policy).len(), 1, "the host's kernel instead");
    }

    #[test]
    fn a_limit_is_missing_only_where_that_is_accepted() {
        let mut policy = policy();
        let mut receipt = good(&policy);
        receipt.limits = Limits { pids: None, memory: None, memory_swap: None, cpu: Some(1e6) };
        let wrong = receipt.mismatches(&policy);
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        let accept = r#"["no-pids-limit", "no-memory-limit", "no-cpu-limit"]"#;
        assert!(wrong[3].contains(accept), "{wrong:?}");
        policy.accepted = vec![NO_MEMORY_LIMIT.into(), NO_CPU_LIMIT.into()];
        let wrong = receipt.mismatches(&policy);
        assert!(wrong.len() == 2 && wrong[0].contains("process limit"), "{wrong:?}");
        policy.accepted.push(NO_PIDS_LIMIT.into());
        assert_eq!(receipt.mismatches(&policy), [] as [&str; 0]);
        receipt.tell_missing(&policy);
        assert_eq!(receipt.without, [NO_PIDS_LIMIT, NO_MEMORY_LIMIT, NO_CPU_LIMIT]);
        // What is there is held to, and told as it is.
        let mut limited = good(&policy);
        limited.tell_missing(&policy);
        assert_eq!(limited.without, [] as [&str; 0]);
    }

    type Weaken = fn(&mut Receipt);

    #[test]
    fn every_weakening_is_seen() {
        let policy = policy();
        let good = good(&policy);
        assert_eq!(good.mismatches(&policy), Vec::<String>::new());
        let weaker: &[(&str, Weaken)] = &[
            ("user", |r| r.uid = 0),
            ("groups", |r| r.groups = vec![0]),
            ("effective", |r| r.capabilities.effective = "0000000000000400".into()),
            ("bounding", |r| r.capabilities.bounding = "00000000a80425fb".into()),
            ("no_new_privs", |r| r.no_new_privs = false),
            ("seccomp", |r| r.seccomp = 0),
            ("root file system", |r| r.root_read_only = false),
            ("interfaces", |r| r.interfaces.push("eth0".into())),
            ("routes", |r| r.routes = 1),
            ("process limit", |r| r.limits.pids = None),
            ("memory limit", |r| r.limits.memory = Some(u64::MAX)),
            ("swap", |r| r.limits.memory_swap = Some(u64::MAX)),
            ("processor", |r| r.limits.cpu = None),
            ("core dump", |r| r.core_limit = None),
            ("control groups", |r| r.cgroups.push("/docker/x".into())),
            ("/dev/kvm", |r| r.devices.push("kvm".into())),
            ("/etc", |r| r.writable_mounts.push("/etc".into())),
            ("/tmp", |r| r.tmpfs[0].size_kb = None),
        ];
        for (word, weaken) in weaker {
            let mut receipt = good.clone();
            weaken(&mut receipt);
            let found = receipt.mismatches(&policy);
            assert!(found.iter().any(|line| line.contains(word)), "{word}: {found:?}");
        }
    }
}
