//! `compose.headless.yml` is the same sandbox by hand: what the engine was asked for and what the
//! kernel shows are held against the binary's own.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::{
    Answer, Gate, Model, PATIENCE, Part, Product, Script, Workspace, clients, engine, eventually,
};
use serde_json::{Value, json};

/// Tells the projects of one process apart.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// One compose project of our own; it and all it made goes when it is dropped.
struct Project {
    compose: &'static [&'static str],
    name: String,
    image: String,
    env: Vec<(&'static str, String)>,
}

impl Project {
    /// Compose 2 as the engine's plugin, or Compose 1; none where neither is installed.
    async fn new(product: &Product, model: &Model, workspace: &Workspace) -> Option<Self> {
        let works = |compose: &[&str]| {
            let mut command = Command::new(compose[0]);
            let out = command.args(&compose[1..]).arg("version").output();
            out.is_ok_and(|out| out.status.success())
        };
        let known: [&'static [&'static str]; 2] = [&["docker", "compose"], &["docker-compose"]];
        let Some(compose) = known.into_iter().find(|compose| works(compose)) else {
            assert!(std::env::var_os("CI").is_none(), "install docker-compose: CI tests it");
            clients::skip("neither `docker compose` nor `docker-compose` is installed");
            return None;
        };
        let built = product.call(["build"]).await;
        built.assert_code(0);
        let (uid, gid) = workspace.owner();
        let env = vec![
            ("WORKSPACE", workspace.path().display().to_string()),
            ("MODEL_PORT", model.address.port().to_string()),
            ("PUID", uid.to_string()),
            ("PGID", gid.to_string()),
        ];
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("sandboxmcptest{}x{serial}", std::process::id());
        Some(Self { compose, name, image: built.stdout.trim().into(), env })
    }

    fn set(&mut self, key: &'static str, value: &str) {
        self.env.retain(|(known, _)| *known != key);
        self.env.push((key, value.into()));
    }

    fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(self.compose[0]);
        command.args(&self.compose[1..]);
        command.args(["-f", "compose.headless.yml", "-p", &self.name]).args(args);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        for key in ["TASK", "PUID", "PGID", "MODEL", "MODEL_HOST", "MODEL_CONTEXT", "MODEL_OUTPUT"]
        {
            command.env_remove(key);
        }
        if let Some(host) = engine::host() {
            command.env("DOCKER_HOST", host);
        }
        command.env("SANDBOX_IMAGE", &self.image);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }

    /// `run --rm opencode`, to its end: exit code and all that was said.
    fn run(&self) -> (Option<i32>, String) {
        let out = self.command(["run", "--rm", "-T", "opencode"]).output().expect("compose");
        let told = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8_lossy(&told).into_owned())
    }

    /// The running container of the service.
    async fn container(&self) -> String {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let service = "label=com.docker.compose.service=opencode";
        eventually("the service's container", PATIENCE, || {
            let found = engine::docker([
                "ps",
                "-q",
                "--no-trunc",
                "--filter",
                &project,
                "--filter",
                service,
            ]);
            found.lines().next().map(str::to_owned)
        })
        .await
    }

    /// Ends everything and asserts that nothing is left.
    fn down(self) {
        let out =
            self.command(["down", "-v", "--remove-orphans", "-t", "5"]).output().expect("compose");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let project = format!("label=com.docker.compose.project={}", self.name);
        assert_eq!(engine::docker(["ps", "-a", "-q", "--filter", &project]), "");
        assert_eq!(engine::docker(["volume", "ls", "-q", "--filter", &project]), "");
        assert_eq!(engine::docker(["network", "ls", "-q", "--filter", &project]), "");
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let mut down = self.command(["down", "-v", "--remove-orphans", "-t", "1"]);
        down.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }
}

/// What the agent's own process may do, as the kernel shows it, and a file.
const LOOK: &str = r#"
    grep -E '^(Uid|Gid|Groups|Cap[A-Za-z]+|NoNewPrivs|Seccomp):' /proc/self/status
    echo umask $(umask), core $(ulimit -Hc), files $(ulimit -Hn)
    echo links $(tail -n +3 /proc/net/dev | cut -d: -f1), routes $(tail -n +2 /proc/net/route | wc -l)
    for place in / /workspace /tmp /home/agent /dev/shm; do
        awk -v p="$place" '$5 == p { kind = $0; sub(/.* - /, "", kind); split(kind, k, " "); line = $6 " " k[1] } END { print p, line }' /proc/self/mountinfo
    done
    stat -f -c '%b blocks' /tmp /home/agent /dev/shm
    echo hostname $(cat /proc/sys/kernel/hostname), home $HOME, user $(id -un)
    unshare -Ur true 2>&1
    echo made > made.txt
