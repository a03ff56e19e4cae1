//! The real binary in a house of its own: HOME, configuration, state and runtime folders.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use super::leftovers::Leftovers;
use super::{Model, PATIENCE, Workspace, engine, eventually};

/// Gives `set` every environment variable that makes a house of `root`.
pub fn isolate(root: &Path, mut set: impl FnMut(&str, Option<&OsStr>)) {
    for (key, _) in std::env::vars_os() {
        let key = key.to_string_lossy();
        if key.starts_with("SANDBOX_MCP_") || key.starts_with("OPENCODE_") {
            set(&key, None);
        }
    }
    for (key, folder) in [
        ("HOME", "home"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_DATA_HOME", "data"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_STATE_HOME", "xdg-state"),
        ("XDG_RUNTIME_DIR", "run"),
        ("SANDBOX_MCP_STATE_DIR", "state"),
        ("TMPDIR", "tmp"),
    ] {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).expect("a folder of the house");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&folder, private).expect("chmod");
        set(key, Some(folder.as_os_str()));
    }
    let accepted = engine::accepted();
    if !accepted.is_empty() && !root.join("config/sandbox-mcp/config.toml").exists() {
        write_config(&root.join("config"), &accepted);
    }
    if let Some(host) = engine::host() {
        set("DOCKER_HOST", Some(OsStr::new(host)));
    }
    for key in ["RUST_LOG", "CI", "NO_COLOR", "CLICOLOR_FORCE", "DOCKER_CONTEXT", "CONTAINER_HOST"]
    {
        set(key, None);
    }
}

fn write_config(folder: &Path, toml: &str) {
    let folder = folder.join("sandbox-mcp");
    std::fs::create_dir_all(&folder).expect("the configuration's folder");
    std::fs::write(folder.join("config.toml"), toml).expect("the configuration");
}

/// One installation of the product, apart from all others on this machine.
pub struct Product {
    root: TempDir,
    env: Vec<(String, Option<String>)>,
    /// A command that starts another one, in surroundings of its own.
    prefix: Vec<String>,
    leftovers: Leftovers,
    _places: Vec<engine::Lock>,
}

impl Product {
    /// For commands that start no container, and for the second house of one test: a place for
    /// each of two houses could make two tests wait for one another.
    pub fn without_engine() -> Self {
        let root =
            tempfile::Builder::new().prefix("sm-").tempdir_in("/tmp").expect("a folder in /tmp");
        isolate(root.path(), |_, _| {}); // makes its folders
        let leftovers = Leftovers::new(root.path());
        Self { root, env: Vec::new(), prefix: Vec::new(), leftovers, _places: Vec::new() }
    }

    /// Waits for the image and for a place among the running tests.
    pub async fn new() -> Self {
        engine::ready().await;
        Self::at(engine::place().await)
    }

    /// Waits for the image, and until no other test runs.
    pub async fn alone(model: &Model) -> Self {
        engine::ready().await;
        Self::at(engine::all_places().await).env("SANDBOX_MCP_MODEL_URL", &model.url())
    }

    fn at(places: Vec<engine::Lock>) -> Self {
        let product = Self { _places: places, ..Self::without_engine() };
        engine::know_the_image(&product.folder("state"));
        product
    }

