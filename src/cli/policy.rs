//! `sandbox-mcp policy`: what a sandbox may do, as a table for people and as JSON for programs.

use std::io::Write;
use std::path::Path;

use crate::config::{Config, Credential, Size};
use crate::sandbox::{Mount, Policy, User, place};
use crate::workspace::git::below_top;

/// Prints the policy of a run in `folder`.
pub fn run(config: &Config, folder: &Path, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let user = match &config.sandbox.user {
        Some(user) => user.parse()?,
        None => User::nobody_in_particular(),
    };
    let material = config.mount.iter().filter_map(|mount| {
        let what = format!("shared material {}", mount.path.display());
        let (source, target) = (mount.path.clone(), mount.target()?);
        Some(Mount { what, source, target, read_only: true, overlay: None })
    });
    let material: Vec<_> = material.collect();
    let asked = config.sandbox.path.as_deref().map(Path::new);
    let (inside, _) = place(folder, &below_top(folder), asked, &material);
    let mounts = [Policy::usual_mounts(inside.clone()), material].concat();
    let policy = Policy::new(config, user, inside, mounts);
    if json {
        serde_json::to_writer_pretty(&mut *out, &policy)?;
        writeln!(out)?;
        return Ok(());
    }
    let mut table = Vec::new();
    let user = match &config.sandbox.user {
        Some(user) => user.clone(),
        None => "you, or the workspace's owner where you are root; never root".into(),
    };
    let size = |bytes: u64| Size::from(bytes).to_string();
    let mut row = |what: &str, value: String| {
        table.push((what.to_owned(), value));
    };
    row("user", format!("{user}, umask {}", policy.umask));
    row("network", format!("{} (loopback only: no route, no resolver, no LAN)", policy.network));
    for door in &policy.doors {
        row(&format!("127.0.0.1:{}", door.port), door.what.clone());
    }
    for (inside, outside) in &config.env.pass {
        row("variable", format!("{inside}, from this machine's {outside}"));
    }
    for name in config.env.set.keys() {
        row("variable", format!("{name}, from the configuration"));
    }
    for credential in &config.credential {
        let Credential { host, header, value_env, .. } = credential;
        row("credential", format!("{header} from {value_env}, for {host} alone, never inside"));
    }
    for name in config.agent.mcp.keys() {
        row("MCP server inside", name.clone());
    }
    if config.hooks.before_start.is_some() {
        row("hook", "runs on this machine before each sandbox".into());
    }
    row("capabilities", "none; nothing is added back".into());
    row("new privileges", "never (no_new_privs)".into());
    row("system calls", policy.seccomp.clone());
    row("root file system", "read-only".into());
    row("memory", format!("{}, no swap", size(policy.memory)));
    row("processors", policy.cpus.to_string());
    row("processes", policy.pids.to_string());
    row("open files", policy.open_files.to_string());
    row("largest file", size(policy.file_bytes));
    row("core dumps", "none".into());
    row("/dev/shm", size(policy.shared_memory));
    for tmpfs in &policy.tmpfs {
        let exec = if tmpfs.options.contains("noexec") { "noexec" } else { "exec" };
        row(tmpfs.path, format!("{} in memory, {exec}, nosuid, nodev", size(tmpfs.size)));
    }
    for mount in &policy.mounts {
        let access = if mount.read_only { "read-only" } else { "read-write" };
        row(&mount.target.display().to_string(), format!("{}, {access}", mount.what));
    }
    if !policy.accepted.is_empty() {
        let words = policy.accepted.join(", ");
        row("accepted", format!("{words}, where the engine cannot do better"));
    }
    row("runtime", policy.runtime.clone().unwrap_or_else(|| "the engine's default".into()));
    row("host", "no port, device, engine socket or environment of the host".into());
    row("control groups", format!("a {} namespace", policy.cgroup_namespace));
    row("engine's logs", policy.log_driver.into());
    row(
        "end",
        "removed after the run; ends by itself when its owner dies or its time is up".into(),
    );
    let width = table.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
    for (what, value) in table {
        writeln!(out, "{what:width$}  {value}")?;
    }
    Ok(())
}
