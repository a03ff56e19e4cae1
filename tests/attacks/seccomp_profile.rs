//! `config/seccomp.json` is nowhere weaker than the engine's default profile, and denies what that
//! one allows and no agent needs. Read here as the kernel reads it; `system_calls.rs` asks the
//! kernel itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What the engine's default allows without a capability: facts, not its text.
const DEFAULT: &str = include_str!("facts/engine-default-syscalls.txt");

/// Whatever we allow beyond the default, with its reason. None so far.
const MORE_THAN_THE_DEFAULT: [(&str, &str); 0] = [];

/// The flags of clone that make a namespace: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID,
/// NEWNET.
const NAMESPACES: [u64; 7] = [1 << 17, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Errno(u64),
}

/// One argument under a mask.
struct Condition {
    index: usize,
    mask: u64,
    value: u64,
}

struct Rule {
    verdict: Verdict,
    conditions: Vec<Condition>,
}

struct Profile {
    rules: BTreeMap<String, Vec<Rule>>,
    otherwise: Verdict,
    document: Value,
}

impl Profile {
    fn ours() -> Self {
        let text = include_str!("../../config/seccomp.json");
        let document: Value = serde_json::from_str(text).expect("the profile is JSON");
        let mut rules: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
        for group in document["syscalls"].as_array().expect("rules") {
            for name in group["names"].as_array().expect("names") {
                let conditions = group["args"].as_array().map_or(&[][..], Vec::as_slice);
                rules.entry(name.as_str().expect("a name").into()).or_default().push(Rule {
                    verdict: action(&group["action"], &group["errnoRet"]),
                    conditions: conditions.iter().map(condition).collect(),
                });
            }
        }
        let otherwise = action(&document["defaultAction"], &document["defaultErrnoRet"]);
        Self { rules, otherwise, document }
    }

    /// Every name that some arguments are allowed for.
    fn allowed_names(&self) -> BTreeSet<&str> {
        let allows = |rules: &[Rule]| rules.iter().any(|rule| rule.verdict == Verdict::Allow);
        self.rules
            .iter()
            .filter(|(_, rules)| allows(rules))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The verdict on one call. Rules with conditions count where all of them hold.
    fn verdict(&self, name: &str, args: [u64; 6]) -> Verdict {
        let rules = self.rules.get(name).map_or(&[][..], Vec::as_slice);
        let holds = |of: &Condition| args[of.index] & of.mask == of.value;
        let mut told =
            rules.iter().filter(|rule| rule.conditions.iter().all(holds)).map(|rule| rule.verdict);
        let verdict = told.next().unwrap_or(self.otherwise);
        assert!(told.all(|other| other == verdict), "{name} {args:?}: rules contradict");
        verdict
    }

    fn allows(&self, name: &str, args: [u64; 6]) -> bool {
        self.verdict(name, args) == Verdict::Allow
    }
}

fn action(action: &Value, errno: &Value) -> Verdict {
    match action.as_str() {
        Some("SCMP_ACT_ALLOW") => Verdict::Allow,
        Some("SCMP_ACT_ERRNO") => Verdict::Errno(errno.as_u64().expect("an errno")),
        other => panic!("an action that this test does not know: {other:?}"),
    }
}

fn condition(of: &Value) -> Condition {
    let number = |key: &str| of[key].as_u64().expect("a number");
    let index = usize::try_from(number("index")).expect("an index");
    match of["op"].as_str() {
        Some("SCMP_CMP_EQ") => Condition { index, mask: u64::MAX, value: number("value") },
        Some("SCMP_CMP_MASKED_EQ") => {
            Condition { index, mask: number("value"), value: number("valueTwo") }
        }
        other => panic!("a comparison that this test does not know: {other:?}"),
    }
}

fn default_names() -> BTreeSet<&'static str> {
    DEFAULT.lines().filter(|line| !line.starts_with('#')).collect()
}

