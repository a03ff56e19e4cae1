//! `sandbox-mcp build`: the image, made now instead of at the first run.

use std::io::Write;

use super::complain;
use crate::config::{self, Config};
use crate::engine::Engine;
use crate::sandbox::image::Inputs;

pub async fn run(
    config: &Config,
    tag: Option<&str>,
    quiet: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let inputs = Inputs::new(&config.image)?;
    let engine = Engine::connect(config.engine.host.as_deref()).await?;
    let state = config::state_dir()?;
    let tell = |line: &str| {
        if !quiet {
            complain(&crate::text::one_line(line, 160));
        }
    };
    let image = inputs.ensure(&engine, &state, tell).await?;
    if let Some(tag) = tag {
        engine.tag(&image, tag).await?;
    }
    writeln!(out, "{image}")?;
    Ok(())
}
