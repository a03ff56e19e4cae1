//! What `sandbox-mcp policy` says is what holds, seen from outside and from inside.

use std::collections::BTreeMap;

use crate::common::{Answer, Gate, Model, Part, Product, Script, Workspace, engine};
use serde_json::{Value, json};

/// Asks the kernel, not the engine, in lines of `name value`: the agent's own process, then PID 1.
const LOOK: &str = r#"
    sed 's/:\s*/ /; s/^/own./' /proc/self/status
    sed 's/:\s*/ /; s/^/init./' /proc/1/status
    for place in / /etc /usr /opt /run /run/sandbox /proc/sys/kernel /sys; do
        touch "$place/written" 2>/dev/null && echo "writable $place"
    done
    for place in / /workspace /tmp "$HOME" /run/sandbox /dev/shm; do
        awk -v p="$place" '$5 == p { options = $6 } END { print "mount:" p, options }' /proc/self/mountinfo
    done
    echo links $(tail -n +3 /proc/net/dev | cut -d: -f1)
    echo routes $(tail -n +2 /proc/net/route | wc -l)
    echo resolver $(grep -c ^nameserver /etc/resolv.conf)
    echo core $(ulimit -Hc)
    echo files $(ulimit -Hn)
    echo umask $(umask)
    echo tmp_bytes $(stat -f -c '%b %S' /tmp | awk '{ print $1 * $2 }')
    echo home_bytes $(stat -f -c '%b %S' "$HOME" | awk '{ print $1 * $2 }')
    echo hostname $(cat /proc/sys/kernel/hostname)
    echo cgroups $(cut -d: -f3 /proc/self/cgroup | sort -u)
    echo engine_sockets $(find / -xdev \( -name docker.sock -o -name podman.sock \) 2>/dev/null | wc -l)
    echo setuid $(find / -xdev -perm /6000 -type f 2>/dev/null | wc -l)
    echo devices $(find /dev -xdev \( -type b -o -type c \) | sort | tr '\n' ' ')
    unshare -Ur true 2>/dev/null && echo user_namespace yes || echo user_namespace no
    echo looked all
"#;

struct Seen {
    policy: Value,
    outside: Value,
    inside: BTreeMap<String, String>,
    report: Value,
}

impl Seen {
    fn host(&self) -> &Value {
        &self.outside["HostConfig"]
    }

    fn config(&self) -> &Value {
        &self.outside["Config"]
    }

    #[track_caller]
    fn inside(&self, name: &str) -> &str {
        self.inside.get(name).unwrap_or_else(|| panic!("{name} was not seen: {:#?}", self.inside))
    }
}

