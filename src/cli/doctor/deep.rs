//! One whole run on the rehearsal model, through a real sandbox, in a folder made for it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::finding::Finding;
use crate::cli::complain;
use crate::config::{Config, History, LoadOptions, Model, Source};
use crate::ids::RunId;
use crate::runner::{CancelReason, EventKind, Receipt, Report, Run, Runner, Status, Task};
use crate::sandbox::User;
use crate::text::one_line;
use crate::workspace::WorkspacePath;

/// The agent's own time; it needs a few seconds.
const WORK: u64 = 60;
/// The whole run, with an image that is there, and with one that is yet to be built.
const QUICK: Duration = Duration::from_secs(120);
const WITH_BUILD: Duration = Duration::from_secs(1800);
const CLEAN_UP: Duration = Duration::from_secs(10);

/// Runs the rehearsal. `built` says whether the image is there already.
pub async fn examine(config: &Config, rootless: bool, built: bool) -> Vec<Finding> {
    let place = match Place::make(config.sandbox.user.as_deref(), rootless) {
        Ok(place) => place,
        Err(error) => {
            let message = format!("no folder to work in could be made: {error}");
            return vec![Finding::error(
                "workspace",
                message,
                "set TMPDIR to a folder of your own",
            )];
        }
    };
    match rehearse(config, &place, built).await {
        Ok(report) => judge(&report, &place, rootless),
        Err(why) => vec![Finding::error("rehearsal", why, "see the checks above")],
    }
}

async fn rehearse(config: &Config, place: &Place, built: bool) -> Result<Report, String> {
    let mut config = config.clone();
    config.model = Model { source: Source::Rehearsal, ..Model::default() };
    config.workspace.roots.push(place.workspace.clone());
    // A check of the machine pushes no record of real work out of the history.
    config.history =
        History { keep: usize::MAX, max_age_days: u64::MAX, max_bytes: u64::MAX.into() };
    let mut task = Task::new("Rehearse: list the folder, write a note, and read it back.");
    task.workspace = Some(place.workspace.clone());
    task.timeout = Some(Duration::from_secs(WORK.min(config.limits.max_timeout)));
    let runner = Runner::new(config, LoadOptions::default()).map_err(|error| error.to_string())?;
    let run = runner.start(task).map_err(|error| error.to_string())?;
    let report = watch(run, built).await;
    let left = runner.shutdown(CLEAN_UP).await;
    match (report, left.as_slice()) {
        (report, []) => report,
        (_, left) => Err(format!("what run {} left behind could not be removed", left[0])),
    }
}

/// Follows the run to its end; a signal or the end of our patience cancels it.
async fn watch(mut run: Run, built: bool) -> Result<Report, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("no signals: {error}"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let canceller = run.canceller();
    let patience = tokio::time::sleep(if built { QUICK } else { WITH_BUILD });
    tokio::pin!(patience);
    let mut late = false;
    loop {
        tokio::select! {
            event = run.next_event() => match event.map(|event| event.event) {
                // Minutes of building must not look like a hang.
                Some(EventKind::Notice { message }) if !built => {
                    complain(&format!("  {}", one_line(&message, 160)));
                }
                Some(_) => {}
                None => break,
            },
            () = &mut patience, if !late => {
                late = true;
                canceller.cancel(CancelReason::Asked);
            }
            _ = interrupt.recv() => canceller.cancel(CancelReason::Asked),
            _ = terminate.recv() => canceller.cancel(CancelReason::Asked),
            _ = hang_up.recv() => canceller.cancel(CancelReason::Asked),
        }
    }
    let report = run.report().await;
    if late { Err("it did not end in time, and was cancelled".into()) } else { Ok(report) }
}

