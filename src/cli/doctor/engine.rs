//! The container engine: where it is, and whether it can hold a sandbox as the policy wants it.

use std::os::unix::fs::MetadataExt;

use super::finding::{Finding, Level};
use super::runc::{self, Verdict};
use crate::config::Config;
use crate::engine::{Engine, Error, Facts};
use crate::sandbox;

/// The oldest version of Docker's API that this program is tested with, that of 20.10.
const TESTED_API: (u32, u32) = (1, 41);

/// What to say of the engine, and the engine where there is one.
pub async fn examine(config: &Config) -> (Vec<Finding>, Option<(Engine, Facts)>) {
    let engine = match Engine::connect(config.engine.host.as_deref()).await {
        Ok(engine) => engine,
        Err(error) => return (vec![absent(&error)], None),
    };
    let facts = match engine.facts().await {
        Ok(facts) => facts,
        Err(error) => return (vec![absent(&error)], None),
    };
    let mut findings = vec![found(&engine, &facts), access(&facts), kernel(&facts)];
    let others = engine.others();
    if !others.is_empty() {
        let message = format!("{}; `engine.host` or DOCKER_HOST chooses", others.join(", "));
        findings.push(Finding::ok("others", message));
    }
    let accepted = &config.sandbox.accept;
    findings.push(users(&facts, accepted));
    findings.extend(limits(&facts, accepted));
    findings.push(storage(&facts));
    findings.push(seccomp(&facts));
    findings.extend(runtime(config.sandbox.runtime.as_deref(), &facts));
    // Other warnings of engines are about what sandboxes do not use.
    let exposed = facts.warnings.iter().filter(|warning| warning.contains("API is accessible"));
    findings.extend(exposed.map(|warning| {
        let remedy = "let it listen on its socket only: whoever reaches that port is root here";
        Finding::warning("exposure", warning, remedy)
    }));
    (findings, Some((engine, facts)))
}

fn absent(error: &Error) -> Finding {
    match error {
        Error::NotFound { tried } => Finding::error(
            "found",
            format!("no engine answers; tried {}", tried.join(", ")),
            "start Docker (`sudo systemctl start docker`) or Podman (`systemctl --user start \
             podman.socket`), or set DOCKER_HOST; `scripts/engine-up` of the source installs one",
        ),
        Error::Denied { host, .. } => Finding::error(
            "found",
            format!("the engine at {host} is not for this user: no permission for its socket"),
            "`sudo usermod -aG docker $USER` and log in again (members of that group can become \
             root on this machine), or use a rootless engine",
        ),
        Error::Unsupported { .. } => Finding::error(
            "found",
            error.to_string(),
            "start the engine that listens there, or correct or remove that setting",
        ),
        Error::Api { .. }
        | Error::Away { .. }
        | Error::TimedOut { .. }
        | Error::Build { .. }
        | Error::VolumeTaken { .. } => Finding::error(
            "found",
            error.to_string(),
            "look at the engine's log (`journalctl -u docker`), and restart it",
        ),
    }
}

fn found(engine: &Engine, facts: &Facts) -> Finding {
    let name = if is_podman(facts) { "Podman" } else { "Docker" };
    let message = format!(
        "{name} {} (API {}) at {}, {}",
        facts.version,
        facts.api_version,
        engine.host(),
        engine.because()
    );
    match api(&facts.api_version) {
        Some(api) if api < TESTED_API => {
            Finding::warning("found", message, "update it: older than 20.10 is not tested")
        }
        _ => Finding::ok("found", message),
    }
}

fn is_podman(facts: &Facts) -> bool {
    facts.name == "podman"
}