async fn look(mode: &str) -> Seen {
    let gate = Gate::default();
    let last = Answer::new([Part::Text("Looked.".into())]).behind(&gate);
    let model = Model::start(Script::bash(LOOK).then(last)).await;
    let product = Product::with_model(&model).await.env("A_VARIABLE_OF_THE_HOST", "host-value");
    let workspace = Workspace::new();
    let mut command = product.command(["policy", "--json"]);
    command.current_dir(workspace.path());
    let policy = product.start(command).wait().await;
    policy.assert_code(0);

    let run = product.start_run(&workspace, ["--json", "--mode", mode, "look"]);
    let seen = model.step(2).await.said_by("tool");
    let outside = engine::inspect(&product.container_of(&run).await);
    gate.open();
    let report = run.wait().await.assert_status("completed");
    product.check_nothing_left().await;

    assert!(seen.contains("looked all"), "{seen}");
    let lines =
        seen.lines().map(|line| line.trim().split_once(char::is_whitespace).unwrap_or((line, "")));
    Seen {
        policy: serde_json::from_str(&policy.stdout).expect("policy --json prints JSON"),
        outside,
        inside: lines
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect(),
        report,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_outside_and_from_inside() {
    let seen = look("direct").await;
    it_is_the_workspaces_owner(&seen);
    it_has_no_rights(&seen);
    there_is_no_way_out(&seen);
    limits_hold(&seen);
    only_the_workspace_is_writable(&seen);
    kernel_paths_are_covered(&seen);
    labels_tell_the_owner(&seen);
    the_receipt_says_the_same(&seen);
}

fn it_is_the_workspaces_owner(seen: &Seen) {
    let (uid, gid) = crate::common::workspace::person();
    let policy = &seen.policy;
    assert_eq!(policy["user"], format!("{uid}:{gid}"));
    assert_eq!(seen.config()["User"], policy["user"]);
    assert_eq!(seen.report["sandbox"]["user"], policy["user"]);
    for process in ["own", "init"] {
        let ids: Vec<&str> = seen.inside(&format!("{process}.Uid")).split_whitespace().collect();
        assert_eq!(ids, vec![uid.to_string(); 4], "{process}");
        let ids: Vec<&str> = seen.inside(&format!("{process}.Gid")).split_whitespace().collect();
        assert_eq!(ids, vec![gid.to_string(); 4], "{process}");
        let groups = seen.inside(&format!("{process}.Groups"));
        assert!(
            groups.split_whitespace().all(|group| group == gid.to_string()),
            "{process}: groups {groups}"
        );
    }
    assert_eq!(seen.inside("umask"), policy["umask"]);
}

fn it_has_no_rights(seen: &Seen) {
    let (policy, host) = (&seen.policy, seen.host());
    assert_eq!(policy["capabilities"], json!([]));
    let dropped = host["CapDrop"].as_array().expect("a list");
    // Podman tells each one of its defaults.
    assert!(
        dropped == &[json!("ALL")] || engine::is_podman() && dropped.len() >= 11,
        "{dropped:?}"
    );
    assert!(host["CapAdd"].is_null() || host["CapAdd"] == json!([]), "{}", host["CapAdd"]);
    assert_eq!(host["Privileged"], false);
    for process in ["own", "init"] {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let caps = seen.inside(&format!("{process}.{set}"));
            assert_eq!(caps, "0000000000000000", "{process}.{set}");
        }
        assert_eq!(seen.inside(&format!("{process}.NoNewPrivs")), "1");
        assert_eq!(seen.inside(&format!("{process}.Seccomp")), "2");
    }
    assert_eq!(policy["no_new_privileges"], true);
    let options = host["SecurityOpt"].as_array().expect("security options");
    let option = |start: &str| {
        options.iter().any(|option| option.as_str().is_some_and(|text| text.starts_with(start)))
    };
    assert!(option("no-new-privileges"), "{options:?}");
    assert!(option("seccomp=") || engine::is_podman(), "{options:?}");
    assert!(!option("seccomp=unconfined") && !option("apparmor=unconfined"), "{options:?}");
    assert_eq!(seen.inside("user_namespace"), "no");
    assert_eq!(seen.inside("setuid"), "0");
}

fn there_is_no_way_out(seen: &Seen) {
    let (policy, host, config) = (&seen.policy, seen.host(), seen.config());
    assert_eq!(policy["network"], "none");
    assert_eq!(host["NetworkMode"], "none");
    assert_eq!(seen.inside("links"), "lo");
    assert_eq!(seen.inside("routes"), "0");
    assert_eq!(seen.inside("resolver"), "0");
    assert!(host["PortBindings"].as_object().is_none_or(serde_json::Map::is_empty));
    assert!(host["Devices"].as_array().is_none_or(Vec::is_empty));
    assert!(host["DeviceRequests"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(seen.inside("engine_sockets"), "0");
    for (key, allowed) in [
        ("PidMode", &[""][..]),
        ("UTSMode", &[""]),
        ("IpcMode", &["private", "none"]),
        ("CgroupnsMode", &["private"]),
    ] {
        // It has other words for these, and the kernel's are asked for inside.
        if engine::is_podman() {
            assert_ne!(host[key], "host", "{key}");
            continue;
        }
        assert!(allowed.iter().any(|mode| host[key] == *mode), "{key}: {}", host[key]);
    }
    assert_eq!(policy["cgroup_namespace"], "private");
    assert_eq!(seen.inside("cgroups"), "/", "no name of what is around it");
    assert!(!config["Env"].to_string().contains("host-value"), "{}", config["Env"]);

    assert!(!seen.outside.to_string().contains("docker.sock"), "{:#}", seen.outside);
}

fn limits_hold(seen: &Seen) {
    let (policy, host) = (&seen.policy, seen.host());
    assert_eq!(policy["memory"], policy["memory_and_swap"]);
    let without = &seen.report["sandbox"]["receipt"]["without"];
    if engine::accepted().is_empty() {
        assert!(without.is_null(), "{without}");
        assert_eq!(host["Memory"], policy["memory"]);
        assert_eq!(host["MemorySwap"], policy["memory_and_swap"]);
        assert_eq!(host["PidsLimit"], policy["pids"]);
        let cpus = policy["cpus"].as_f64().expect("cpus");
        let given = host["NanoCpus"].as_f64().expect("NanoCpus") / 1e9;
        assert!((given - cpus).abs() < 0.001, "{given} instead of {cpus}");
    } else {
        assert_eq!(without, &json!(["no-pids-limit", "no-memory-limit", "no-cpu-limit"]));
        assert!(seen.report["remarks"].to_string().contains("no-memory-limit"));
    }
    assert_eq!(seen.inside("core"), policy["core_dump_bytes"].to_string());
    assert_eq!(seen.inside("files"), policy["open_files"].to_string());
    assert_eq!(host["LogConfig"]["Type"], policy["log_driver"]);
    assert_eq!(host["LogConfig"]["Type"], "none");
    assert_eq!(seen.inside("hostname"), policy["hostname"]);
    assert_ne!(host["OomKillDisable"], true);
}

fn only_the_workspace_is_writable(seen: &Seen) {
    let (policy, host) = (&seen.policy, seen.host());
    assert_eq!(policy["read_only_root"], true);
    assert_eq!(host["ReadonlyRootfs"], true);
    let writable = seen.inside.keys().any(|name| name == "writable");
    assert!(!writable, "{:?}", seen.inside.get("writable"));
    let options =
        |place: &str| -> Vec<&str> { seen.inside(&format!("mount:{place}")).split(',').collect() };
    assert!(options("/").contains(&"ro"));
    assert!(options("/workspace").contains(&"rw"), "direct mode");
    for (place, name) in [("/tmp", "tmp_bytes"), ("/home/agent", "home_bytes")] {
        let tmpfs = policy["tmpfs"].as_array().expect("tmpfs");
        let said = tmpfs.iter().find(|tmpfs| tmpfs["path"] == place).expect("both are there");
        assert_eq!(seen.inside(name), said["size"].to_string(), "{place}");
        for option in ["nosuid", "nodev"] {
            assert!(
                options(place).contains(&option),
                "{place} without {option}: {:?}",
                options(place)
            );
        }
    }
    let bound: Vec<&Value> = seen.outside["Mounts"]
        .as_array()
        .expect("mounts")
        .iter()
        .filter(|m| m["Type"] == "bind")
        .collect();
    for mount in &bound {
        let target = mount["Destination"].as_str().expect("a target");
        let names = ["passwd", "group", "hosts", "hostname", "resolv.conf"];
        let generated = names.iter().any(|name| target == format!("/etc/{name}"))
            || engine::is_podman() && target == "/run/.containerenv";
        assert!(generated || target.starts_with("/workspace"), "no socket: {mount}");
        // Anchors are parts of the workspace mounted over themselves, so that they stay in place.
        let inside = target == "/workspace" || target.starts_with("/workspace/");
        assert!(inside || mount["RW"] == false, "only the workspace is writable: {mount}");
    }
    let said = policy["mounts"].as_array().expect("mounts");
    assert!(
        said.iter().any(|mount| mount["target"] == "/workspace"),
        "the policy tells its mounts: {said:?}"
    );
    for mount in said {
        let target = mount["target"].as_str().expect("a target");
        let there = bound.iter().find(|bound| bound["Destination"] == target);
        assert!(
            there
                .is_some_and(|bound| bound["RW"] == !mount["read_only"].as_bool().expect("a flag")),
            "{mount} is not in {bound:#?}"
        );
    }
}

fn kernel_paths_are_covered(seen: &Seen) {
    let host = seen.host();
    // Podman does not tell them; the attack on the kernel's files tries from inside.
    if !engine::is_podman() {
        for mask in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"] {
            assert!(host["MaskedPaths"].to_string().contains(mask), "{mask} is not masked");
        }
        for path in ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"] {
            assert!(host["ReadonlyPaths"].to_string().contains(path), "{path} is not read-only");
        }
    }
    for device in seen.inside("devices").split_whitespace() {
        let harmless = ["console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"];
        assert!(
            harmless.iter().any(|name| device == format!("/dev/{name}"))
                || device.starts_with("/dev/pts/"),
            "{device}"
        );
    }
}

fn labels_tell_the_owner(seen: &Seen) {
    let labels = &seen.config()["Labels"];
    assert_eq!(labels["sandbox-mcp.run"], seen.report["run_id"]);
    let owner: Vec<&str> =
        labels["sandbox-mcp.owner"].as_str().expect("an owner").splitn(3, '.').collect();
    assert_eq!(
        owner[2],
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("proc").trim()
    );
    let deadline: f64 = labels["sandbox-mcp.deadline-since-boot"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("seconds since the machine's start");
    let uptime = std::fs::read_to_string("/proc/uptime").expect("proc");
    let uptime: f64 = uptime.split(' ').next().and_then(|now| now.parse().ok()).expect("seconds");
    let ahead = deadline - uptime;
    assert!(
        (100.0..3600.0).contains(&ahead),
        "the deadline is {ahead} s ahead for a timeout of 300 s"
    );
}

fn the_receipt_says_the_same(seen: &Seen) {
    let (uid, gid) = crate::common::workspace::person();
    let receipt = &seen.report["sandbox"]["receipt"];
    assert_eq!((&receipt["uid"], &receipt["gid"]), (&json!(uid), &json!(gid)), "{receipt:#}");
    assert_eq!(receipt["no_new_privs"], true);
    assert_eq!(receipt["seccomp"], 2);
    assert_eq!(receipt["root_read_only"], true);
    assert_eq!(receipt["interfaces"], json!(["lo"]));
    assert_eq!(receipt["cgroups"], json!(["/"]));
    assert_eq!(receipt["capabilities"]["effective"], "0000000000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_workspace_is_mounted_so() {
    let seen = look("read-only").await;
    assert!(
        seen.inside("mount:/workspace").split(',').any(|option| option == "ro"),
        "{}",
        seen.inside("mount:/workspace")
    );
    let mounts = seen.outside["Mounts"].as_array().expect("mounts").clone();
    let writable: Vec<&Value> =
        mounts.iter().filter(|m| m["Type"] == "bind" && m["RW"] == true).collect();
    assert_eq!(writable, [] as [&Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_follow_the_configuration() {
    let product = Product::new()
        .await
        .config("[limits]\nmemory = \"1g\"\npids = 99\ncpus = 0.5\ntmp = \"32m\"\n");
    let told = product.call(["policy", "--json"]).await;
    told.assert_code(0);
    let policy: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(policy["memory"], 1 << 30);
    assert_eq!(policy["memory_and_swap"], 1 << 30);
    assert_eq!(policy["pids"], 99);
    assert_eq!(policy["cpus"].to_string(), "0.5");
    let table = product.call(["policy"]).await;
    table.assert_code(0);
    for word in ["none", "99", "1g", "/workspace"] {
        assert!(table.stdout.contains(word), "{word}: {}", table.stdout);
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_limit_ends_a_greedy_run_as_out_of_memory() {
    // `tail` keeps the last line of its input, and this one has no end.
    let model =
        Model::start(Script::bash("tail /dev/zero; echo survived").then_say("Went on.")).await;
    let product =
        Product::with_model(&model).await.config("[limits]\nmemory = \"768m\"\ntmp = \"64m\"\n");
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["--json", "--timeout", "100", "eat"]).await;
    // The kernel takes the greedy child or the whole agent; either way we neither hang nor call the
    // second case a success.
    let report = run.report();
    match report["status"].as_str() {
        Some("completed") => assert!(model.steps().len() == 2, "{report:#}"),
        Some("out_of_memory") => run.assert_code(1),
        _ => panic!("{report:#}\n{}", run.stderr),
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_hooks_and_settings_of_the_host_are_out_of_reach() {
    let attack = "
        echo evil > .git/hooks/pre-commit && echo WROTE hooks
        git config core.fsmonitor /tmp/evil && echo WROTE config
        echo evil > .envrc && echo WROTE envrc
        mkdir -p .vscode && echo evil > .vscode/tasks.json && echo WROTE vscode
        mkdir -p .claude && echo evil > .claude/settings.json && echo WROTE claude
        echo evil > .mcp.json && echo WROTE mcp
        mv .git .git-moved && echo WROTE moved
        echo fine > ordinary.txt";
    let model = Model::start(Script::bash(attack).then_say("Tried.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    workspace.write(".git/HEAD", "ref: refs/heads/main\n");
    workspace.write(".git/config", "[core]\n\tbare = false\n");
    workspace.write(".git/hooks/readme", "none\n");
    workspace.write(".git/objects/readme", "");
    workspace.write(".git/refs/readme", "");
    workspace.write(".envrc", "export A=1\n");
    workspace.write(".mcp.json", "{}\n");
    workspace.write(".vscode/settings.json", "{}\n");
    let before = workspace.names();

    product.run(&workspace, ["--json", "plant"]).await.assert_status("completed");

    assert_eq!(workspace.read(".git/config"), "[core]\n\tbare = false\n");
    assert_eq!(workspace.read(".envrc"), "export A=1\n");
    assert_eq!(workspace.read(".mcp.json"), "{}\n");
    for planted in [".git/hooks/pre-commit", ".vscode/tasks.json", ".git-moved"] {
        assert!(!workspace.has(planted), "{planted}: {}", model.tool_results());
    }
    assert_eq!(workspace.read("ordinary.txt"), "fine\n");
    for name in before {
        assert!(workspace.has(&name), "{name} is gone");
    }
    product.check_nothing_left().await;
}
