//! The user's own lines that run on this machine before a sandbox starts.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::Error;
use crate::ids::RunId;
use crate::text::one_line;

/// Most bytes of variables, and of what the hook says.
const MOST: u64 = 1 << 20;

const THEN: &str =
    "sandbox_mcp_code=$?; [ $sandbox_mcp_code = 0 ] || exit $sandbox_mcp_code; exec env -0";

/// Runs the lines with `sh` and returns every variable that is exported at their end. Values are
/// never logged; what the hook prints is, when it fails.
pub async fn run(
    lines: &str,
    patience: Duration,
    run: &RunId,
    workspace: &OsStr,
) -> Result<BTreeMap<String, String>, Error> {
    // What the lines print must not mix with the variables. `env` last, so that a failing line
    // fails the hook only if it is the last one or the lines themselves say so (`set -e`), as in
    // any script. No `&&`: in front of one, a shell ignores `set -e`.
    let script = format!("{{\n{lines}\n}} >&2\n{THEN}");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .env("SANDBOX_MCP_RUN", run.as_str())
        .env("SANDBOX_MCP_WORKSPACE", workspace)
        // Never in the workspace: what lies there must not be picked up by name.
        .current_dir(std::env::home_dir().unwrap_or_else(|| "/".into()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let failed = |why: String| Error::Hook { why };
    let mut child = command.spawn().map_err(|error| failed(format!("cannot start: {error}")))?;
    let group = Group(child.id());
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("its output cannot be read".into()));
    };
    let all = async { tokio::join!(read(stdout), read(stderr), child.wait()) };
    let Ok((variables, said, status)) = tokio::time::timeout(patience, all).await else {
        drop(group);
        return Err(failed(format!("took longer than {} seconds", patience.as_secs())));
    };
    let status = status.map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let said = said.unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("silently");
        return Err(failed(format!("ended with {status}: {}", one_line(last, 300))));
    }
    let variables = variables.map_err(|error| failed(error.to_string()))?;
    Ok(parse(&variables))
}

/// The hook's processes, ended when this is dropped: also those that it left in the background.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // It is gone already where nothing was left.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

async fn read(stream: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(MOST + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > MOST {
        return Err(std::io::Error::other("it printed more than 1 MiB"));
    }
    Ok(bytes)
}

fn parse(variables: &[u8]) -> BTreeMap<String, String> {
    variables
        .split(|byte| *byte == 0)
        .filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn hook(lines: &str) -> Result<BTreeMap<String, String>, String> {
        run(lines, Duration::from_secs(2), &RunId::new(), OsStr::new("/w"))
            .await
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn what_it_exports_comes_back_and_what_it_prints_does_not() {
        let found = hook("echo noise\nA=hidden\nexport B=$(printf 'two\\nlines')\nexport C=$SANDBOX_MCP_WORKSPACE")
            .await
            .expect("variables");
        assert_eq!(found.get("B").map(String::as_str), Some("two\nlines"));
        assert_eq!(found.get("C").map(String::as_str), Some("/w"));
        assert!(!found.contains_key("A") && !found.contains_key("noise"));
    }

    #[tokio::test]
    async fn a_failure_is_told_with_its_last_words() {
        let said = hook("echo not logged in >&2; exit 4").await.expect_err("failed");
        assert!(said.contains("exit status: 4") && said.contains("not logged in"), "{said}");
        let said = hook("set -e\nfalse\nexport A=1").await.expect_err("the shell was to stop");
        assert!(said.contains("exit status: 1"), "{said}");
        let found = hook("false\nexport A=1").await.expect("nobody asked for it to stop");
        assert_eq!(found.get("A").map(String::as_str), Some("1"));
        assert!(hook("export A=1\nfalse").await.is_err());
        let said = hook("if").await.expect_err("no shell line");
        assert!(said.contains("hooks.before_start"), "{said}");
    }

    #[tokio::test]
    async fn neither_time_nor_output_is_endless_and_nothing_is_left_running() {
        let mark = format!("{}.5", 70_000 + std::process::id() % 10_000);
        let said = hook(&format!("sleep {mark} & sleep {mark}")).await.expect_err("too slow");
        assert!(said.contains("2 seconds"), "{said}");
        assert!(hook("yes").await.is_err());
        hook(&format!("sleep {mark} >/dev/null 2>&1 & true")).await.expect("done");
        let left = || {
            std::fs::read_dir("/proc").expect("proc").flatten().any(|process| {
                let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
            })
        };
        // They are killed, but a busy machine takes its time to end them.
        for _ in 0..100 {
            if !left() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("a process of the hook goes on");
    }
}
