//! stub for compile
use std::io::Write;
#[derive(Debug)]
pub struct Options {
    pub json: bool,
    pub deep: bool,
    pub workspace: Option<std::path::PathBuf>,
}
pub async fn run(
    _e: Result<crate::config::Effective, crate::config::Error>,
    _o: &Options,
    _out: &mut impl Write,
) -> anyhow::Result<u8> {
    Ok(0)
}