    pub async fn with_model(model: &Model) -> Self {
        Self::new().await.env("SANDBOX_MCP_MODEL_URL", &model.url())
    }

    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), Some(value.into())));
        self
    }

    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.env.push((key.into(), None));
        self
    }

    /// Starts the binary by another command, which must become it and not only wait for it.
    #[must_use]
    pub fn inside(mut self, prefix: &[&str]) -> Self {
        self.prefix = prefix.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Writes the user's configuration file.
    #[must_use]
    pub fn config(self, toml: &str) -> Self {
        let accepted = engine::accepted();
        let own = accepted.strip_prefix("[sandbox]").filter(|_| toml.contains("[sandbox]"));
        let toml = match own {
            Some(setting) => toml.replacen("[sandbox]", &format!("[sandbox]{setting}"), 1),
            None => format!("{toml}\n{accepted}"),
        };
        write_config(&self.folder("config"), &toml);
        self
    }

    /// A folder of the house: `home`, `config`, `state`, `run`, `tmp` …
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Waits until a run has made a file in its view, which lies in the state folder.
    pub async fn made(&self, name: &str) -> PathBuf {
        let layers = self.folder("state/layers");
        eventually(&format!("{name} in a view"), PATIENCE, || {
            let layers = layers.read_dir().ok()?.flatten();
            let views =
                layers.flat_map(|layer| ["copy", "upper"].map(|view| layer.path().join(view)));
            views.map(|view| view.join(name)).find(|path| path.exists())
        })
        .await
    }

    /// Waits until a run has made `there` in its view, and puts an empty file beside it.
    pub async fn put_beside(&self, there: &str, name: &str) {
        let there = self.made(there).await;
        std::fs::write(there.with_file_name(name), "").expect("a file in the view");
    }

    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut line =
            self.prefix.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_sandbox-mcp")]);
        let mut command = Command::new(line.next().expect("at least the binary"));
        self.furnish(&mut command);
        command.args(line).args(args).current_dir(self.root.path());
        command
    }

    /// Makes this house the surroundings of any command, such as a client that starts the binary.
    pub fn furnish(&self, command: &mut Command) {
        isolate(self.root.path(), |key, value| {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        });
        for (key, value) in &self.env {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
    }

    /// The same of a command that brings variables of its own, which come over the house's.
    pub fn furnished(&self, command: std::process::Command) -> Command {
        let own: Vec<_> = command
            .get_envs()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
            .collect();
        let mut command = Command::from(command);
        self.furnish(&mut command);
        command.envs(own);
        command
    }

    /// Asserts that the newest run goes on without whoever asked for it, and ends, when `let_go` is
    /// done, with `answer`.
    pub async fn goes_on_alone(&self, let_go: impl FnOnce(), answer: &str) {
        let listed = self.call(["runs", "--json"]).await;
        let listed: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
        assert_eq!(listed[0]["state"], "running", "{listed:#}");
        let_go();
        let followed = self.call(["runs", "follow", "last"]).await;
        followed.assert_code(0);
        assert!(followed.stdout.contains(&format!("» {answer}")), "{}", followed.stdout);
    }

    /// Starts `command` with all three standard streams in our hands.
    pub fn start(&self, mut command: Command) -> Running {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("the command starts");
        let pid = child.id().expect("it runs");
        self.leftovers.watch(pid);
        Running {
            pid,
            started: Instant::now(),
            stdin: child.stdin.take(),
            stdout: Stream::follow(child.stdout.take().expect("piped")),
            stderr: Stream::follow(child.stderr.take().expect("piped")),
            child,
        }
    }

    /// Starts `sandbox-mcp run ARGS` in the workspace, with end of input on its stdin.
    pub fn start_run<'a>(
        &self,
        workspace: &Workspace,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Running {
        let mut command = self.command(["run"]);
        command.args(args).current_dir(workspace.path());
        let mut running = self.start(command);
        running.stdin = None;
        running
    }

    /// `sandbox-mcp run ARGS` in the workspace, to its end.
    pub async fn run<'a>(
        &self,
        workspace: &Workspace,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Finished {
        self.start_run(workspace, args).wait().await
    }

    /// `sandbox-mcp ARGS`, to its end.
    pub async fn call<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Finished {
        let mut running = self.start(self.command(args));
        running.stdin = None;
        running.wait().await
    }

    /// The one running container of a process of this house, as soon as it exists.
    pub async fn container_of(&self, running: &Running) -> String {
        self.leftovers.container_of(running.pid).await
    }

    pub fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    /// Asserts that no run of this house left anything behind.
    pub async fn check_nothing_left(&self) {
        self.leftovers.check().await;
    }
}