fn judge(report: &Report, place: &Place, rootless: bool) -> Vec<Finding> {
    if report.status != Status::Completed {
        return vec![broken(report)];
    }
    let timing = &report.timing;
    let mut findings = vec![Finding::ok(
        "rehearsal",
        format!(
            "a task on the rehearsal model completed in {} ms (prepare {}, boot {}, agent {}, \
             clean up {}), {} tool calls",
            timing.total_ms,
            timing.prepare_ms,
            timing.boot_ms,
            timing.agent_ms,
            timing.cleanup_ms,
            report.tools.iter().map(|tool| tool.calls).sum::<u64>(),
        ),
    )];
    match &report.sandbox.receipt {
        Some(receipt) => findings.extend(points(receipt, rootless)),
        None => findings.push(Finding::error(
            "receipt",
            "the sandbox did not say how it is isolated",
            "rebuild the image (`sandbox-mcp build`); this should not happen, please report it",
        )),
    }
    findings.push(changes(report, place));
    // The record of a good rehearsal is nobody's work.
    if let Some(record) = report.transcript.as_deref().and_then(|file| Path::new(file).parent())
        && let Err(error) = std::fs::remove_dir_all(record)
    {
        tracing::warn!("{} was not removed: {error}", record.display());
    }
    findings
}

fn broken(report: &Report) -> Finding {
    let status = report.status.label();
    let why = report.error.as_ref().map(|error| error.message.as_str()).unwrap_or_default();
    let hint = report.error.as_ref().and_then(|error| error.hint.clone());
    let transcript = report.transcript.as_deref().map(|file| format!("; its events are in {file}"));
    Finding::error(
        "rehearsal",
        format!("a task on the rehearsal model ended: {status}: {why}"),
        format!(
            "{}{}",
            hint.as_deref().unwrap_or("see the checks above"),
            transcript.unwrap_or_default()
        ),
    )
}

/// What the sandbox saw of itself. The runner has held it against the policy before the agent
/// began; here it is looked at a second time, because this is what people want to see.
fn points(receipt: &Receipt, rootless: bool) -> Vec<Finding> {
    let point = |check, holds: bool, message: String| {
        if holds {
            return Finding::ok(check, message);
        }
        let remedy = "do not use this engine; please report this with the output of \
                      `sandbox-mcp doctor --json`";
        Finding::error(check, message, remedy)
    };
    let sets = &receipt.capabilities;
    let sets = [&sets.inheritable, &sets.permitted, &sets.effective, &sets.bounding, &sets.ambient];
    let none = sets.iter().all(|set| !set.is_empty() && set.bytes().all(|digit| digit == b'0'));
    let limits = &receipt.limits;
    let shown = |limit: Option<u64>| limit.map_or("none".to_owned(), super::finding::size);
    vec![
        point(
            "user",
            receipt.uid != 0 || rootless,
            format!(
                "{}:{}{}",
                receipt.uid,
                receipt.gid,
                if rootless { ", inside of a rootless engine" } else { "" }
            ),
        ),
        point(
            "privileges",
            none && receipt.no_new_privs,
            if none { "no capability, and none to be had" } else { "it has capabilities" }.into(),
        ),
        point(
            "network",
            receipt.routes == 0 && receipt.interfaces.iter().all(|name| name == "lo"),
            format!("{} and {} routes", receipt.interfaces.join(", "), receipt.routes),
        ),
        point(
            "file system",
            receipt.root_read_only,
            if receipt.root_read_only { "read-only root" } else { "writable root" }.into(),
        ),
        point(
            "seccomp",
            receipt.seccomp == 2,
            if receipt.seccomp == 2 { "system calls are filtered" } else { "no filter" }.into(),
        ),
        point(
            "limits",
            limits.memory.is_some() && limits.pids.is_some() && limits.cpu.is_some(),
            format!(
                "memory {}, {} processes, {} processors",
                shown(limits.memory),
                limits.pids.map_or("unlimited".to_owned(), |pids| pids.to_string()),
                limits.cpu.map_or("unlimited".to_owned(), |cpus| cpus.to_string()),
            ),
        ),
    ]
}