"#;

fn script(gate: &Gate) -> Script {
    Script::bash(LOOK).then(Answer::new([Part::Text("Looked.".into())]).behind(gate))
}

/// What counts of a container's settings, in one form for both.
fn settings(container: &str) -> Value {
    let all = engine::inspect(container);
    let (host, config) = (&all["HostConfig"], &all["Config"]);
    let list = |value: &Value| {
        let mut items: Vec<String> =
            value.as_array().into_iter().flatten().map(Value::to_string).collect();
        items.sort();
        items
    };
    let security = host["SecurityOpt"].as_array().into_iter().flatten().map(|option| {
        let option = option.as_str().unwrap_or_default();
        // The same profile, however it is spaced.
        option.strip_prefix("seccomp=").map_or_else(
            || option.replace("no-new-privileges:true", "no-new-privileges"),
            |profile| serde_json::from_str::<Value>(profile).expect("JSON").to_string(),
        )
    });
    let mut security: Vec<String> = security.collect();
    security.sort();
    let mut limits = json!({
        "CapAdd": list(&host["CapAdd"]),
        "CapDrop": list(&host["CapDrop"]),
        "SecurityOpt": security,
        "Ulimits": list(&host["Ulimits"]),
        "Devices": list(&host["Devices"]),
        "PortBindings": host["PortBindings"].as_object().map_or(0, serde_json::Map::len),
        "GroupAdd": list(&host["GroupAdd"]),
        "LogConfig": host["LogConfig"]["Type"],
        "User": config["User"],
        "Hostname": config["Hostname"],
    });
    // `CgroupnsMode` is left out: ours is always private, and Compose 1 has no word for it.
    for key in [
        "Privileged",
        "ReadonlyRootfs",
        "NetworkMode",
        "PidMode",
        "IpcMode",
        "UTSMode",
        "UsernsMode",
        "Memory",
        "MemorySwap",
        "NanoCpus",
        "PidsLimit",
        "ShmSize",
        "Runtime",
    ] {
        limits[key] = host[key].clone();
    }
    limits
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_was_asked_for_the_same_and_the_kernel_shows_the_same() {
    let gate = Gate::default();
    let model = Model::routed([("by hand", script(&gate)), ("by us", script(&gate))]).await;
    let product = Product::with_model(&model).await;
    let (mine, theirs) = (Workspace::new(), Workspace::new());
    let Some(mut project) = Project::new(&product, &model, &theirs).await else { return };
    project.set("TASK", "--by hand, 'quoted'\nin \"two\" lines");

    let ours = product.start_run(&mine, ["--json", "by us"]);
    let mut by_hand = project.command(["run", "--rm", "-T", "opencode"]);
    let compose = by_hand.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("compose");
    model.step(4).await;
    let expected = settings(&product.container_of(&ours).await);
    let container = project.container().await;
    let by_compose = settings(&container);
    // Compose has no words for these; the engine's own list is covered there, and ours has more.
    let covered = |container: &str, key: &str| -> BTreeSet<String> {
        let paths = engine::inspect(container)["HostConfig"][key].take();
        let paths = serde_json::from_value::<Vec<String>>(paths).expect("a list of paths");
        paths.into_iter().collect()
    };
    let mine_container = product.container_of(&ours).await;
    let all = |container: &str| {
        let masked = covered(container, "MaskedPaths");
        (
            covered(container, "ReadonlyPaths").union(&masked).cloned().collect::<BTreeSet<_>>(),
            masked,
        )
    };
    let ((closed, masked), (their_closed, their_masked)) = (all(&mine_container), all(&container));
    assert!(!their_masked.is_empty() && their_masked.is_subset(&masked), "{their_masked:?}");
    assert!(their_closed.is_subset(&closed), "{their_closed:?} {closed:?}");
    gate.open();
    let compose = compose.wait_with_output().expect("compose");
    ours.wait().await.assert_status("completed");
    product.check_nothing_left().await;
    let said = String::from_utf8_lossy(&compose.stdout).into_owned();

    assert!(compose.status.success(), "{said}\n{}", String::from_utf8_lossy(&compose.stderr));
    assert!(said.contains("Looked."), "{said}");
    let expected = serde_json::to_string_pretty(&expected).expect("JSON");
    let by_compose = serde_json::to_string_pretty(&by_compose).expect("JSON");
    for (ours, theirs) in expected.lines().zip(by_compose.lines()) {
        assert_eq!(theirs, ours, "ours:\n{expected}\ncompose:\n{by_compose}");
    }
    assert_eq!(by_compose.lines().count(), expected.lines().count());

    let steps = model.steps();
    let seen = |task: &str| {
        let request = steps.iter().rfind(|step| step.said_by("user").contains(task));
        request.expect("both have asked").said_by("tool")
    };
    let (inside, by_hand) = (seen("by us"), seen("by hand"));
    assert!(inside.contains("CapEff") && inside.contains("hostname sandbox"), "{inside}");
    for (ours, theirs) in inside.lines().zip(by_hand.lines()) {
        assert_eq!(theirs, ours, "the same look from inside, compose's first");
    }
    let heard =
        steps.iter().find(|step| step.said_by("user").contains("by hand")).expect("it asked");
    assert!(heard.said_by("user").contains("--by hand, 'quoted'\nin \"two\" lines"), "verbatim");
    assert_eq!(by_hand.lines().count(), inside.lines().count());
    // What is applied gets the caller's umask, as if they had made it.
    let applied = 0o666 & !crate::common::workspace::umask();
    for (workspace, expected) in [(&mine, applied), (&theirs, 0o640)] {
        let meta = std::fs::metadata(workspace.at("made.txt")).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777;
        assert_eq!(format!("{mode:o}"), format!("{expected:o}"));
        let owner = (
            std::os::unix::fs::MetadataExt::uid(&meta),
            std::os::unix::fs::MetadataExt::gid(&meta),
        );
        assert_eq!(owner, workspace.owner());
    }
    project.down();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_and_nonsense_are_refused_as_users() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let Some(mut project) = Project::new(&product, &model, &workspace).await else { return };
    project.set("TASK", "anything");
    for (key, value) in
        [("PUID", "0"), ("PGID", "0"), ("PUID", "somebody"), ("PGID", "12x"), ("PUID", "00")]
    {
        let usual = project.env.clone();
        project.set(key, value);
        let (code, said) = project.run();
        project.env = usual;
        assert_ne!(code, Some(0), "{key}={value} was accepted: {said}");
        assert!(said.contains(value), "{key}={value}: {said}");
    }
    project.set("TASK", "");
    let (code, said) = project.run();
    assert_ne!(code, Some(0), "an empty TASK was accepted: {said}");
    assert_eq!(model.steps().len(), 0);
    project.down();
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_task_it_is_interactive() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let Some(project) = Project::new(&product, &model, &workspace).await else { return };
    // `script` lends it a terminal.
    let compose = project.command(["run", "--rm", "opencode"]);
    let words: Vec<String> = [compose.get_program()]
        .into_iter()
        .chain(compose.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut terminal = Command::new("script");
    terminal.args(["-q", "-e", "-c", &words.join(" "), "/dev/null"]);
    terminal.envs(compose.get_envs().filter_map(|(key, value)| Some((key, value?))));
    terminal.env_remove("TASK").env("TERM", "xterm-256color");
    terminal.current_dir(env!("CARGO_MANIFEST_DIR"));
    terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let running = product.start(tokio::process::Command::from(terminal));

    let container = project.container().await;
    // The alternate screen is what a full-screen program asks of a terminal first.
    running.stdout.says("\u{1b}[?1049h").await;
    let processes = engine::docker(["top", &container, "-eo", "pid,args"]);
    let agent = processes.lines().find(|line| line.contains("opencode --model"));
    assert!(agent.is_some_and(|line| !line.contains(" run ")), "{processes}");
    assert_eq!(engine::inspect(&container)["Config"]["Tty"], true);

    engine::docker(["rm", "-f", &container]);
    running.wait().await;
    project.down();
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_server_that_is_not_there_is_said() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let Some(mut project) = Project::new(&product, &model, &workspace).await else { return };
    project.set("TASK", "anything");
    let refused = Model::refused_url();
    let port = refused.trim_end_matches("/v1").rsplit(':').next().expect("a port");
    project.set("MODEL_PORT", port);
    let (code, said) = project.run();
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("model server") && said.contains("MODEL_PORT"), "{said}");
    project.down();
    product.check_nothing_left().await;
}
