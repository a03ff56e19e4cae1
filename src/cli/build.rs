//! `sandbox-mcp build`: the image, made now instead of at the first run, or made anew.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::complain;
use crate::config::{self, Config};
use crate::engine::Engine;
use crate::sandbox::image::{Asked, Inputs};

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Give it this name, too
    #[arg(long, value_name = "NAME:TAG")]
    tag: Option<String>,
    /// Build it anew with the newest packages, also where it is there
    #[arg(long)]
    refresh: bool,
    /// Leave the older images that it takes the place of
    #[arg(long)]
    keep_old: bool,
    /// With the settings of this folder's project
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
}

pub async fn run(
    config: &Config,
    args: &BuildArgs,
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
    let asked = Asked { refresh: args.refresh, keep_old: args.keep_old };
    let image = inputs.build(&engine, &state, asked, tell).await?;
    if let Some(tag) = &args.tag {
        engine.tag(&image, tag).await?;
    }
    writeln!(out, "{image}")?;
    Ok(())
}
