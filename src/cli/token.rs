//! `sandbox-mcp token`: what clients of the HTTP server must send.

use std::io::Write;

use crate::config::state_dir;
use crate::mcp::TokenFile;

pub fn run(rotate: bool, stdout: &mut impl Write) -> anyhow::Result<u8> {
    let file = TokenFile::in_state(&state_dir()?);
    let token = if rotate { file.rotate()? } else { file.obtain()? };
    writeln!(stdout, "{token}")?;
    Ok(0)
}
