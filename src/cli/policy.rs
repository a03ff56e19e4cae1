//! `sandbox-mcp policy`: what a sandbox may do, as a table for people and as JSON for programs.

use std::io::Write;

use crate::config::{Config, Size};
use crate::sandbox::{Policy, User};

pub fn run(config: &Config, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let user = match &config.sandbox.user {
        Some(user) => user.parse()?,
        None => User::nobody_in_particular(),
    };
    let policy = Policy::new(config, user, Policy::usual_mounts());
    if json {
        serde_json::to_writer_pretty(&mut *out, &policy)?;
        writeln!(out)?;
        return Ok(());
    }
    let mut table = Vec::new();
    let user = match &config.sandbox.user {
        Some(user) => user.clone(),
        None => "the workspace's owner, never root".into(),
    };
    let size = |bytes: u64| Size::from(bytes).to_string();
    let mut row = |what: &str, value: String| {
        table.push((what.to_owned(), value));
    };
    row("user", format!("{user}, umask {}", policy.umask));
    row("network", format!("{} (loopback only: no route, no resolver, no LAN)", policy.network));
    row("doors", policy.doors.join(", "));
    row("capabilities", "none; nothing is added back".into());
    row("new privileges", "never (no_new_privs)".into());
    row("system calls", policy.seccomp.clone());
    row("root file system", "read-only".into());
    row("memory", format!("{}, no swap", size(policy.memory)));
    row("processors", policy.cpus.to_string());
    row("processes", policy.pids.to_string());
    row("open files", policy.open_files.to_string());
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
    row("runtime", policy.runtime.clone().unwrap_or_else(|| "the engine's default".into()));
    row("host", "no port, device, engine socket or environment of the host".into());
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
