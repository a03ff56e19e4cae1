//! `sandbox-mcp own`: the process of one run, started by others of ours and by nobody else.

use anyhow::Context;

use crate::runner::{OwnerLog, own};

/// What comes first of all: a session of our own, which nobody kills together with the client's.
pub fn leave_session() -> anyhow::Result<()> {
    // A process that leads its group already has been started by hand, and may stay where it is.
    match rustix::process::setsid() {
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(errno) => Err(errno).context("failed to begin a session"),
    }
}

pub fn run(log: &OwnerLog) -> anyhow::Result<u8> {
    // Standard error leads nowhere here; what breaks down is to be in the log.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    super::block_on(own(log))
        .context("failed to own a run; this command is for sandbox-mcp itself")?;
    Ok(0)
}