/// A process of the product.
pub struct Running {
    pub pid: u32,
    pub stdin: Option<ChildStdin>,
    pub stdout: Stream,
    pub stderr: Stream,
    started: Instant,
    child: Child,
}

impl Running {
    pub async fn feed(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is still open");
        stdin.write_all(bytes).await.expect("it reads its input");
        stdin.flush().await.expect("it reads its input");
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, signal: Signal) {
        assert!(self.try_signal(signal), "it still runs");
    }

    /// False where the process has ended already.
    pub fn try_signal(&self, signal: Signal) -> bool {
        let pid = Pid::from_raw(self.pid.cast_signed()).expect("a pid");
        rustix::process::kill_process(pid, signal).is_ok()
    }

    /// Waits for the end of the process and of its output.
    pub async fn wait(self) -> Finished {
        self.wait_within(PATIENCE).await
    }

    pub async fn wait_within(mut self, bound: Duration) -> Finished {
        self.stdin = None;
        let Ok(status) = tokio::time::timeout(bound, self.child.wait()).await else {
            panic!(
                "still running after {bound:?}\nstdout: {}\nstderr: {}",
                self.stdout.text(),
                self.stderr.text()
            );
        };
        let status = status.expect("our own child");
        let took = self.started.elapsed();
        // Streams stay open while a child of the product holds them: that is a leftover.
        let mut told = Vec::new();
        for stream in [&self.stdout, &self.stderr] {
            stream.until("end of output", |_, ended| ended.then_some(())).await;
            told.push(stream.text());
        }
        let stderr = told.pop().unwrap_or_default();
        let stdout = told.pop().unwrap_or_default();
        Finished { code: status.code(), signal: status.signal(), stdout, stderr, took }
    }
}

/// What a process has written so far.
pub struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    state: watch::Receiver<(usize, bool)>,
}

impl Stream {
    fn follow(mut from: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (told, state) = watch::channel((0, false));
        let kept = bytes.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = from.read(&mut buffer).await.unwrap_or(0);
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..count]);
                told.send_modify(|(size, ended)| {
                    *size += count;
                    *ended = count == 0;
                });
                if count == 0 {
                    break;
                }
            }
        });
        Self { bytes, state }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Waits until `probe`, which sees all text so far and whether it has ended, gives a value.
    pub async fn until<T>(&self, what: &str, mut probe: impl FnMut(&str, bool) -> Option<T>) -> T {
        let mut state = self.state.clone();
        let wait = async {
            loop {
                let ended = state.borrow_and_update().1;
                if let Some(value) = probe(&self.text(), ended) {
                    return value;
                }
                assert!(!ended, "the output ended without {what}:\n{}", self.text());
                state.changed().await.ok();
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {what}; so far:\n{}", self.text()))
    }

    /// Waits until `words` have been written.
    pub async fn says(&self, words: &str) {
        self.until(&format!("`{words}`"), |text, _| text.contains(words).then_some(())).await;
    }
}

/// A process of the product that has ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Finished {
    /// The closing report: of `--json`, or of the last line of `--events`.
    #[track_caller]
    pub fn report(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        let parsed = serde_json::from_str(&self.stdout).or_else(|_| serde_json::from_str(last));
        let report: Value = parsed.unwrap_or_else(|error| panic!("no report ({error}): {self:#?}"));
        if report["report"].is_object() { report["report"].clone() } else { report }
    }

    /// Every line of `--events` before the report.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let lines = self.stdout.lines().map(|line| {
            serde_json::from_str::<Value>(line)
                .unwrap_or_else(|error| panic!("{error} in {line:?}"))
        });
        lines.filter(|line| line["report"].is_null()).collect()
    }

    #[track_caller]
    pub fn assert_status(&self, status: &str) -> Value {
        let report = self.report();
        assert_eq!(report["status"], status, "{report:#}\nstderr: {}", self.stderr);
        report
    }

    #[track_caller]
    pub fn assert_code(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{self:#?}");
    }
}
