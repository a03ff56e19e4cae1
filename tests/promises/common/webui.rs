//! `Open WebUI`'s own modules and mcpo, each in a Python of its own in the cache folder.
//!
//! The whole of `Open WebUI` is 6.8 GB installed. What its tool loader and its MCP client import is
//! 170 MB, by the pinned list beside the scripts that use it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::clients::skip;
use super::engine;

/// Where the scripts and the lists of packages are.
pub const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/promises/open_webui");

pub struct Python {
    folder: PathBuf,
}

impl Python {
    /// With `open-webui`, its `mcp` of the second kind, and little else.
    pub fn open_webui() -> Option<Self> {
        Self::with("open-webui")
    }

    /// With `mcpo`, and `mcp` of the first kind.
    pub fn mcpo() -> Option<Self> {
        Self::with("mcpo")
    }

    fn with(name: &str) -> Option<Self> {
        let list = Path::new(SCRIPTS).join(format!("{name}.txt"));
        let pinned = std::fs::read_to_string(&list).expect("the list of packages");
        let python = Self { folder: engine::cache().join(format!("python-{name}")) };
        let _turn = engine::lock("webui.lock");
        let stamp = python.folder.with_extension("installed");
        if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == pinned) {
            return Some(python);
        }
        std::fs::remove_dir_all(&python.folder).ok();
        match python.install(&list) {
            Ok(()) => {
                std::fs::write(&stamp, pinned).expect("a note that it is installed");
                Some(python)
            }
            Err(error) if std::env::var_os("CI").is_none() && !python.reaches_the_registry() => {
                skip(&format!("{name} cannot be installed: {error}"));
                None
            }
            Err(error) => panic!("{name} cannot be installed: {error}"),
        }
    }

    fn install(&self, list: &Path) -> Result<(), String> {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&self.folder);
        run(venv)?;
        // The list is whole: nothing is looked for besides it.
        let mut pip = self.pip(&["install", "--no-deps", "--no-compile", "-r"]);
        pip.arg(list);
        run(pip)?;
        // Its pages take 240 MB, and no test looks at one.
        let mut find = self.command();
        find.args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]);
        let out = find.output().map_err(|error| error.to_string())?;
        let packages = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
        std::fs::remove_dir_all(packages.join("open_webui/frontend")).ok();
        Ok(())
    }

    fn reaches_the_registry(&self) -> bool {
        run(self.pip(&["download", "--no-deps", "-d", "/dev/null", "pip"])).is_ok()
    }

    fn pip(&self, args: &[&str]) -> Command {
        let mut command = self.command();
        command.args(["-m", "pip", "-q", "--disable-pip-version-check"]).args(args);
        command
    }

    pub fn command(&self) -> Command {
        Command::new(self.program("python"))
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// One of the scripts, in surroundings that `Open WebUI`'s modules need.
    pub fn script(&self, name: &str) -> Command {
        let mut command = self.command();
        command.arg(Path::new(SCRIPTS).join(name));
        command.envs([
            ("FROM_INIT_PY", "true"),
            ("OFFLINE_MODE", "true"),
            ("WEBUI_SECRET_KEY", "only a test's"),
            ("GLOBAL_LOG_LEVEL", "ERROR"),
        ]);
        command
    }
}

fn run(mut command: Command) -> Result<(), String> {
    let out = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let told = String::from_utf8_lossy(&out.stderr);
    if out.status.success() { Ok(()) } else { Err(format!("{command:?}: {told}")) }
}