/// The families that the default allows: all but `AF_ALG` (38) and `AF_VSOCK` (40).
fn default_allows_family(family: u64) -> bool {
    !matches!(family, 38 | 40)
}

#[test]
fn nothing_that_the_default_denies_is_allowed() {
    let (ours, default) = (Profile::ours(), default_names());
    let more: Vec<&str> = ours
        .allowed_names()
        .into_iter()
        .filter(|name| !default.contains(name))
        .filter(|name| !["clone", "personality", "socket"].contains(name))
        .collect();
    let explained: Vec<&str> = MORE_THAN_THE_DEFAULT.iter().map(|(name, _)| *name).collect();
    assert_eq!(more, explained);
    // The list is what it says: some that everybody needs, none that need a capability.
    assert!(default.len() > 300, "{}", default.len());
    for known in ["read", "execve", "ptrace", "socketpair"] {
        assert!(default.contains(known), "{known}");
    }
    for never in ["mount", "bpf", "setns", "unshare", "io_uring_setup", "userfaultfd", "keyctl"] {
        assert!(!default.contains(never), "{never}");
    }
    let sorted: Vec<&str> = default.iter().copied().collect();
    let listed: Vec<&str> = DEFAULT.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(listed, sorted, "sorted, without doubles");
}

#[test]
fn conditions_are_no_wider_than_the_defaults() {
    let ours = Profile::ours();
    for family in (0..=300).chain([u64::MAX, 1 << 32, (1 << 32) + 38, (1 << 32) + 40]) {
        for kind in 0..16 {
            for protocol in (0..=300).chain([u64::MAX]) {
                let args = [family, kind, protocol, 0, 0, 0];
                if ours.allows("socket", args) {
                    assert!(default_allows_family(family), "{args:?}");
                }
            }
        }
    }
    let default_personalities = [0, 8, 0x20000, 0x20008, 0xffff_ffff];
    for bit in 0..64 {
        for value in [1_u64 << bit, (1 << bit) | 8, (1 << bit) - 1] {
            let known = default_personalities.contains(&value);
            let allowed = ours.allows("personality", [value, 0, 0, 0, 0, 0]);
            assert!(!allowed || known, "{value:#x}");
        }
    }
    for flag in NAMESPACES {
        for more in [0, 17, 0x003d_0f00, u64::MAX] {
            let args = [flag | more, 0, 0, 0, 0, 0];
            assert!(!ours.allows("clone", args), "{args:?}");
        }
    }
    assert!(ours.allows("clone", [17, 0, 0, 0, 0, 0]), "a fork is");
    assert!(ours.allows("clone", [0x003d_0f00, 0, 0, 0, 0, 0]), "a thread is");
}

#[test]
fn sockets_are_unix_tcp_udp_and_route_netlink() {
    let ours = Profile::ours();
    let (close_on_exec, non_blocking) = (0x80000, 0x800);
    let mut allowed = BTreeSet::new();
    for family in 0..=64 {
        for kind in 0..16 {
            for protocol in 0..=300 {
                for flags in [0, close_on_exec, non_blocking, close_on_exec | non_blocking] {
                    if ours.allows("socket", [family, kind | flags, protocol, 0, 0, 0]) {
                        allowed.insert((family, kind, protocol));
                    }
                }
            }
        }
    }
    let others: BTreeSet<_> =
        allowed.iter().copied().filter(|(family, _, _)| ![1, 16].contains(family)).collect();
    let ip = |family| [(family, 1, 0), (family, 1, 6), (family, 2, 0), (family, 2, 17)];
    assert_eq!(others, ip(2).into_iter().chain(ip(10)).collect());
    assert!(allowed.iter().all(|(family, _, protocol)| *family != 16 || *protocol == 0));
    for family in 0..=64 {
        assert_eq!(ours.allows("socketpair", [family, 1, 0, 0, 0, 0]), family == 1, "{family}");
    }
    // The old multiplexer hides its arguments from any filter.
    assert!(!ours.allows("socketcall", [0; 6]));
}

