//! What the kernel answers, asked by number from inside: every family of calls that the profile
//! denies, tricks with high bits, and the numbers of other architectures.

use crate::common::{Workspace, engine, workspace};
use crate::inside::{assert_lines, attack};

const PROBES: &str = include_str!("inside/calls.c");

const EXPECTED: &str = include_str!("expected/calls.txt");
#[cfg(target_arch = "x86_64")]
const OLD_NUMBERS: &str = include_str!("expected/calls.x86_64.txt");
#[cfg(not(target_arch = "x86_64"))]
const OLD_NUMBERS: &str = "";

#[tokio::test(flavor = "multi_thread")]
async fn by_number() {
    let home = Workspace::new();
    home.write("calls.c", PROBES);
    let seen = attack(&home, "gcc -O1 -o /tmp/calls calls.c && /tmp/calls").await;
    // A newer libseccomp knows this number, and refuses it as all others that are not in the profile.
    let told =
        seen.told.replace("lsm_list_modules: refused EPERM", "lsm_list_modules: absent ENOSYS");
    assert_lines(&told, &format!("{EXPECTED}{OLD_NUMBERS}"));

    // The same probes without the filter: what they look for exists on this kernel, and they see
    // it. Only those that any kernel has and any user may call.
    let image = seen.report["sandbox"]["image"].as_str().expect("an image");
    let (uid, gid) = workspace::person();
    let user = format!("{uid}:{gid}");
    let probes = format!("{}:/calls.c:ro", home.at("calls.c").display());
    let unfiltered = engine::docker([
        "run",
        "--rm",
        "--network",
        "none",
        "--cap-drop",
        "ALL",
        "--user",
        &user,
        "--security-opt",
        "no-new-privileges",
        "--security-opt",
        "seccomp=unconfined",
        "--tmpfs",
        "/tmp:exec,mode=1777",
        "--volume",
        &probes,
        "--entrypoint",
        "sh",
        image,
        "-c",
        "gcc -O1 -o /tmp/calls /calls.c && /tmp/calls",
    ]);
    assert!(unfiltered.lines().any(|line| line == "done"), "{unfiltered}");
    for name in [
        "ptrace traceme",
        "process_vm_readv",
        "personality no randomisation",
        "clone3 without flags",
        "whiteout",
        "rename with a whiteout",
        "chmod setuid",
        "create setuid",
        "unnamed setuid",
        "openat2",
        "prlimit64 of another",
        "setpriority of another",
        "ioprio_set of another",
        "sched_setscheduler",
        "pidfd_getfd",
        "fanotify_mark",
        "adjtimex",
        "mount_setattr",
        "socket of any other family",
        "socket pair of any other family",
        "netlink beyond route",
        "raw, packet, dccp and seqpacket over ip",
        "any other protocol over ip",
    ] {
        let start = format!("{name}: ");
        let line = unfiltered.lines().find(|line| line.starts_with(&start)).expect(name);
        let through = ["GOT THROUGH", "REACHED THE KERNEL"].iter().any(|word| line.contains(word));
        assert!(through, "this probe would not notice: {line}");
    }
}