/// Whether what was written inside is here, and belongs to whom it should.
fn changes(report: &Report, place: &Place) -> Finding {
    let [change] = report.changes.files.as_slice() else {
        return Finding::error(
            "changes",
            format!("{} files were changed instead of one", report.changes.files.len()),
            "the engine does not see this machine's temporary folder (a snap?): set TMPDIR to one \
             that it sees, or use an engine that is installed otherwise",
        );
    };
    let note = place.workspace.join(&change.path);
    match (std::fs::symlink_metadata(&note), std::fs::metadata(&place.workspace)) {
        (Ok(note), Ok(folder)) if place.mixed || note.uid() == folder.uid() => Finding::ok(
            "changes",
            format!(
                "{} was written inside, and belongs to {}:{}",
                change.path,
                note.uid(),
                note.gid()
            ),
        ),
        (Ok(note), Ok(folder)) => Finding::error(
            "changes",
            format!(
                "{} belongs to {}, but its folder to {}",
                change.path,
                note.uid(),
                folder.uid()
            ),
            "set `sandbox.user`, and look at how the engine maps users",
        ),
        (Err(error), _) | (_, Err(error)) => Finding::error(
            "changes",
            format!("{} cannot be seen: {error}", change.path),
            "look at how the engine mounts this machine's folders",
        ),
    }
}

/// A temporary workspace inside a folder that is ours alone; both go when it is dropped.
#[derive(Debug)]
struct Place {
    outer: PathBuf,
    workspace: PathBuf,
    /// Whether somebody else than the folder's owner works in it.
    mixed: bool,
}

impl Place {
    /// In the first temporary folder in which workspaces may lie.
    fn make(user: Option<&str>, rootless: bool) -> io::Result<Self> {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for base in [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()] {
            match Self::make_in(&base, user, rootless) {
                Ok(place) => return Ok(place),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn make_in(base: &Path, user: Option<&str>, rootless: bool) -> io::Result<Self> {
        let outer = base.canonicalize()?.join(format!("sandbox-mcp-doctor-{}", RunId::new()));
        DirBuilder::new().mode(0o700).create(&outer)?;
        let workspace = outer.join("workspace");
        let user = user.and_then(|user| user.parse::<User>().ok());
        let root = rustix::process::geteuid().is_root();
        let place = Self { outer, workspace, mixed: user.is_some() && !root };
        DirBuilder::new().mode(0o755).create(&place.workspace)?;
        if root && !rootless {
            let user = user.unwrap_or(User::nobody_in_particular());
            chown(&place.workspace, Some(user.uid()), Some(user.gid()))?;
        }
        if place.mixed {
            // The outer folder keeps everybody out but the sandbox, into which this one is
            // mounted by itself.
            std::fs::set_permissions(&place.workspace, Permissions::from_mode(0o777))?;
        }
        let roots = std::slice::from_ref(&place.workspace);
        WorkspacePath::check(Some(&place.workspace), Path::new("/"), roots)
            .map_err(io::Error::other)?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.outer) {
            tracing::warn!("{} was not removed: {error}", self.outer.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_a_workspace_of_nobodys_root_and_goes() {
        let place = Place::make(None, false).expect("a place");
        let found = std::fs::metadata(&place.workspace).expect("there");
        assert_ne!(found.uid(), 0);
        assert_eq!(std::fs::metadata(&place.outer).expect("there").mode() & 0o777, 0o700);
        let outer = place.outer.clone();
        std::fs::write(place.workspace.join("note"), "").expect("write");
        drop(place);
        assert!(!outer.exists());
    }

    #[test]
    fn a_temporary_folder_where_no_workspace_may_lie_is_passed_over() {
        let etc = Place::make_in(Path::new("/etc"), None, false);
        assert!(etc.is_err());
        let entries = std::fs::read_dir("/etc").expect("readable");
        let left = entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("sandbox-mcp-doctor"));
        assert!(!left);
    }
}
