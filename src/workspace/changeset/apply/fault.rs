//! Places where a test can let an application crash or fail.

use std::io;

/// What happens at a chosen point.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// As if the process were killed: nothing after it is done.
    Crash,
    Fail,
}

#[cfg(test)]
thread_local! {
    pub(super) static AT: std::cell::Cell<Option<(usize, Fault)>> =
        const { std::cell::Cell::new(None) };
}

/// How a test knows its own crash from a true one.
#[cfg(test)]
pub(super) const CRASH: &str = "a crash that a test asked for";

#[cfg(test)]
fn reached() -> Option<Fault> {
    let (left, fault) = AT.get()?;
    if left == 0 {
        AT.set(None);
        return Some(fault);
    }
    AT.set(Some((left - 1, fault)));
    None
}

#[cfg(test)]
pub(super) fn point() -> io::Result<()> {
    match reached() {
        Some(Fault::Crash) => std::panic::panic_any(CRASH),
        Some(Fault::Fail) => Err(io::Error::other("a failure that a test asked for")),
        None => Ok(()),
    }
}

/// Where only a crash is of interest.
#[cfg(test)]
pub(super) fn crash_point() {
    if reached() == Some(Fault::Crash) {
        std::panic::panic_any(CRASH);
    }
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "tests let it fail")]
pub(super) fn point() -> io::Result<()> {
    Ok(())
}

#[cfg(not(test))]
pub(super) fn crash_point() {}