fn api(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// By what right we use the engine, for people who wonder who else can.
fn access(facts: &Facts) -> Finding {
    let Some(socket) = facts.host.strip_prefix("unix://") else {
        return Finding::ok("access", "by network; whoever reaches that address can use it too");
    };
    let us = rustix::process::geteuid();
    let message = match std::fs::metadata(socket) {
        _ if us.is_root() => "as root".to_owned(),
        Ok(found) if found.uid() == us.as_raw() => "it is this user's own".to_owned(),
        Ok(found) if in_group(found.gid()) => format!(
            "as a member of group {}, who can all become root on this machine; a rootless engine \
             gives nobody that",
            found.gid()
        ),
        _ => "its socket is open to this user".to_owned(),
    };
    Finding::ok("access", message)
}

fn in_group(group: u32) -> bool {
    rustix::process::getegid().as_raw() == group
        || rustix::process::getgroups()
            .is_ok_and(|groups| groups.iter().any(|one| one.as_raw() == group))
}

fn kernel(facts: &Facts) -> Finding {
    let (kernel, architecture) = (&facts.kernel, &facts.architecture);
    let whose = match (facts.same_kernel, facts.host.starts_with("unix://")) {
        (true, true) => "this machine's own",
        (true, false) => "like this machine's own",
        (false, _) => {
            "another than this machine's; where it does not see a workspace, that is copied to it"
        }
    };
    Finding::ok("kernel", format!("{kernel} {architecture}, {whose}"))
}

fn users(facts: &Facts, accepted: &[String]) -> Finding {
    if facts.makes_its_user_root() {
        let message = "rootless: its user is root inside, who could read what the sandbox's first \
                       process says";
        let remedy = "use a rootless Podman, or Docker as root; `sandbox.accept = [\"root-inside\"]` \
                      goes on without";
        let is_accepted = accepted.iter().any(|one| one == sandbox::ROOT_INSIDE);
        let level = if is_accepted { Level::Warning } else { Level::Error };
        return Finding::bad(level, "users", message, remedy);
    }
    Finding::ok(
        "users",
        if facts.rootless {
            "rootless: sandboxes run as you, and root inside is nobody outside"
        } else if facts.userns_remap {
            "remapped (`userns-remap`), but sandboxes run as you, or as the workspace's owner"
        } else {
            "rootful: sandboxes run as you, or as the workspace's owner; never as root"
        },
    )
}

/// The limits of the policy. The receipt of a sandbox without one of them is refused.
fn limits(facts: &Facts, accepted: &[String]) -> Vec<Finding> {
    let cgroup = format!("cgroup v{}", facts.cgroup_version.trim_start_matches('v'));
    let needed = [
        ("memory", facts.memory_limit, sandbox::NO_MEMORY_LIMIT),
        ("processes", facts.pids_limit, sandbox::NO_PIDS_LIMIT),
        ("processors", facts.cpu_limit, sandbox::NO_CPU_LIMIT),
    ];
    let lacking = needed.iter().filter(|(_, there, _)| !there);
    let is_accepted = |word: &str| accepted.iter().any(|one| one == word);
    let refused = lacking.clone().any(|(_, _, word)| !is_accepted(word));
    let lacking: Vec<_> = lacking.map(|(name, _, _)| *name).collect();
    let remedy = if facts.rootless {
        "let systemd delegate the controllers to this user (`Delegate=cpu cpuset io memory pids` \
         for user@.service, on cgroup v2), or set `sandbox.accept`"
    } else {
        "switch the controllers on in the kernel's command line (`cgroup_enable=memory \
         swapaccount=1`), or boot with cgroup v2"
    };
    let mut findings = vec![if lacking.is_empty() {
        Finding::ok("limits", format!("{cgroup}; memory, processes and processors can be limited"))
    } else {
        let message = format!("{cgroup}; no limit can be set on {}", lacking.join(", "));
        let level = if refused { Level::Error } else { Level::Warning };
        Finding::bad(level, "limits", message, remedy)
    }];
    if facts.memory_limit && !facts.swap_limit {
        let message = "swap cannot be limited: a sandbox may use as much again as its memory";
        findings.push(Finding::warning("swap", message, remedy));
    }
    findings
}

fn storage(facts: &Facts) -> Finding {
    let place = facts.root_dir.as_deref().unwrap_or("an unknown folder");
    let message = format!("{} in {place}", facts.storage_driver);
    if facts.storage_driver == "vfs" {
        let remedy = "use overlay2 (or fuse-overlayfs): vfs copies the whole image for each run";
        return Finding::warning("storage", message, remedy);
    }
    Finding::ok("storage", message)
}

fn seccomp(facts: &Facts) -> Finding {
    if facts.seccomp {
        return Finding::ok("seccomp", "system calls can be filtered");
    }
    Finding::error(
        "seccomp",
        "the engine cannot filter system calls, and no sandbox starts without that",
        "use a kernel with CONFIG_SECCOMP_FILTER and an engine that was built with seccomp",
    )
}

fn runtime(configured: Option<&str>, facts: &Facts) -> Vec<Finding> {
    let default = facts.default_runtime.as_deref().filter(|name| !name.is_empty());
    let runtime = configured.or(default).unwrap_or("the engine's default");
    let known = facts.runtimes.join(", ");
    let mut findings = Vec::new();
    let missing = configured.is_some_and(|name| !facts.runtimes.iter().any(|one| one == name));
    findings.push(if missing {
        // Newer engines also take the name or path of a shim that nobody listed.
        let maybe = runtime.contains(['.', '/']);
        let message = format!("`sandbox.runtime` is {runtime}, and the engine lists {known}");
        let remedy = "add it to the engine's configuration, or set `sandbox.runtime` to one of \
                      these or not at all";
        Finding::bad(if maybe { Level::Warning } else { Level::Error }, "runtime", message, remedy)
    } else {
        Finding::ok("runtime", format!("{runtime} (there are {known})"))
    });
    if runtime.contains("runc")
        && let Some(version) = &facts.runc_version
    {
        findings.push(runc(version));
    }
    findings
}

fn runc(version: &str) -> Finding {
    let faults = runc::FAULTS;
    match runc::judge(version) {
        Verdict::Mended => Finding::ok("runc", format!("{version}, which has the mends of 2025")),
        Verdict::Open => Finding::warning(
            "runc",
            format!("{version} has the ways out of a container {faults}"),
            "update runc to 1.2.8, 1.3.3 or newer (with Docker's packages: containerd.io)",
        ),
        Verdict::Packaged => Finding::warning(
            "runc",
            format!(
                "{version} has the ways out of a container {faults}, unless your distribution has \
                 backported the mends, which its version does not tell"
            ),
            "look for them in its change log (on Debian and Ubuntu `zgrep CVE-2025-31133 \
             /usr/share/doc/runc/changelog.Debian.gz`), or update runc to 1.2.8, 1.3.3 or newer",
        ),
        Verdict::Unreadable => Finding::warning(
            "runc",
            format!("its version `{version}` cannot be read"),
            format!("make sure that it is 1.2.8, 1.3.3 or newer ({faults})"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            host: "unix:///run/engine.sock".into(),
            name: "docker".into(),
            version: "29.0".into(),
            api_version: "1.52".into(),
            runc_version: Some("1.3.3".into()),
            kernel: "6.12".into(),
            rootless: false,
            userns_remap: false,
            seccomp: true,
            cgroup_version: "2".into(),
            memory_limit: true,
            swap_limit: true,
            pids_limit: true,
            cpu_limit: true,
            storage_driver: "overlay2".into(),
            root_dir: Some("/var/lib/docker".into()),
            runtimes: vec!["runc".into(), "runsc".into()],
            default_runtime: Some("runc".into()),
            architecture: "x86_64".into(),
            cpus: 2,
            memory: 1,
            same_kernel: true,
            warnings: Vec::new(),
        }
    }

    /// The worst finding of an engine that differs from a good one.
    fn worst(runtime_asked: Option<&str>, change: fn(&mut Facts)) -> Level {
        let mut facts = good();
        change(&mut facts);
        let mut all = vec![kernel(&facts), users(&facts, &[]), storage(&facts), seccomp(&facts)];
        all.extend(limits(&facts, &[]));
        all.extend(runtime(runtime_asked, &facts));
        all.iter().map(|finding| finding.level).max().expect("findings")
    }

    #[test]
    fn what_an_engine_lacks_is_as_bad_as_it_is_for_a_run() {
        type Case = (Option<&'static str>, fn(&mut Facts), Level);
        let cases: &[Case] = &[
            (None, |_| {}, Level::Ok),
            (Some("runsc"), |_| {}, Level::Ok),
            (None, |facts| facts.rootless = true, Level::Error),
            (None, |facts| (facts.rootless, facts.name) = (true, "podman".into()), Level::Ok),
            (None, |facts| facts.host = "tcp://127.0.0.1:2375".into(), Level::Ok),
            (None, |facts| facts.same_kernel = false, Level::Ok),
            (None, |facts| facts.userns_remap = true, Level::Ok),
            (None, |facts| facts.seccomp = false, Level::Error),
            (None, |facts| facts.memory_limit = false, Level::Error),
            (None, |facts| facts.pids_limit = false, Level::Error),
            (None, |facts| facts.cpu_limit = false, Level::Error),
            (None, |facts| facts.swap_limit = false, Level::Warning),
            (None, |facts| facts.storage_driver = "vfs".into(), Level::Warning),
            (None, |facts| facts.runc_version = Some("1.1.12".into()), Level::Warning),
            // A runc that is not used does no harm.
            (Some("runsc"), |facts| facts.runc_version = Some("1.1.12".into()), Level::Ok),
            (Some("kata"), |_| {}, Level::Error),
            (Some("io.containerd.kata.v2"), |_| {}, Level::Warning),
        ];
        for (at, (asked, change, level)) in cases.iter().enumerate() {
            assert_eq!(worst(*asked, *change), *level, "case {at}");
        }
    }

    #[test]
    fn what_is_accepted_is_a_warning() {
        let accepted = ["root-inside", "no-memory-limit"].map(str::to_owned);
        let mut facts = Facts { rootless: true, memory_limit: false, ..good() };
        assert_eq!(users(&facts, &accepted).level, Level::Warning);
        assert_eq!(limits(&facts, &accepted)[0].level, Level::Warning);
        facts.cpu_limit = false;
        assert_eq!(limits(&facts, &accepted)[0].level, Level::Error);
    }

    #[test]
    fn every_way_to_have_no_engine_has_its_own_remedy() {
        let host = || "unix:///x.sock".to_owned();
        for (error, said, remedy) in [
            (Error::NotFound { tried: vec![host()] }, "/x.sock", "start Docker"),
            (Error::Denied { host: host(), why: "EACCES".into() }, "no permission", "usermod"),
            (Error::Unsupported { host: host(), why: "ssh".into() }, "ssh", "correct or remove"),
            (Error::TimedOut { verb: "answer", seconds: 5 }, "5 seconds", "log"),
        ] {
            let finding = absent(&error);
            assert_eq!(finding.level, Level::Error);
            assert!(finding.message.contains(said), "{finding:?}");
            assert!(finding.remedy.as_deref().is_some_and(|r| r.contains(remedy)), "{finding:?}");
        }
    }
}