#[test]
fn what_the_default_allows_and_no_agent_needs_is_denied() {
    let ours = Profile::ours();
    let allowed = ours.allowed_names();
    for name in [
        // the default allows these
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "adjtimex",
        "clock_adjtime",
        "fanotify_mark",
        "name_to_handle_at",
        "memfd_secret",
        "modify_ldt",
        "process_mrelease",
        "remap_file_pages",
        "statmount",
        "listmount",
        "cachestat",
        // these it gives with a capability, or never
        "acct",
        "add_key",
        "bpf",
        "chroot",
        "clock_settime",
        "delete_module",
        "fanotify_init",
        "finit_module",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "init_module",
        "ioperm",
        "iopl",
        "kcmp",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "mbind",
        "migrate_pages",
        "mount",
        "mount_setattr",
        "move_mount",
        "move_pages",
        "nfsservctl",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pidfd_getfd",
        "pivot_root",
        "process_madvise",
        "quotactl",
        "quotactl_fd",
        "reboot",
        "request_key",
        "setdomainname",
        "sethostname",
        "setns",
        "settimeofday",
        "swapoff",
        "swapon",
        "syslog",
        "umount",
        "umount2",
        "unshare",
        "userfaultfd",
        "uselib",
        "ustat",
        "vhangup",
        "vm86",
        "vm86old",
    ] {
        assert!(!allowed.contains(name), "{name}");
        assert_ne!(ours.verdict(name, [0; 6]), Verdict::Allow, "{name}");
    }
    assert!(!ours.allows("renameat2", [0, 0, 0, 0, 4, 0]), "a whiteout is a device");
    assert!(ours.allows("renameat2", [0, 0, 0, 0, 1, 0]));
    for (mode, may) in [
        (0o020_666, false),
        (0o060_666, false),
        (0o010_666, true),
        (0o100_666, true),
        (0o140_666, true),
        (0o666, true),
    ] {
        assert_eq!(ours.allows("mknod", [0, mode, 0, 0, 0, 0]), may, "{mode:o}");
        assert_eq!(ours.allows("mknodat", [0, 0, mode, 0, 0, 0]), may, "{mode:o}");
    }
    for other in [1, 2, 1000] {
        for name in ["prlimit64", "sched_setattr", "sched_setparam", "sched_setscheduler"] {
            assert!(!ours.allows(name, [other, 0, 0, 0, 0, 0]), "{name} of process {other}");
            assert!(ours.allows(name, [0; 6]), "{name} of the caller");
        }
        assert!(!ours.allows("setpriority", [0, other, 0, 0, 0, 0]));
    }
}

#[test]
fn what_libraries_probe_looks_absent_and_the_rest_is_refused() {
    let ours = Profile::ours();
    let absent = Verdict::Errno(38);
    for name in [
        "clone3",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "get_mempolicy",
        "mbind",
        "set_mempolicy",
        "memfd_secret",
        "cachestat",
        "statmount",
        "listmount",
        "name_to_handle_at",
    ] {
        assert_eq!(ours.verdict(name, [0; 6]), absent, "{name}");
    }
    for name in ["mount", "ptrace", "bpf", "keyctl", "a_call_of_the_future"] {
        assert_eq!(ours.verdict(name, [0; 6]), Verdict::Errno(1), "{name}");
    }
}

#[test]
fn only_the_two_native_architectures() {
    let ours = Profile::ours();
    let map = ours.document["archMap"].as_array().expect("a map");
    let names: Vec<&str> =
        map.iter().map(|arch| arch["architecture"].as_str().expect("a name")).collect();
    assert_eq!(names, ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]);
    for arch in map {
        assert_eq!(arch["subArchitectures"], serde_json::json!([]), "no i386, x32 or arm");
    }
    assert!(ours.document["flags"].is_null(), "no flag that weakens the filter");
}
